package proxier

import (
	"context"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

// lockoutPeriod is how long the start waits for the API server before it looks, again and again, whether
// rules that an earlier process left lead the connections to it elsewhere.
const lockoutPeriod = 5 * time.Second

// awaitSource waits until the source has delivered everything. It returns false if ctx ends before.
func (r *reconciler) awaitSource(ctx context.Context) bool {
	ticker := time.NewTicker(lockoutPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-r.synced:
			return true
		case q := <-r.asked:
			r.answer(q)
		case <-ctx.Done():
			return false
		case <-ticker.C:
			if err := r.unlock(); err != nil {
				klog.InfoS("Failed to look for rules that lead connections to the API server elsewhere", "err", err)
			}
		}
	}
}

// unlock deletes the frontends in the kernel that are reserved for others than their Service. None is ever
// programmed, but an earlier process may have dialed the API server at another address, or may not have
// reserved any. Without the API server no sync would come that removes them.
func (r *reconciler) unlock() error {
	if r.client == nil {
		return nil
	}
	e, err := r.env()
	if err != nil {
		return err
	}
	found, err := r.frontends()
	if err != nil {
		return err
	}
	taken := &rules.Delta{}
	for _, element := range found {
		f := element.KeyValues().Frontend()
		if kept, ok := e.Node.Reserved[f]; ok && rules.OwnerOf(element.Comment) != kept.By {
			klog.InfoS("Removing a frontend that the node needs, which an earlier process left", "frontend", f,
				"neededFor", kept.Use, "servicePort", element.Comment)
			taken.Delete = append(taken.Delete, element)
		}
	}
	if len(taken.Delete) == 0 {
		return nil
	}
	if err := r.tables.Apply(taken); err != nil {
		return fmt.Errorf("remove frontends: %w", err)
	}
	return nil
}

// frontends returns the elements of the map services in the kernel: compared with no Services at all, they are
// to be deleted. A map that counts otherwise would be replaced as a whole, so both ways are compared.
func (r *reconciler) frontends() (found []nftables.Element, err error) {
	for _, counted := range []bool{true, false} {
		d, err := r.tables.Diff(r.families, func(rules.Slots) *rules.Ruleset {
			return rules.NewRuleset(rules.Config{
				Families: r.families, Counters: rules.Counters{Services: counted}})
		})
		if err != nil {
			return nil, err
		}
		for _, element := range d.Delete {
			if element.Set.Kind == nftables.Services {
				found = append(found, element)
			}
		}
	}
	return found, nil
}

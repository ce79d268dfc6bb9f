package proxier

import (
	"context"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
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
		case ask := <-r.asked:
			ask(r)
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
	taken, err := r.taken(e.Node.Reserved)
	if err != nil || len(taken.Delete) == 0 {
		return err
	}
	if err := r.tables.Apply(taken); err != nil {
		return fmt.Errorf("remove frontends: %w", err)
	}
	return nil
}

// taken returns the Delta that deletes the frontends in the kernel that are reserved for others than their
// Service.
func (r *reconciler) taken(reserved map[service.Frontend]service.Reservation) (*rules.Delta, error) {
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	d := &rules.Delta{}
	for _, family := range r.families {
		found, err := kernel.NewInquiry(conn).Frontends(family, func(f service.Frontend, port string) bool {
			kept, ok := reserved[f]
			if !ok || rules.OwnerOf(port) == kept.By {
				return false
			}
			klog.InfoS("Removing a frontend that the node needs, which an earlier process left", "frontend", f,
				"neededFor", kept.Use, "servicePort", port)
			return true
		})
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			d.Delete = append(d.Delete, nftables.FrontendElement(nftables.Services, f))
		}
	}
	return d, nil
}

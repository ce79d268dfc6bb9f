package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// ReadTimeout bounds the time in which the API server has to give what a question needs.
const ReadTimeout = 10 * time.Second

// Objects is where objects are read once: a *source.Client.
type Objects interface {
	ReadNode(ctx context.Context, name string, apply func(runtime.Object)) error
	ReadServices(ctx context.Context, namespace, name string, apply func(runtime.Object)) error
	ReadEndpoints(ctx context.Context, namespace, service string, apply func(runtime.Object)) error
}

// Read gathers what a question needs from the API server, as Collect does from a running daemon. A question
// about a Service reads that one only; one about an address reads all Services, but the EndpointSlices of
// those only that have the address. Endpoints keep the slots that they have in held. pods are the ranges of
// pods if the configuration has none.
func Read(ctx context.Context, objects Objects, c *config.Config, hostAddrs []netip.Addr, pods []netip.Prefix,
	held rules.Slots, q Question) (*Wanted, error) {
	t, err := parseTarget(q.Target)
	if err != nil {
		return nil, err
	}
	name, err := c.NodeName()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	s := state.New(name)
	if err := read(ctx, objects, s, name, t, hostAddrs); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: no answer within %v", err, ReadTimeout)
		}
		return nil, fmt.Errorf("read from the API server: %w", err)
	}
	e := desired.NewEnvironment(c, name, s, service.Families(), hostAddrs)
	if p := &e.Config.PodTraffic; p.Interface == "" && len(p.CIDRs) == 0 {
		p.CIDRs = pods
	}
	b := desired.NewBuilder(s, func(desired.Problem) {}) // the answer has the problems that matter
	b.Rebuild(e, held)
	return Collect(b, hostAddrs, q)
}

// read applies the objects that a target needs to a state.
func read(ctx context.Context, objects Objects, s *state.State, node string, t target,
	hostAddrs []netip.Addr) error {
	if err := objects.ReadNode(ctx, node, s.Apply); err != nil {
		return err
	}
	var err error
	if t.isService() {
		err = objects.ReadServices(ctx, t.name.Namespace, t.name.Name, s.Apply)
	} else {
		err = readClaiming(ctx, objects, s, t, hostAddrs)
	}
	if err != nil {
		return err
	}
	for _, name := range s.Services() {
		if err := objects.ReadEndpoints(ctx, name.Namespace, name.Name, s.Apply); err != nil {
			return err
		}
	}
	return nil
}

// readClaiming applies the Services that have the address or nodePort of a target. It holds no others, because
// the command may run within the memory limit of a daemon.
func readClaiming(ctx context.Context, objects Objects, s *state.State, t target,
	hostAddrs []netip.Addr) error {
	nodePort := uint16(0)
	if !t.addr.IsValid() || slices.Contains(hostAddrs, t.addr) {
		nodePort = t.port
	}
	one := state.New("")
	return objects.ReadServices(ctx, "", "", func(obj runtime.Object) {
		one.Apply(obj)
		if len(one.Claiming(t.addr, nodePort)) > 0 {
			s.Apply(obj)
		}
		one.Delete(obj)
	})
}

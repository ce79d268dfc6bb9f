package proxier

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Connections that are open are counted only when somebody looks, since this takes a walk of the connection
// tracking table. What was found counts as new for openFor, or openShare times as long as the walk took, so
// that people who look all the time take a twentieth of a CPU at most.
const (
	openFor   = 5 * time.Second
	openShare = 20
	// openWithin is how long a page waits for a count. It then has that of the last one, and the first page
	// none: its first byte shall come within 200 ms.
	openWithin = 100 * time.Millisecond
	// openTimeout bounds a count.
	openTimeout = 10 * time.Second
	// openLookups is how many frontends are looked up in one turn of the reconciler's goroutine.
	openLookups = 2_000
)

// openPorts are the connections that are open. It does not change any more when others have it.
type openPorts struct {
	ports     map[string]float64 // by the names of ports: rules.Entry.Port
	endpoints map[openEndpoint]int
}

// openEndpoint is an endpoint of a port. The port may have another one now.
type openEndpoint struct {
	port    string
	backend service.Backend
}

func newOpenPorts() *openPorts { return &openPorts{map[string]float64{}, map[openEndpoint]int{}} }

// openCount counts the connections that are open, one count at a time.
type openCount struct {
	count func(context.Context) (*openPorts, error)

	mu      sync.Mutex
	ports   *openPorts    // nil: not known
	next    time.Time     // when to count anew
	running chan struct{} // is closed when the count that is under way ends; nil: none is
	forget  *time.Timer   // frees the memory when nobody has looked for a while
}

func newOpenCount(count func(context.Context) (*openPorts, error)) *openCount {
	return &openCount{count: count}
}

// get returns what is open, and nil if it is not known.
func (o *openCount) get(ctx context.Context) *openPorts {
	o.mu.Lock()
	if o.running == nil && !time.Now().Before(o.next) {
		o.running = make(chan struct{})
		go o.run(context.WithoutCancel(ctx), o.running)
	}
	running := o.running
	o.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-time.After(openWithin):
		case <-ctx.Done():
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ports
}

// run counts. After an error nothing is known.
func (o *openCount) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	begin := time.Now()
	ports, err := o.count(ctx)
	if err != nil {
		klog.V(2).InfoS("Failed to count open connections for a page", "err", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	valid := max(openFor, openShare*now.Sub(begin))
	o.ports, o.next, o.running = ports, now.Add(valid), nil
	if o.forget != nil {
		o.forget.Stop()
	}
	o.forget = time.AfterFunc(2*valid, o.drop)
}

func (o *openCount) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !time.Now().Before(o.next) {
		o.ports = nil
	}
}

// countOpen counts the connections that are open. The rules know which port has a frontend.
func (p *Proxier) countOpen(ctx context.Context) (*openPorts, error) {
	ports := newOpenPorts()
	ours := frontendsLike(p.state.All(nil))
	for _, f := range p.families {
		found, err := conntrack.OpenAll(ctx, f, ours)
		if err != nil {
			return nil, err
		}
		if err := p.addOpen(ctx, ports, found); err != nil {
			return nil, fmt.Errorf("find the ports of open connections: %w", err)
		}
	}
	return ports, nil
}

// frontendsLike returns a function that picks what can be a frontend of the Services. It bounds the memory of a
// count: another program may translate any number of addresses.
func frontendsLike(services []*service.Service) func(service.Frontend) bool {
	addrs, nodePorts := map[netip.Addr]struct{}{}, map[uint16]struct{}{}
	for _, svc := range services {
		for _, list := range [][]netip.Addr{svc.ClusterIPs, svc.LoadBalancerIPs, svc.ExternalIPs} {
			for _, a := range list {
				addrs[a] = struct{}{}
			}
		}
		for i := range svc.Ports {
			nodePorts[svc.Ports[i].NodePort] = struct{}{} // 0 is no port of a connection
		}
	}
	return func(f service.Frontend) bool {
		_, isAddr := addrs[f.Addr]
		_, isNodePort := nodePorts[f.Port]
		return isAddr || isNodePort
	}
}

// addOpen adds what was found, without the frontends of others.
func (p *Proxier) addOpen(
	ctx context.Context, ports *openPorts, found map[conntrack.Path]conntrack.Open,
) error {
	paths := make([]conntrack.Path, 0, len(found))
	for path := range found {
		paths = append(paths, path)
	}
	names := make([]string, len(paths))
	for from := 0; from < len(paths); from += openLookups {
		to := min(from+openLookups, len(paths))
		if err := p.ask(ctx, func(r *reconciler) error {
			for i := from; i < to; i++ {
				if e, _, ok := r.builder.Ruleset().Entry(paths[i].Frontend); ok {
					names[i] = e.Port
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for i, path := range paths {
		if n := found[path].Connections; names[i] != "" {
			ports.ports[names[i]] += float64(n)
			ports.endpoints[openEndpoint{names[i], path.Backend}] += n
		}
	}
	return nil
}

// ranks returns the numbers by which status.OrderOpen sorts the ports.
func (o *openPorts) ranks() map[string]float64 {
	if o == nil {
		return nil
	}
	return o.ports
}

// fillOpen fills the open connections in. names are the names of the ports of the rows.
func (o *openPorts) fillOpen(rows []status.Row, names []string) {
	if o == nil {
		return
	}
	for i := range rows {
		rows[i].SetOpen(int(o.ports[names[i]]), func(b service.Backend) int {
			return o.endpoints[openEndpoint{names[i], b}]
		})
	}
}

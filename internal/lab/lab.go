package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
)

// NodeName is the name of the node under test in Node and EndpointSlice objects.
const NodeName = "node-a"

// Options select the layout of a lab. The zero value connects each local pod to the node by a veth
// pair of its own.
type Options struct {
	Bridge bool // local pods are connected through a bridge, cni0, on the node
	// Here makes this process's network namespace the node. It must have no device but its loopback: see
	// Alone.
	Here bool `json:"-"`
}

// Lab is a running cluster of namespaces. Its methods may be called concurrently, except Close.
type Lab struct {
	machines  map[string]*Namespace
	parties   map[string]party
	owners    map[netip.Addr]string
	nodeAddrs map[netip.Addr]bool // every address of the node under test
	requests  atomic.Uint32       // made so far; selects the source port of the next one

	mu      sync.Mutex
	servers map[server]io.Closer
	running sync.WaitGroup
}

// party sends and answers requests.
type party struct {
	ns     *Namespace
	v4, v6 netip.Addr
	bind   bool // requests must name their source address, because the machine has several
}

// addr returns the party's address in the family of peer.
func (p party) addr(peer netip.Addr) netip.Addr {
	if peer.Is4() {
		return p.v4
	}
	return p.v6
}

// New creates a lab. When it returns, everything in the lab is reachable.
func New(opts Options) (*Lab, error) {
	l := &Lab{
		machines: map[string]*Namespace{},
		parties:  map[string]party{},
		owners:   map[netip.Addr]string{},
		servers:  map[server]io.Closer{},
	}
	for _, name := range []string{"lan", "node", "pod-a", "pod-b", "node-b", "client"} {
		create := NewNamespace
		if name == "node" && opts.Here {
			create = unusedNamespace
		}
		ns, err := create()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lay out lab: %s: %w", name, err), l.Close())
		}
		l.machines[name] = ns
	}
	for _, a := range addresses() {
		l.parties[a.name] = party{ns: l.machines[a.machine], v4: a.v4, v6: a.v6, bind: a.bind}
		l.owners[a.v4], l.owners[a.v6] = a.name, a.name
	}
	l.parties["node"] = l.parties["host-pod"]
	if err := l.wire(opts); err != nil {
		return nil, errors.Join(fmt.Errorf("lay out lab: %w", err), l.Close())
	}
	return l, nil
}

// Node returns the namespace of the node under test.
func (l *Lab) Node() *Namespace { return l.machines["node"] }

// Namespace returns the namespace of a party. The package comment has the names.
func (l *Lab) Namespace(party string) *Namespace { return l.parties[party].ns }

// Close stops all servers and closes the namespaces.
func (l *Lab) Close() error {
	var errs []error
	l.mu.Lock()
	for s, stop := range l.servers {
		errs = append(errs, stop.Close())
		delete(l.servers, s)
	}
	l.mu.Unlock()
	l.running.Wait()
	for name, ns := range l.machines {
		errs = append(errs, ns.Close())
		delete(l.machines, name)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close lab: %w", err)
	}
	return nil
}

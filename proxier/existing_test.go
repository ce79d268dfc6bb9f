package proxier

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestExistingConnections takes each case through its steps, with its ports as TCP, UDP and SCTP. Before each
// step connection tracking has a flow to every endpoint of every frontend. After it those are there whose
// endpoints are, and those of UDP and SCTP to endpoints that are gone are not.
func TestExistingConnections(t *testing.T) {
	for _, name := range cases(t, stepsDir) {
		for _, protocol := range service.Protocols() {
			t.Run(name+"/"+protocol.String(), func(t *testing.T) {
				source := filepath.Join(stepsDir, name)
				dir := withProtocol(t, source, protocol)
				w := &flowWorld{n: newNode(t, dir, dir, lab.TestNamespace(t)), steps: &steps{dir: dir}}
				for before := w.next(t); before != nil; {
					flows := w.create(t, before)
					after := w.next(t)
					if after == nil {
						return
					}
					w.check(t, before, after, flows)
					before = after
				}
			})
		}
	}
}

func (f existing) String() string {
	return fmt.Sprintf("to %s, port %d, protocol %d, at %s of %s", f.to.Dst, f.to.Port, f.to.Protocol, f.endpoint,
		f.owner)
}

// withProtocol returns a copy of the case whose ports have the protocol.
func withProtocol(t *testing.T, source string, protocol service.Protocol) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob(filepath.Join(source, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := "protocol: " + strings.ToUpper(protocol.String())
		changed := strings.ReplaceAll(string(text), "protocol: TCP", name)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// flowWorld is a node with the flows of clients in connection tracking.
type flowWorld struct {
	n     *node
	steps *steps
}

// existing is a connection of a client to an endpoint.
type existing struct {
	to       spec.Packet
	endpoint netip.AddrPort
	owner    string     // the Service
	client   netip.Addr // each flow has another: the library does not read ports of SCTP
}

// next programs the next step and returns what the specification says about it, or nil after the last one.
func (w *flowWorld) next(t *testing.T) *spec.Cluster {
	t.Helper()
	if !w.steps.next(t, w.n.Proxier) {
		return nil
	}
	w.n.sync(t)
	c := &spec.Cluster{NodeName: "node-a", HostAddrs: w.n.state.Node().Addrs,
		Config: spec.Config{NodePortAddresses: w.n.config.Kube.NodePortAddresses}}
	for _, o := range w.steps.objects {
		c.Objects = append(c.Objects, o)
	}
	c.Resolve()
	return c
}

// create creates a flow to each endpoint of each frontend.
func (w *flowWorld) create(t *testing.T, c *spec.Cluster) (flows []existing) {
	t.Helper()
	h := w.handle(t)
	defer h.Close()
	if err := h.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		t.Fatal(err)
	}
	client4, client6 := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8:18::1")
	for _, p := range c.Frontends() {
		if p.Src = client4; p.Dst.Is6() {
			p.Src = client6
		}
		p.Interface = "eth0"
		allowed, _ := c.Allowed(p)
		for _, o := range allowed {
			if o.Verdict != spec.Translated {
				continue
			}
			client4, client6 = client4.Next(), client6.Next()
			f := existing{to: p, endpoint: o.Endpoint, owner: c.Facts(p).Owner, client: client4}
			if p.Dst.Is6() {
				f.client = client6
			}
			client := netip.AddrPortFrom(f.client, 20000)
			flow := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 100,
				Forward: tuple(p.Protocol, client, netip.AddrPortFrom(p.Dst, p.Port)),
				Reverse: tuple(p.Protocol, o.Endpoint, client)}
			if p.Dst.Is6() {
				flow.FamilyType = unix.AF_INET6
			}
			err := h.ConntrackCreate(netlink.ConntrackTable, netlink.InetFamily(flow.FamilyType), flow)
			if err != nil {
				t.Fatalf("create the flow %s: %v", f, err)
			}
			flows = append(flows, f)
		}
	}
	return flows
}

func (w *flowWorld) handle(t *testing.T) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(w.n.ns.FD()), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func tuple(protocol uint8, src, dst netip.AddrPort) netlink.IPTuple {
	return netlink.IPTuple{Protocol: protocol, SrcIP: src.Addr().AsSlice(), SrcPort: src.Port(),
		DstIP: dst.Addr().AsSlice(), DstPort: dst.Port()}
}

// check compares the flows that are left with those whose endpoints are. A flow to a frontend that another
// Service has now may stay or go.
func (w *flowWorld) check(t *testing.T, before, after *spec.Cluster, flows []existing) {
	t.Helper()
	h := w.handle(t)
	defer h.Close()
	left := map[string]bool{}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		list, err := h.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			left[f.Forward.SrcIP.String()] = true
		}
	}
	for _, f := range flows {
		stays := left[f.client.String()]
		serves, exists := w.endpoint(f)
		owner := after.Facts(f.to).Owner
		protocol := service.Protocol(f.to.Protocol)
		gone := protocol == service.UDP && !serves || protocol == service.SCTP && !exists
		if !gone && !stays && (owner == "" || owner == f.owner) {
			t.Errorf("step %d: the flow %s is lost, and its endpoint is there", w.steps.n, f)
		}
		if gone && stays {
			t.Errorf("step %d: the flow %s is there, and its endpoint is gone", w.steps.n, f)
		}
	}
}

// endpoint reports whether a slice of the Service has the endpoint, and whether it serves there.
func (w *flowWorld) endpoint(f existing) (serves, exists bool) {
	for _, o := range w.steps.objects {
		slice, ok := o.(*discoveryv1.EndpointSlice)
		if !ok || slice.Namespace+"/"+slice.Labels[discoveryv1.LabelServiceName] != f.owner {
			continue
		}
		hasPort := slices.ContainsFunc(slice.Ports, func(p discoveryv1.EndpointPort) bool {
			return p.Port != nil && uint16(*p.Port) == f.endpoint.Port()
		})
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if len(e.Addresses) == 0 || e.Addresses[0] != f.endpoint.Addr().String() {
				continue
			}
			exists = true
			is := func(b *bool) bool { return b == nil || *b }
			serves = serves || hasPort && (is(e.Conditions.Ready) || is(e.Conditions.Serving))
		}
	}
	return serves, exists
}

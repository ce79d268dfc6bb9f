package proxier

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestStatusOpen holds connections to one of two Services: the status has them by port and by endpoint, and
// sorts by them. A connection that another program has translated is not among them.
func TestStatusOpen(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	serve(t, l, podC, podC6)
	dir.write(t, "endpoints.yaml", registryEndpoints(podA, podC, podA6, podC6))
	dir.write(t, "first.yaml", `
apiVersion: v1
kind: Service
metadata: {name: a-first, namespace: default}
spec:
  clusterIP: 10.96.0.99
  clusterIPs: [10.96.0.99]
  ports: [{port: 80, protocol: TCP}]
`)
	startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	nftIn(t, l.Node(), `table ip other {
	chain prerouting {
		type nat hook prerouting priority -110
		ip daddr 10.96.0.50 tcp dport 80 dnat to 10.244.1.11:8080
	}
}`, "-f", "-")
	defer hold(t, l, "10.96.0.50:80", 2)()
	closeAll := hold(t, l, "10.96.0.10:80", 5)
	closeNode := hold(t, l, "192.0.2.1:30080", 1)
	report := awaitStatus(t, "order=open", func(r *status.Report) bool {
		return r.Order == status.OrderOpen && len(r.Rows) == 3 && r.Rows[0].Open != nil && *r.Rows[0].Open == 6
	})
	first, other := report.Rows[0], report.Rows[1]
	if first.Target != "default/web:80/tcp" || other.Open == nil || *other.Open != 0 {
		t.Errorf("rows %+v, want the one with connections first", report.Rows)
	}
	sum := 0
	for _, e := range first.Endpoints {
		sum += *e.Open
	}
	if sum != 6 {
		t.Errorf("%d connections to the endpoints %+v, want 6", sum, first.Endpoints)
	}
	closeAll()
	closeNode()
	awaitStatus(t, "", func(r *status.Report) bool { return len(r.Rows) == 3 && *r.Rows[1].Open == 0 })
}

// TestFrontendsLike picks what may be a frontend of a Service, and nothing that another program translates.
func TestFrontendsLike(t *testing.T) {
	addr := func(text string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(text)} }
	ours := frontendsLike([]*service.Service{{ClusterIPs: addr("10.96.0.10"), ExternalIPs: addr("203.0.113.1"),
		LoadBalancerIPs: addr("2001:db8::1"), Ports: []service.Port{{Port: 80, NodePort: 30080}, {Port: 81}}}})
	for to, want := range map[string]bool{"10.96.0.10:80": true, "203.0.113.1:81": true, "[2001:db8::1]:80": true,
		"192.0.2.1:30080": true, "192.0.2.1:80": false, "[2001:db8::2]:443": false} {
		at := netip.MustParseAddrPort(to)
		f := service.Frontend{Addr: at.Addr(), Protocol: service.TCP, Port: at.Port()}
		if got := ours(f); got != want {
			t.Errorf("%s: %t, want %t", to, got, want)
		}
	}
}

// TestOpenCount looks while a count takes its time, fails, and is not needed for a while.
func TestOpenCount(t *testing.T) {
	var ports *openPorts
	var failure error
	counts := 0
	o := newOpenCount(func(context.Context) (*openPorts, error) { counts++; return ports, failure })
	ports = newOpenPorts()
	if got := o.get(t.Context()); got != ports || counts != 1 {
		t.Errorf("the first look: %v after %d counts", got, counts)
	}
	if got := o.get(t.Context()); got != ports || counts != 1 {
		t.Errorf("the second look: %v after %d counts, want no other", got, counts)
	}
	o.next = time.Now()
	o.drop()
	if o.ports != nil {
		t.Error("what is old is kept")
	}
	ports, failure = nil, errors.New("no")
	if got := o.get(t.Context()); got != nil || counts != 2 {
		t.Errorf("after an error: %v, %d counts", got, counts)
	}
	waits := make(chan struct{})
	o = newOpenCount(func(context.Context) (*openPorts, error) {
		<-waits
		return newOpenPorts(), nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := o.get(ctx); got != nil {
		t.Errorf("while the first count is under way: %v", got)
	}
	close(waits)
	if got := o.get(t.Context()); got == nil {
		t.Errorf("after it: %v", got)
	}
}

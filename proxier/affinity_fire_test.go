package proxier

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestAffinityUnderFire removes and adds an endpoint of a Service with 200,000 remembered clients, a third of
// them on that endpoint, while clients expire, other Services change and connections are made. Every change
// is programmed, no connection is lost, and the loop ends when it is told to. It logs how long that takes,
// beside the same without remembered clients.
func TestAffinityUnderFire(t *testing.T) {
	const clients = 200_000
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	w.dir.write(t, "web.yaml", strings.Replace(webManifest, "type: NodePort", "type: ClusterIP", 1))
	w.dir.write(t, "web-endpoints.yaml", endpointsManifest("web", podA))
	w.dir.write(t, "other.yaml", strings.NewReplacer("web", "other", "10.96.0.10", "10.96.0.11",
		"NodePort", "ClusterIP").Replace(webManifest))
	w.dir.write(t, "other-endpoints.yaml", endpointsManifest("other", podA))
	w.sync(t)
	f := &fire{stickyWorld: w, conn: testNetlink(t, w.Node())}
	stop := f.start(t)
	load := w.Steady(t.Context(), "client", "tcp", netip.MustParseAddrPort(stickyAddr), 5*ms)
	quiet := f.rounds(t, 10)
	before, first := 0, time.Second
	for ; before < clients/2; first *= 2 { // on a slow machine many expire before the last is added
		f.remember(t, clients, first)
		before = f.remembered(t)
	}
	var fired figures
	begin := time.Now()
	for f.remembered(t) > before/10 {
		fired.add(f.rounds(t, 5))
	}
	expired := time.Since(begin)
	report := load.Stop()
	if report.Lost() > 0 || report.Sent < 20 {
		t.Errorf("%d of %d connections were lost: %v", report.Lost(), report.Sent, report.Err)
	}
	f.remember(t, clients, time.Second)
	ended := stop()
	t.Logf("no clients: %v", quiet)
	t.Logf("%d clients, of which nine in ten expire within %v: %v", before, expired.Round(ms), fired)
	t.Logf("the loop ended %v after it was told to; %d connections, %d lost", ended, report.Sent, report.Lost())
}

// fire is a node whose loop runs.
type fire struct {
	*stickyWorld
	conn *netlink.Conn
	next netip.Addr // the client to remember next
}

// testNetlink opens a connection in a namespace.
func testNetlink(t *testing.T, ns *lab.Namespace) (conn *netlink.Conn) {
	t.Helper()
	if err := ns.Do(func() (err error) { conn, err = netlink.Dial(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// start runs the loop, and a Service other that changes every 37 ms. stop ends the loop while Services
// change, and returns how long that takes.
func (f *fire) start(t *testing.T) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	looped, changed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looped)
		_ = f.Node().Do(func() error { f.node.reconciler.run(ctx); return nil })
	}()
	f.node.Synced()
	versions := [][]runtime.Object{
		parse(t, endpointsManifest("other", podC)), parse(t, endpointsManifest("other", podA, podC))}
	end := make(chan struct{})
	go func() {
		defer close(changed)
		ticker := time.NewTicker(37 * ms)
		defer ticker.Stop()
		for i := 0; ; i++ {
			f.apply(versions[i%2])
			select {
			case <-ticker.C:
			case <-end:
				return
			}
		}
	}()
	stopped := false
	stop = func() time.Duration {
		if stopped {
			return 0
		}
		stopped = true
		begin := time.Now()
		cancel()
		<-looped
		took := time.Since(begin)
		close(end)
		<-changed
		return took
	}
	t.Cleanup(func() { stop() })
	return stop
}

// parse returns the objects of a manifest.
func parse(t *testing.T, text string) []runtime.Object {
	t.Helper()
	d := &daemon{dir: t.TempDir()}
	d.write(t, "objects.yaml", text)
	objects, problems, err := source.NewDir(d.dir).Load()
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	return objects
}

func (f *fire) apply(objects []runtime.Object) {
	for _, obj := range objects {
		f.node.Apply(obj)
	}
}

// remember lets the kernel remember so many more clients of the Service, divided among its endpoints. The
// first expire after the time first, and the others within four times as much after that.
func (f *fire) remember(t *testing.T, clients int, first time.Duration) {
	t.Helper()
	if !f.next.IsValid() {
		f.next = netip.MustParseAddr("100.64.0.1")
	}
	to := netip.MustParseAddrPort(stickyAddr)
	frontend := service.Frontend{Addr: to.Addr(), Protocol: service.TCP, Port: to.Port()}
	const parts = 30
	for i := range parts {
		pod := netip.MustParseAddr([]string{podA, podB, podC}[i%3]).As4()
		r := remembered{binary.BigEndian.Uint32(pod[:]), first + 4*first*time.Duration(i)/parts}
		f.next = addClients(t, f.conn, frontend, f.next, clients/parts, r)
	}
}

// remembered returns how many clients the kernel remembers.
func (f *fire) remembered(t *testing.T) (n int) {
	t.Helper()
	f.dump(t, nftables.Affinity, func([]byte) { n++ })
	return n
}

func (f *fire) dump(t *testing.T, set nftables.SetKind, each func(element []byte)) {
	t.Helper()
	err := f.conn.DumpElements(unix.NFPROTO_IPV4, nftables.TableName, set.String(), func(e []byte) error {
		each(e)
		return nil
	})
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) { // transactions go on meanwhile
		t.Fatal(err)
	}
}

// figures are how long changes took.
type figures struct{ removed, added, other []time.Duration }

func (f *figures) add(o figures) {
	f.removed, f.added = append(f.removed, o.removed...), append(f.added, o.added...)
	f.other = append(f.other, o.other...)
}

func (f figures) String() string {
	var parts []string
	for _, s := range []struct {
		what string
		took []time.Duration
	}{{"endpoint removed", f.removed}, {"endpoint added", f.added}, {"another Service", f.other}} {
		slices.Sort(s.took)
		parts = append(parts, fmt.Sprintf("%s: p50 %v, max %v", s.what,
			s.took[len(s.took)/2].Round(10*time.Microsecond), s.took[len(s.took)-1].Round(10*time.Microsecond)))
	}
	return strings.Join(parts, "; ")
}

// rounds removes the endpoint and adds it again, so often.
func (f *fire) rounds(t *testing.T, n int) (r figures) {
	t.Helper()
	sticky := func(pods ...string) []runtime.Object { // the first slice, of IPv4: a second one is a second sync
		text, _, _ := strings.Cut(stickyEndpoints("sticky", pods...), "---")
		return parse(t, text)
	}
	all, two := sticky(podA, podB, podC), sticky(podA, podC)
	web := [][]runtime.Object{parse(t, endpointsManifest("web", podD)), parse(t, endpointsManifest("web", podA))}
	for range n {
		r.removed = append(r.removed, f.takes(t, two, nftables.StickyBackends, podB, false))
		r.other = append(r.other, f.takes(t, web[0], nftables.Endpoints, podD, true))
		r.added = append(r.added, f.takes(t, all, nftables.StickyBackends, podB, true))
		r.other = append(r.other, f.takes(t, web[1], nftables.Endpoints, podD, false))
	}
	return r
}

// takes returns how long it takes from a change until a map of the kernel has the pod, or no longer has it.
func (f *fire) takes(t *testing.T, change []runtime.Object, set nftables.SetKind, pod string,
	want bool) time.Duration {
	t.Helper()
	addr := netip.MustParseAddr(pod).AsSlice()
	time.Sleep(2 * minPause) // otherwise this would measure the pause of the loop after the last change
	begin := time.Now()
	f.apply(change)
	for {
		found := false
		f.dump(t, set, func(element []byte) {
			for typ, v := range netlink.Attrs(element) {
				found = found || typ == unix.NFTA_SET_ELEM_DATA && bytes.Contains(v, addr)
			}
		})
		took := time.Since(begin)
		if found == want {
			return took
		}
		if took > 20*time.Second {
			t.Fatalf("%s is in map %s after %v: %v, want %v", pod, set, took, found, want)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

package proxier

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// applyServices applies n Services with 3 endpoints each.
func applyServices(p *Proxier, n int) {
	port, protocol, yes := int32(8080), corev1.ProtocolTCP, true
	for i := range n {
		meta := metav1.ObjectMeta{Namespace: "many", Name: fmt.Sprintf("s%d", i)}
		addr := netip.AddrFrom4([4]byte{10, byte(96 + i>>16), byte(i >> 8), byte(i)})
		p.Apply(&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			ClusterIP: addr.String(), ClusterIPs: []string{addr.String()},
			Ports: []corev1.ServicePort{{Protocol: protocol, Port: 80}},
		}})
		meta.Labels = map[string]string{discoveryv1.LabelServiceName: meta.Name}
		slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
			Ports: []discoveryv1.EndpointPort{{Port: &port, Protocol: &protocol}}}
		for j := range 3 {
			pod := netip.AddrFrom4([4]byte{10, byte(128 + j), byte(i >> 8), byte(i)})
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{pod.String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes}})
		}
		p.Apply(slice)
	}
}

// newBusyNode returns a node with n Services, in a namespace where another program commits so many
// transactions a second.
func newBusyNode(tb testing.TB, n, perSecond int, o kernel.Options) *node {
	tb.Helper()
	ns := lab.TestNamespace(tb)
	node := newNode(tb, "", tb.TempDir(), ns)
	node.conn = dial(tb, ns, o)
	node.reconciler.tables = node.conn
	node.reconciler.deleteFlows = noFlows
	applyServices(node.Proxier, n)
	if perSecond > 0 {
		startCommits(tb, ns, perSecond)
	}
	return node
}

// TestForeignTransactions programs Services while another program commits without a pause: the first sync, a
// change and a comparison on suspicion each succeed at once, and none takes the other program's changes for
// changes of our tables.
func TestForeignTransactions(t *testing.T) {
	for _, o := range []kernel.Options{{}, {Own: true}} {
		n := newBusyNode(t, 2_000, 10_000, o)
		r := n.reconciler
		n.sync(t)
		applyServices(n.Proxier, 2_001)
		r.due = none
		n.sync(t)
		if want := r.builder.Ruleset().Counts(); want == nil || r.builder.Ruleset().Services() != 2_001 {
			t.Errorf("%d Services, want 2001", r.builder.Ruleset().Services())
		}
		for range 3 {
			if err := n.ns.Do(func() error { r.checkDrift(); return nil }); err != nil {
				t.Fatal(err)
			}
			if r.due == drift {
				t.Error("the changes of the other program count as drift")
			}
			r.require(suspicion)
			n.sync(t)
		}
		checkRepaired(t, r, 0)
		if d := n.diff(t); !d.Empty() {
			t.Errorf("options %+v: the kernel lacks %d elements and has %d too many", o, len(d.Add), len(d.Delete))
		}
	}
}

// BenchmarkForeignTransactions measures the first sync, a change and the look for drift while another program
// commits so many transactions a second in a table of its own. Compare with 0 a second.
func BenchmarkForeignTransactions(b *testing.B) {
	for _, services := range []int{10_000, 20_000} {
		for _, perSecond := range []int{0, 10, 2_000} {
			name := fmt.Sprintf("services=%d/perSecond=%d", services, perSecond)
			b.Run(name+"/start", func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					n := newBusyNode(b, services, perSecond, kernel.Options{})
					b.StartTimer()
					n.sync(b)
				}
			})
			b.Run(name, func(b *testing.B) {
				n := newBusyNode(b, services, perSecond, kernel.Options{})
				n.sync(b)
				b.Run("change", func(b *testing.B) {
					for i := 0; b.Loop(); i++ {
						n.Apply(benchSlice(0, 3, i%2))
						n.sync(b)
					}
				})
				b.Run("look", func(b *testing.B) {
					for b.Loop() {
						if _, err := n.conn.CheckDrift(n.reconciler.builder.Ruleset()); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}

// BenchmarkForeignCost measures how much of a core a daemon with 20,000 Services takes while another program
// commits 10 transactions a second. The other program is a part of the figure.
func BenchmarkForeignCost(b *testing.B) {
	for _, o := range []kernel.Options{{}, {Own: true}} {
		b.Run(fmt.Sprintf("own=%t", o.Own), func(b *testing.B) {
			n := newBusyNode(b, 20_000, 10, o)
			n.sync(b)
			b.ResetTimer()
			before, began := cpuTime(b), time.Now()
			for b.Loop() {
				if err := n.ns.Do(func() error { n.reconciler.checkDrift(); return nil }); err != nil {
					b.Fatal(err)
				}
				if n.reconciler.due != none {
					n.sync(b)
				}
				time.Sleep(checkPeriod)
			}
			b.ReportMetric(100*(cpuTime(b)-before).Seconds()/time.Since(began).Seconds(), "%core")
		})
	}
}

// cpuTime returns the CPU time of this process.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

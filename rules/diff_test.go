package rules_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// timed returns the Service web under another name and address, with a timeout of session affinity and n
// endpoints.
func timed(name, addr string, timeout time.Duration, n int) *service.Service {
	svc := web()
	svc.Name.Name, svc.ClusterIPs, svc.AffinityTimeout = name, addrs(addr), timeout
	svc.Ports[0].Endpoints = nil
	for i := range n {
		svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints, ready("n2", fmt.Sprintf("10.244.2.%d:80", 1+i))...)
	}
	return svc
}

// shapesOf returns the elements of shapes in a table of the kernel.
func shapesOf(k *fakekernel.Kernel, f service.Family) []string {
	var out []string
	for _, e := range slices.SortedFunc(maps.Values(k.Tables()[f].Elements),
		func(a, b nftables.Element) int { return a.Compare(b.ElementID) }) {
		if e.Set.Kind == nftables.Shapes {
			out = append(out, e.String())
		}
	}
	return out
}

// start makes a Ruleset of the Services, as a process that starts does, and programs the difference, which it
// returns.
func start(t *testing.T, k *fakekernel.Kernel, services ...*service.Service) (*rules.Ruleset, *rules.Delta) {
	t.Helper()
	slots, r := programmed(k, nil).Slots(), rules.NewRuleset(testConfig())
	for _, svc := range services {
		r.Put(compileAt(svc, slots))
	}
	d := rules.Diff(r, programmed(k, r))
	apply(t, k, d)
	deleteStale(t, k, d)
	r.Done()
	return r, d
}

// change puts Services and programs what changes.
func change(t *testing.T, k *fakekernel.Kernel, r *rules.Ruleset, services ...*service.Service) *rules.Delta {
	t.Helper()
	for _, svc := range services {
		putSvc(r, svc)
	}
	d := r.Changes()
	apply(t, k, d)
	deleteStale(t, k, d)
	r.Done()
	return d
}

// A shape with session affinity gets the next number in its table. It keeps the number, also in the next
// process, which knows nothing but the kernel.
func TestStickyNumbers(t *testing.T) {
	k := fakekernel.New()
	b := timed("b", "10.96.0.2", time.Hour, 2)
	r, _ := start(t, k, b)
	a, six := timed("a", "10.96.0.1", time.Hour, 1), timed("six", "fd00:96::3", time.Minute, 0)
	six.Ports[0].Endpoints = ready("n2", "[fd00::1]:80")
	change(t, k, r, a, six)
	c := timed("c", "10.96.0.3", time.Second, 2)
	change(t, k, r, c)
	want := []string{"4a00:1 : goto sticky-cluster-2-3600", "4a00:2 : goto sticky-cluster-1-3600",
		"4a00:3 : goto sticky-cluster-2-1"}
	want6 := []string{"4a00:1 : goto sticky-cluster-1-60"}
	check := func(what string) {
		t.Helper()
		checkLines(t, what+": shapes", want, shapesOf(k, service.IPv4))
		checkLines(t, what+": IPv6 shapes", want6, shapesOf(k, service.IPv6))
	}
	check("as they came")
	next, d := start(t, k, a, b, c, six)
	if !d.Empty() {
		t.Errorf("the next process writes:\n%s", deltaText(t, d))
	}
	change(t, k, next, timed("d", "10.96.0.4", time.Hour, 2), timed("e", "10.96.0.5", 2*time.Hour, 2))
	want = append(want, "4a00:4 : goto sticky-cluster-2-7200")
	check("two more Services, one with a new shape")

	_, d = start(t, k, b, c) // a, d, e and six go; c becomes older than a number that is free again
	want, want6 = []string{want[0], want[2]}, nil
	check("a process with fewer Services")
	if len(d.StaleChains) != 3 {
		t.Errorf("stale chains %v, want 3", d.StaleChains)
	}
	next, _ = start(t, k, c, b)
	change(t, k, next, timed("f", "10.96.0.6", time.Minute, 3))
	want = []string{want[0], "4a00:2 : goto sticky-cluster-3-60", want[1]}
	check("a free number is given again")
}

// foreignShape are elements of the map shapes instead of that of a shape with session affinity, whose chain
// is stickyChain.
type foreignShape struct {
	name    string
	foreign map[nftables.Class]string
	want    nftables.Class // of the shape, once it is programmed again
}

const stickyChain = "sticky-cluster-2-3600"

func foreignShapes() []foreignShape {
	const chain = stickyChain
	first, end := rules.StickyRange()
	return []foreignShape{
		{"none", nil, first},
		{"only the first number of the range", map[nftables.Class]string{first: chain}, first},
		{"only the last number of the range", map[nftables.Class]string{end - 1: chain}, end - 1},
		{"behind the range", map[nftables.Class]string{end: chain}, first},
		{"before the range", map[nftables.Class]string{first - 1: chain}, first},
		{"the number of another kind", map[nftables.Class]string{nftables.NewClass(0x4c00, 9): chain}, first},
		{"0", map[nftables.Class]string{0: chain}, first},
		{"two numbers", map[nftables.Class]string{first + 7: chain, first + 5: chain}, first + 5},
		{"its number leads elsewhere", map[nftables.Class]string{first: "no-endpoints"}, first},
		{"its number leads to a chain that it needs", map[nftables.Class]string{first: "services"}, first},
		{"another shape's number leads to it", map[nftables.Class]string{
			nftables.NewClass(0x4f00, 0): chain, first + 1: chain}, first + 1},
		{"numbers that shapes get later", map[nftables.Class]string{first: chain, first + 1: "cluster-1",
			nftables.NewClass(0x4c00, 9): "no-such-port"}, first},
		{"everything leads to it", map[nftables.Class]string{first: chain, first + 1: chain,
			nftables.NewClass(0x4f00, 0): chain, nftables.NewClass(0x4c00, 1): chain}, first},
	}
}

// Elements of shapes that nftproxy never writes do no harm, and a Delta with other changes removes them.
func TestForeignShapes(t *testing.T) {
	for _, tt := range foreignShapes() {
		t.Run(tt.name, func(t *testing.T) {
			services := []*service.Service{timed("none", "10.96.0.1", time.Hour, 0),
				timed("sticky", "10.96.0.2", time.Hour, 2), timed("plain", "10.96.0.3", 0, 1)}
			k := fakekernel.New()
			start(t, k, services...)
			k.Edit(func(ts fakekernel.Tables) {
				elements := ts[service.IPv4].Elements
				first, _ := rules.StickyRange()
				own := nftables.ShapeElement(service.IPv4, first, stickyChain)
				if tt.foreign != nil {
					delete(elements, own.ElementID)
				}
				for n, chain := range tt.foreign {
					e := nftables.ShapeElement(service.IPv4, n, chain)
					elements[e.ElementID] = e
				}
			})
			next, _ := start(t, k, services...)
			change(t, k, next, timed("more", "10.96.0.4", time.Hour, 3), timed("and", "10.96.0.5", 0, 9))
			want := append([]*service.Service{}, services...)
			want = append(want, timed("more", "10.96.0.4", time.Hour, 3), timed("and", "10.96.0.5", 0, 9))
			last, d := start(t, k, want...)
			if !d.Empty() {
				t.Errorf("the process after the next writes:\n%s", deltaText(t, d))
			}
			if diff := fakekernel.Difference(tablesOf(last), withoutSpare(k.Tables())); diff != "" {
				t.Errorf("tables (-want +got):\n%s", diff)
			}
			line := tt.want.String() + " : goto " + stickyChain
			used := withoutSpare(k.Tables())
			if shapes := shapesOf(kernelWith(used), service.IPv4); !slices.Contains(shapes, line) {
				t.Errorf("used shapes %q, want %q", shapes, line)
			}
		})
	}
}

// A table that is replaced has new numbers: nothing is adopted from it.
func TestBrokenTableHasNoNumbers(t *testing.T) {
	k := fakekernel.New()
	a, b := timed("a", "10.96.0.1", time.Hour, 1), timed("b", "10.96.0.2", time.Hour, 2)
	r, _ := start(t, k, b)
	change(t, k, r, a)
	k.Edit(func(ts fakekernel.Tables) {
		s := ts[service.IPv4].Sets["hairpin"]
		s.ID.Kind = nftables.ClusterIPs
		ts[service.IPv4].Sets["hairpin"] = s
	})
	next, d := start(t, k, a, b)
	if len(d.Reset) != 1 {
		t.Fatalf("replaced tables %v, want one", d.Reset)
	}
	checkLines(t, "shapes", []string{"4a00:1 : goto sticky-cluster-1-3600",
		"4a00:2 : goto sticky-cluster-2-3600"}, shapesOf(k, service.IPv4))
	if diff := fakekernel.Difference(tablesOf(next), k.Tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

// leftover returns a kernel in which a process has left shapes that the Service web, as it is now, does not
// have.
func leftover(t *testing.T) *fakekernel.Kernel {
	t.Helper()
	k := fakekernel.New()
	r, _ := start(t, k, web())
	svc := local(web())
	change(t, k, r, svc)
	svc.AffinityTimeout = time.Hour
	change(t, k, r, svc)
	change(t, k, r, web())
	return k
}

// local gives the Service an external IP with policy Local.
func local(svc *service.Service) *service.Service {
	svc.ExternalIPs, svc.ExternalLocal = addrs("198.51.100.1"), true
	return svc
}

// Shapes that no frontend has any more are no reason to write.
func TestLeftoverShapesStay(t *testing.T) {
	k := leftover(t)
	checkLines(t, "shapes", []string{"4a00:1 : goto sticky-cluster-2-3600",
		"4a00:2 : goto sticky-local-1-of-2-3600", "4c00:2 : goto cluster-2", "5001:2 : goto local-1-of-2",
	}, shapesOf(k, service.IPv4))
	r, d := start(t, k, web())
	if !d.Empty() {
		t.Fatalf("shapes that nobody needs are a reason to write:\n%s", deltaText(t, d))
	}
	k.Edit(func(fakekernel.Tables) {})
	if drift, err := k.CheckDrift(r); drift != kernel.Unknown || err != nil {
		t.Errorf("shapes that nobody needs: drift %v, error %v; want %v", drift, err, kernel.Unknown)
	}
}

// Together with another change they go: their elements in the transaction, and then their chains.
func TestLeftoverShapesGo(t *testing.T) {
	k := leftover(t)
	svc := web()
	svc.Ports[0].Endpoints[1].Backend = backendList("10.244.2.9:8080")[0]
	const key = "10.96.0.10 . tcp . 80 . 1 : "
	_, d := start(t, k, svc)
	checkLines(t, "delete", []string{"ip shapes { 4a00:1 : goto sticky-cluster-2-3600 }",
		"ip shapes { 4a00:2 : goto sticky-local-1-of-2-3600 }", "ip shapes { 5001:2 : goto local-1-of-2 }",
		"ip endpoints { " + key + "10.244.2.1 . 8080 }"}, elementTexts(d.Delete))
	checkLines(t, "add", []string{"ip endpoints { " + key + "10.244.2.9 . 8080 }"}, elementTexts(d.Add))
	var stale []string
	for _, c := range d.StaleChains {
		stale = append(stale, c.Name)
	}
	checkLines(t, "stale chains", []string{"local-1-of-2", "sticky-any-2-3600", "sticky-cluster-2-3600",
		"sticky-local-1-of-2-3600"}, stale)
	checkLines(t, "shapes", []string{"4c00:2 : goto cluster-2"}, shapesOf(k, service.IPv4))
	for name := range k.Tables()[service.IPv4].Chains {
		if rules.IsShapeChain(name) && name != "cluster-2" {
			t.Errorf("chain %s is left", name)
		}
	}
}

// A shape that a process before has left is there when a frontend needs it again: the kernel refuses an
// element that exists.
func TestLeftoverShapesReturn(t *testing.T) {
	k := leftover(t)
	r, _ := start(t, k, web())
	svc := local(web())
	d := change(t, k, r, svc)
	if shapes := slices.DeleteFunc(elementTexts(append(d.Delete, d.Add...)), func(e string) bool {
		return !strings.HasPrefix(e, "ip shapes")
	}); len(shapes) > 0 {
		t.Errorf("the kernel has the shape, but %v change", shapes)
	}
	svc.AffinityTimeout = time.Minute // whose shapes get numbers that others have in the kernel
	change(t, k, r, svc)
	svc.AffinityTimeout = time.Hour
	change(t, k, r, svc)
	last, d := start(t, k, svc)
	if !d.Empty() {
		t.Errorf("the next process writes:\n%s", deltaText(t, d))
	}
	if diff := fakekernel.Difference(tablesOf(last), withoutSpare(k.Tables())); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

// A foreign chain goes, also when the only way to it is a number that no frontend has.
func TestForeignChainWithNumber(t *testing.T) {
	k := fakekernel.New()
	start(t, k, web())
	k.Edit(func(ts fakekernel.Tables) {
		t := ts[service.IPv4]
		t.Chains["foreign"] = nftables.Chain{Family: service.IPv4, Name: "foreign"}
		e := nftables.ShapeElement(service.IPv4, 7, "foreign")
		t.Elements[e.ElementID] = e
	})
	r, _ := start(t, k, web()) // deletes the chain, which must not be in use
	if diff := fakekernel.Difference(tablesOf(r), k.Tables()); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

// Many shapes that no frontend has any more are a reason to write: they would grow without end.
func TestManyUnusedShapesGo(t *testing.T) {
	k := fakekernel.New()
	r, _ := start(t, k, web())
	for timeout := range rules.MaxUnused + 1 {
		svc := web()
		svc.AffinityTimeout = time.Duration(timeout+1) * time.Second
		change(t, k, r, svc)
	}
	change(t, k, r, web())
	if r.Unused() <= rules.MaxUnused {
		t.Fatalf("%d shapes are unused, want more than %d", r.Unused(), rules.MaxUnused)
	}
	r, d := start(t, k, web())
	if n := len(shapesOf(k, service.IPv4)); n != 1 || r.Unused() != 0 {
		t.Errorf("%d shapes are left, %d unused, want 1 and none", n, r.Unused())
	}
	if chains, elements := d.Repairs(); d.Size() == 0 || chains+elements != 0 {
		t.Errorf("%d of %d changes count as repairs, want none: nobody else wrote", chains+elements, d.Size())
	}
}

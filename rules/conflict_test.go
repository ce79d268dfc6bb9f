package rules_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// shared is the frontend that the Services of these tests claim.
func shared() service.Frontend {
	return service.Frontend{Addr: web().ClusterIPs[0], Protocol: service.TCP, Port: 80}
}

// owner returns the Service that has the shared frontend, and the backend of this frontend.
func owner(r *rules.Ruleset) string {
	backends := r.Slots(shared()).Backends
	if len(backends) == 0 {
		return ""
	}
	return r.Owners()[shared()].Name + " " + backends[0].String()
}

func TestConflictOlderWins(t *testing.T) {
	services := []*service.Service{named("c", 9, ep1), named("b", 5, ep2), named("a", 5, ep3),
		named("d", 0, ep4)}
	byRank := []string{"c " + ep1, "a " + ep3, "b " + ep2, "d " + ep4}
	for _, order := range permutations(len(services)) {
		r := rules.NewRuleset(testConfig())
		for _, i := range order {
			putSvc(r, services[i])
		}
		got := []string{owner(r)}
		for _, name := range []string{"c", "a", "b"} { // each winner leaves, the next takes over
			r.Remove(service.Name{Namespace: "default", Name: name})
			got = append(got, owner(r))
		}
		if diff := cmp.Diff(byRank, got); diff != "" {
			t.Fatalf("order %v: owners as each leaves (-want +got):\n%s", order, diff)
		}
		r.Remove(service.Name{Namespace: "default", Name: "d"})
		if owner(r) != "" || r.Len() != 0 || r.Conflicts() != 0 {
			t.Fatalf("order %v: the frontend is left without a Service: %s", order, owner(r))
		}
	}
}

// TestConflictClusterIPWins shows that a Service has its ClusterIP, however old the others are that claim the
// address as an external IP.
func TestConflictClusterIPWins(t *testing.T) {
	external := func(name string, age int, endpoint, clusterIP string) *service.Service {
		svc := named(name, age, endpoint)
		svc.ExternalIPs, svc.ClusterIPs = svc.ClusterIPs, addrs(clusterIP)
		return svc
	}
	services := []*service.Service{external("a", 9, ep1, "10.96.0.77"),
		external("b", 5, ep2, "10.96.0.78"), named("own", 0, ep3)}
	for _, order := range permutations(len(services)) {
		r := rules.NewRuleset(testConfig())
		var conflicts []rules.Conflict
		for _, i := range order {
			conflicts = putSvc(r, services[i])
		}
		if got := owner(r); got != "own "+ep3 {
			t.Fatalf("order %v: owner is %s", order, got)
		}
		if last := services[order[len(order)-1]].Name; last.Name == "a" {
			want := []rules.Conflict{{shared(), services[2].Name, last, rules.KindClusterIP, rules.KindExternalIP}}
			if diff := cmp.Diff(want, conflicts[:1], addrComparer()); diff != "" {
				t.Errorf("order %v: conflicts (-want +got):\n%s", order, diff)
			}
		}
		r.Remove(services[2].Name)
		if got := owner(r); got != "a "+ep1 {
			t.Fatalf("order %v: the owner after it left is %s", order, got)
		}
	}
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for i := range n {
			out = append(out, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return out
}

func TestConflictLosers(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	old, middle, young := named("old", 9, ep1), named("middle", 5, ep2), named("young", 1, ep3)
	id := func(s *service.Service) service.Name { return s.Name }
	steps := []struct {
		what  string
		do    func() []rules.Conflict
		want  []rules.Conflict
		owner string
	}{
		{"the first claims", func() []rules.Conflict { return putSvc(r, middle) }, nil, "middle " + ep2},
		{"a younger one loses", func() []rules.Conflict { return putSvc(r, young) },
			[]rules.Conflict{{shared(), id(middle), id(young), 0, 0}}, "middle " + ep2},
		{"an older one wins", func() []rules.Conflict { return putSvc(r, old) },
			[]rules.Conflict{{shared(), id(old), id(middle), 0, 0}}, "old " + ep1},
		{"the loser is updated", func() []rules.Conflict { return putSvc(r, named("young", 1, ep4)) },
			[]rules.Conflict{{shared(), id(old), id(young), 0, 0}}, "old " + ep1},
		{"the loser no longer claims", func() []rules.Conflict {
			middle.ClusterIPs = nil
			return putSvc(r, middle)
		}, nil, "old " + ep1},
		{"the winner no longer claims", func() []rules.Conflict {
			old.Ports = nil
			return putSvc(r, old)
		}, nil, "young " + ep4},
		{"the winner claims again", func() []rules.Conflict { return putSvc(r, named("old", 9, ep1)) },
			[]rules.Conflict{{shared(), id(old), id(young), 0, 0}}, "old " + ep1},
		{"the loser goes", func() []rules.Conflict { r.Remove(id(young)); return nil }, nil, "old " + ep1},
		{"a Service is created again, younger", func() []rules.Conflict {
			putSvc(r, named("middle", 5, ep2))
			return putSvc(r, named("old", 0, ep1))
		}, []rules.Conflict{{shared(), id(middle), id(old), 0, 0}}, "middle " + ep2},
	}
	for _, s := range steps {
		if diff := cmp.Diff(s.want, s.do(), addrComparer()); diff != "" {
			t.Errorf("%s: conflicts (-want +got):\n%s", s.what, diff)
		}
		if got := owner(r); got != s.owner {
			t.Errorf("%s: owner is %q, want %q", s.what, got, s.owner)
		}
	}
}

// When the winner leaves, the Delta leads straight to the next one.
func TestConflictPromotionDelta(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	putSvc(r, named("old", 9, ep1))
	putSvc(r, named("young", 1, ep2))
	r.Done()
	r.Remove(service.Name{Namespace: "default", Name: "old"})
	checkLines(t, "promotion", []string{
		`- ip services { 10.96.0.10 . tcp . 80 comment "default/old:http" : 4c00:1 }`,
		"- ip endpoints { 10.96.0.10 . tcp . 80 . 0 : 10.1.0.1 . 80 }",
		`+ ip services { 10.96.0.10 . tcp . 80 comment "default/young:http" : 4c00:1 }`,
		"+ ip endpoints { 10.96.0.10 . tcp . 80 . 0 : 10.1.0.2 . 80 }",
	}, changesText(r))
}

// A younger Service that has the frontend for a moment leaves nothing behind.
func TestConflictUpdateOfWinner(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	putSvc(r, named("old", 9, ep1))
	putSvc(r, named("young", 1, ep2))
	r.Done()
	putSvc(r, named("old", 9, ep1)) // gives way for a moment inside Put
	checkLines(t, "the winner is put again", nil, changesText(r))
}

// TestConflictNow asks who has the frontend while Services come and go.
func TestConflictNow(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	old, middle, young := named("old", 9, ep1), named("middle", 5, ep2), named("young", 1, ep3)
	for _, step := range []struct {
		what string
		do   func()
		want []string // for old, middle and young
	}{
		{"one has it", func() { putSvc(r, young) }, []string{"", "", ""}},
		{"an older one takes it", func() { putSvc(r, middle) }, []string{"", "", "middle"}},
		{"the oldest takes it", func() { putSvc(r, old) }, []string{"", "old", "old"}},
		{"a loser leaves", func() { r.Remove(young.Name) }, []string{"", "old", ""}},
		{"it comes back, and the winner leaves", func() { putSvc(r, young); r.Remove(old.Name) },
			[]string{"", "", "middle"}},
	} {
		step.do()
		var got []string
		for _, svc := range []*service.Service{old, middle, young} {
			winner := ""
			for _, c := range r.Losers(shared()) {
				if c.Loser == svc.Name {
					winner = c.Winner.Name
				}
			}
			got = append(got, winner)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s: winners (-want +got):\n%s", step.what, diff)
		}
	}
}

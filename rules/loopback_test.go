package rules_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// nodePort returns the Service web with a nodePort.
func nodePort(name string, age int) *service.Service {
	svc := web()
	svc.Name.Name, svc.Created = name, time.Unix(int64(1000-age), 0)
	svc.Ports[0].NodePort = 30080
	return svc
}

// putLoopback puts the Service as it is on node n1 with both loopback addresses.
func putLoopback(r *rules.Ruleset, svc *service.Service) {
	node := service.Node{Name: "n1", LoopbackAddrs: addrs("127.0.0.1 ::1")}
	r.Put(rules.Compile(svc, node, noSlots, rules.MaxShare))
}

// loopbackTexts returns the loopback frontends and the conflicts in order.
func loopbackTexts(r *rules.Ruleset) []string {
	loopbacks, conflicts := r.Loopbacks()
	var out []string
	for _, f := range slices.SortedFunc(maps.Keys(loopbacks), service.Frontend.Compare) {
		l := loopbacks[f]
		line := fmt.Sprintf("%s -> %s %v %s", f, l.Service.Name, l.Backends, l.Affinity)
		out = append(out, strings.TrimSuffix(line, " 0s"))
	}
	for _, c := range conflicts {
		out = append(out, fmt.Sprintf("%s: %s before %s", c.Frontend, c.Winner.Name, c.Loser.Name))
	}
	return out
}

func TestLoopbacks(t *testing.T) {
	six := ready("n2", "[fd00::1]:8080 [fd00::2]:8080")
	for _, tt := range []struct {
		name   string
		change func(*service.Service)
		want   []string
	}{
		{"TCP", func(*service.Service) {}, []string{"127.0.0.1 . tcp . 30080 -> web " + both}},
		{"no nodePort", func(s *service.Service) { s.Ports[0].NodePort = 0 }, nil},
		{"UDP", func(s *service.Service) { s.Ports[0].Protocol = service.UDP }, nil},
		{"SCTP", func(s *service.Service) { s.Ports[0].Protocol = service.SCTP }, nil},
		{"policy Local", func(s *service.Service) { s.ExternalLocal = true },
			[]string{"127.0.0.1 . tcp . 30080 -> web " + here}},
		{"internal policy Local", func(s *service.Service) { s.InternalLocal = true },
			[]string{"127.0.0.1 . tcp . 30080 -> web " + both}},
		{"session affinity", func(s *service.Service) { s.AffinityTimeout = time.Minute },
			[]string{"127.0.0.1 . tcp . 30080 -> web " + both + " 1m0s"}},
		{"no endpoints", func(s *service.Service) { s.Ports[0].Endpoints = nil },
			[]string{"127.0.0.1 . tcp . 30080 -> web []"}},
		{"none ready", func(s *service.Service) {
			s.Ports[0].Endpoints = []service.Endpoint{on("n1", "10.244.1.1:8080", "ST"), on("n2", ep2, "T")}
		}, []string{"127.0.0.1 . tcp . 30080 -> web " + here}},
		{"both families", func(s *service.Service) {
			s.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
			s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, six...)
		}, []string{"127.0.0.1 . tcp . 30080 -> web " + both, "::1 . tcp . 30080 -> web " + both6}},
		{"IPv6", func(s *service.Service) {
			s.ClusterIPs = addrs("fd00:96::10")
			s.Ports[0].Endpoints = six
		}, []string{"::1 . tcp . 30080 -> web " + both6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			svc := nodePort("web", 0)
			tt.change(svc)
			r := rules.NewRuleset(testConfig())
			putLoopback(r, svc)
			checkLines(t, "loopback frontends", tt.want, loopbackTexts(r))
			r.Remove(svc.Name)
			checkLines(t, "after the Service is removed", nil, loopbackTexts(r))
		})
	}
}

// TestLoopbackConflict puts Services with the same nodePort in all orders: the oldest has it.
func TestLoopbackConflict(t *testing.T) {
	services := []*service.Service{nodePort("young", 0), nodePort("old", 9), nodePort("middle", 5)}
	for _, order := range permutations(len(services)) {
		r := rules.NewRuleset(testConfig())
		for _, i := range order {
			putLoopback(r, services[i])
		}
		const f = "127.0.0.1 . tcp . 30080"
		checkLines(t, "loopback frontends", []string{
			f + " -> old " + both, f + ": old before middle", f + ": old before young"}, loopbackTexts(r))
		r.Remove(services[1].Name)
		checkLines(t, "without the oldest",
			[]string{f + " -> middle " + both, f + ": middle before young"}, loopbackTexts(r))
	}
}

// TestLoopbackOtherFamily programs IPv4 only.
func TestLoopbackOtherFamily(t *testing.T) {
	config := testConfig()
	config.Families = []service.Family{service.IPv4}
	r := rules.NewRuleset(config)
	svc := nodePort("web", 0)
	svc.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
	putLoopback(r, svc)
	checkLines(t, "loopback frontends", []string{"127.0.0.1 . tcp . 30080 -> web " + both}, loopbackTexts(r))
}

package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

func linesOf(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

// stickyText returns the changes of chains, sets and session affinities, and ends the change.
func stickyText(r *rules.Ruleset) []string {
	d := r.Changes()
	r.Done()
	var out []string
	for _, s := range d.Sets {
		out = append(out, "add set "+s.Name)
	}
	for _, c := range d.Chains {
		out = append(out, "add chain "+c.Name)
	}
	for _, c := range d.StaleChains {
		out = append(out, "stale chain "+c.Name)
	}
	for _, s := range d.StaleSets {
		out = append(out, "stale set "+s.Name)
	}
	for _, s := range d.ExpireClients {
		out = append(out, fmt.Sprintf("expire %s except %v", s.DispatchChain(), s.Backends))
	}
	return out
}

func TestStickyLife(t *testing.T) {
	const id = "cluster/default/web/tcp/80"
	r := rules.NewRuleset(testConfig())
	svc := web()
	svc.AffinityTimeout = time.Hour
	endpoints := func(texts string) func() { return func() { svc.Ports[0].Endpoints = ready("n2", texts) } }
	steps := []struct {
		what   string
		change func()
		want   []string
	}{
		{"appears", func() {}, []string{
			"add set affinity-" + id + "/8080", "add chain affinity", "add chain cluster-2",
			"add chain remember-" + id, "add chain remember-input", "add chain remember-postrouting",
			"add chain sticky-" + id}},
		{"nothing changes", func() {}, nil},
		{"an endpoint comes", endpoints("10.244.1.1:8080 10.244.2.1:8080 10.244.3.1:8080"),
			[]string{"add chain cluster-3"}},
		{"an endpoint goes", endpoints("10.244.1.1:8080 10.244.3.1:8080"),
			[]string{"expire sticky-" + id + " except [10.244.1.1:8080 10.244.3.1:8080]"}},
		{"another target port", endpoints("10.244.1.1:8080 10.244.3.1:9090"),
			[]string{"add set affinity-" + id + "/9090", "add chain remember-" + id, "add chain sticky-" + id,
				"expire sticky-" + id + " except [10.244.1.1:8080 10.244.3.1:9090]"}},
		{"one target port goes", endpoints("10.244.1.1:9090 10.244.3.1:9090"),
			[]string{"add chain remember-" + id, "add chain sticky-" + id,
				"stale set affinity-" + id + "/8080",
				"expire sticky-" + id + " except [10.244.1.1:9090 10.244.3.1:9090]"}},
		{"another timeout", func() { svc.AffinityTimeout = time.Minute },
			[]string{"add chain remember-" + id}},
		{"no endpoint", endpoints(""), []string{
			"add chain no-endpoints", "stale chain remember-" + id, "stale chain sticky-" + id,
			"stale set affinity-" + id + "/9090"}},
		{"endpoints again", endpoints("10.244.1.1:9090 10.244.3.1:9090"),
			[]string{"add set affinity-" + id + "/9090", "add chain remember-" + id,
				"add chain sticky-" + id}},
		{"no longer sticky", func() { svc.AffinityTimeout = 0 },
			[]string{"stale chain remember-" + id, "stale chain sticky-" + id,
				"stale set affinity-" + id + "/9090"}},
	}
	for _, s := range steps {
		s.change()
		putSvc(r, svc)
		checkLines(t, s.what, s.want, stickyText(r))
	}
	svc.AffinityTimeout = time.Hour
	putSvc(r, svc)
	r.Done()
	r.Remove(svc.Name)
	checkLines(t, "removed", []string{
		"stale chain remember-" + id, "stale chain sticky-" + id, "stale set affinity-" + id + "/9090",
	}, stickyText(r))
}

// The rules of a port with session affinity, and the elements of its frontends.
func TestStickyRules(t *testing.T) {
	svc := web()
	svc.AffinityTimeout = 90 * time.Minute
	svc.Ports[0].Protocol = service.UDP
	svc.Ports[0].Endpoints[1].Backend = backendList("10.244.2.1:53")[0]
	r := rules.NewRuleset(testConfig())
	putSvc(r, svc)
	var got []string
	for _, c := range r.Chains(service.IPv4) {
		if strings.Contains(c.Name, "default/web") {
			for _, rule := range c.Rules {
				got = append(got, c.Name[:6]+": "+rule.Text(service.IPv4))
			}
		}
	}
	const id = "cluster/default/web/udp/80"
	checkLines(t, "rules", []string{
		"rememb: udp dport 53 update @affinity-" + id + "/53 { ip saddr timeout 5400s : ip daddr }",
		"rememb: udp dport 8080 update @affinity-" + id + "/8080 { ip saddr timeout 5400s : ip daddr }",
		"sticky: ip saddr != @pod-cidrs meta mark set meta mark | 0x00004000",
		"sticky: meta l4proto udp dnat ip to ip saddr map @affinity-" + id + "/53 : 53",
		"sticky: meta l4proto udp dnat ip to ip saddr map @affinity-" + id + "/8080 : 8080",
		"sticky: ip daddr . meta l4proto . th dport vmap @sticky-services",
	}, got)
	checkLines(t, "elements", []string{
		`+ ip services { 10.96.0.10 . udp . 80 comment "default/web:http" : goto sticky-` + id + " }",
		"+ ip sticky-services { 10.96.0.10 . udp . 80 : goto cluster-2 }",
		"+ ip remember { 10.96.0.10 . udp . 80 : goto remember-" + id + " }",
	}, slices.DeleteFunc(changesText(r), func(line string) bool { return !strings.Contains(line, "goto") }))
}

// Frontends of one kind share the session affinity; other kinds, ports and families have their own.
func TestStickyShared(t *testing.T) {
	svc := web()
	svc.AffinityTimeout, svc.ExternalLocal = time.Hour, true
	svc.ClusterIPs = addrs("10.96.0.10 fd00:96::10")
	svc.ExternalIPs, svc.LoadBalancerIPs = addrs("198.51.100.1 198.51.100.2"), addrs("203.0.113.1")
	svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints, ready("n2", "[fd00::2]:53")...)
	var got []string
	for _, s := range compileAt(svc, noSlots).Stickies {
		got = append(got, fmt.Sprintf("%s %s %v %v", s.Family, s.DispatchChain(), s.Targets, s.Backends))
	}
	checkLines(t, "session affinities", []string{
		"ip sticky-cluster/default/web/tcp/80 [8080] " + both,
		"ip sticky-local/default/web/tcp/80 [8080] " + both,
		"ip6 sticky-cluster/default/web/tcp/80 [53] [[fd00::2]:53]",
	}, got)
}

func TestStickyPorts(t *testing.T) {
	svc := web()
	svc.AffinityTimeout = time.Hour
	svc.Ports[0].Endpoints = nil
	for i := range rules.MaxStickyPorts + 1 {
		svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints,
			ready("n2", fmt.Sprintf("10.244.2.1:%d", 900-i))...)
	}
	c := compileAt(svc, noSlots)
	if diff := cmp.Diff([]uint16{892, 893, 894, 895, 896, 897, 898, 899}, c.Stickies[0].Targets); diff != "" {
		t.Errorf("target ports (-want +got):\n%s", diff)
	}
	if n := c.Entries[0].Shape.N; n != rules.MaxStickyPorts+1 {
		t.Errorf("%d endpoints are used, want all %d", n, rules.MaxStickyPorts+1)
	}
	checkLines(t, "problems", []string{"port default/web:http: " +
		"sessionAffinity: clients are remembered for the first 8 target ports only"}, c.Problems)
}

// After a restart the kernel may have clients of endpoints that went meanwhile, also if other things changed.
// If it has no map, there are no clients to expire.
func TestStickyExpireAfterRestart(t *testing.T) {
	tests := []struct {
		name, before, after string
		expire              bool
	}{
		{"an endpoint went", "10.244.1.1:8080 10.244.2.1:8080", "10.244.1.1:8080", true},
		{"one went, one with another target port came", "10.244.1.1:8080 10.244.2.1:8080",
			"10.244.1.1:8080 10.244.3.1:9090", true},
		{"all target ports are others", "10.244.1.1:8080", "10.244.1.1:9090", false},
		{"not sticky before", "", "10.244.1.1:8080", false},
	}
	for _, tt := range tests {
		before, after := rules.NewRuleset(testConfig()), rules.NewRuleset(testConfig())
		svc := web()
		svc.AffinityTimeout = time.Hour
		svc.Ports[0].Endpoints = ready("n1", tt.before)
		putSvc(before, svc)
		svc.Ports[0].Endpoints = ready("n1", tt.after)
		putSvc(after, svc)
		d := rules.Diff(after, tablesOf(before).Programmed(after))
		want := backendList(tt.after)
		expire := len(d.ExpireClients) == 1 && slices.Equal(d.ExpireClients[0].Backends, want)
		if expire != tt.expire {
			t.Errorf("%s: clients expire of %+v, want any: %t", tt.name, d.ExpireClients, tt.expire)
		}
	}
}

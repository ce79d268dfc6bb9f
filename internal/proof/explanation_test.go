package proof

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
)

// TestDifferencesExplainNothingElse makes up what kube-proxy could do wrong with a packet to each frontend of
// a Service of all kinds: no difference in the list explains it.
func TestDifferencesExplainNothingElse(t *testing.T) {
	dir := filepath.Join(rulesDir, "all-kinds-one-service")
	manifests := filepath.Join(dir, "input.yaml")
	objects := load(t, manifests)
	c := cluster(t, configtest.Case(t, dir, manifests), objects, hosts(objects)[0])
	v4, v6 := netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8::100")
	frontends := c.Frontends()
	if len(frontends) == 0 {
		t.Fatal("there are no frontends")
	}
	for _, f := range frontends {
		p := bytecode.Packet{Src: v4, Dst: f.Dst, Protocol: f.Protocol, Port: f.Port, Interface: "eth0"}
		if f.Dst.Is6() {
			p.Src = v6
		}
		d := pair{packet: p, cluster: c, facts: c.Facts(specPacket(p, 0))}
		d.ours, _ = c.Allowed(specPacket(p, 0))
		for what, theirs := range mistakes(d.ours) {
			d.theirs = theirs
			if d.same() {
				t.Errorf("%+v: %s is no mistake", p, what)
			}
			if row := d.difference(); row != "" {
				t.Errorf("%+v: %s is taken for the difference: %s", p, what, row)
			}
		}
	}
}

// mistakes returns outcomes that differ from the given ones, of which there are several endpoints.
func mistakes(right []spec.Outcome) map[string][]spec.Outcome {
	first := right[0]
	other, seen := first, first
	other.Endpoint = netip.AddrPortFrom(first.Endpoint.Addr(), first.Endpoint.Port()+1)
	seen.Masqueraded = !first.Masqueraded
	return map[string][]spec.Outcome{
		"an endpoint too few":      right[1:],
		"an endpoint too many":     append(slices.Clone(right), other),
		"another endpoint":         append(slices.Clone(right[1:]), other),
		"the other source address": append(slices.Clone(right[1:]), seen),
		"a refusal":                {{Verdict: spec.Refused}},
		"a drop":                   {{Verdict: spec.Dropped}},
		"no translation":           {{}},
	}
}

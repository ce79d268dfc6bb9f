package kernel

import (
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func TestProbeFindsAll(t *testing.T) {
	netns := testNetNS(t)
	c := testDial(t, netns)
	before := mustGeneration(t, c)
	missing, err := Probe(Options{NetNS: netns})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range missing {
		t.Errorf("missing: %v", m)
	}
	for _, family := range probeFamilies() {
		one, err := family.probe(c) // as when not all is there
		if err != nil || len(one) != 0 {
			t.Errorf("missing one by one: %v, %v", one, err)
		}
	}
	if after := mustGeneration(t, c); after != before {
		t.Errorf("the probe moved the generation from %d to %d", before, after)
	}
}

// What a kernel does not do is found missing: the same checks with something no kernel does.
func TestProbeRefused(t *testing.T) {
	c := testConn(t)
	family := probeFamilies()[0]
	for name, feature := range map[string]probeFeature{
		"hook":     {chain: &probeHook{number: 77}},
		"ct key":   {rule: []expr.Any{&expr.Ct{Register: unix.NFT_REG_1, Key: 99}}},
		"no set":   {rule: []expr.Any{&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "none"}}},
		"set flag": {sets: []probeSet{{name: "s", flags: 1 << 30, fields: []uint32{4}}}},
	} {
		var b Batch
		if err := family.build(&b, feature); err != nil {
			t.Fatal(err)
		}
		if refused, err := c.probe(&b); refused == nil || err != nil {
			t.Errorf("%s: refused %v, %v", name, refused, err)
		}
	}
}

func BenchmarkProbe(b *testing.B) {
	netns := testNetNS(b)
	for b.Loop() {
		if _, err := Probe(Options{NetNS: netns}); err != nil {
			b.Fatal(err)
		}
	}
}

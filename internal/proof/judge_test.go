package proof

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
	"github.com/nftproxy/nftproxy/proxier/config"
)

// judge compares outcomes of packets with those that are allowed.
type judge struct {
	t       *testing.T
	bit     uint32 // of the mark for masquerade
	cluster *spec.Cluster
	machine *bytecode.Machine // dynamic sets have anything
	fresh   *bytecode.Machine // dynamic sets are empty

	outcomes []bytecode.Outcome
	wrong    int
}

func newJudge(t *testing.T, c *config.Config, r *bytecode.Ruleset, cluster *spec.Cluster) *judge {
	local := func(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(cluster.HostAddrs, a) }
	return &judge{t: t, bit: 1 << *c.Kube.NFTables.MasqueradeBit, cluster: cluster,
		machine: &bytecode.Machine{Ruleset: r, Local: local},
		fresh:   &bytecode.Machine{Ruleset: r, Local: local, Empty: true}}
}

// maxWrong is how many classes of a case are reported.
const maxWrong = 5

func (j *judge) report(p bytecode.Packet, format string, args ...any) {
	if j.wrong++; j.wrong <= maxWrong {
		j.t.Errorf("%+v: %s", p, fmt.Sprintf(format, args...))
	}
}

func (j *judge) allowed(p bytecode.Packet) ([]spec.Outcome, time.Duration) {
	return j.cluster.Allowed(specPacket(p, j.bit))
}

// specPacket returns the part of a packet that the specification is about. bit is that of the mark for
// masquerade.
func specPacket(p bytecode.Packet, bit uint32) spec.Packet {
	return spec.Packet{Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, Port: p.Port, Interface: p.Interface,
		Taken: p.Socket, Marked: p.Mark&bit != 0}
}

// packet compares the outcomes of a packet.
func (j *judge) packet(p bytecode.Packet) {
	allowed, affinity := j.allowed(p)
	var err error
	if j.outcomes, err = j.machine.Outcomes(p, nil, j.outcomes[:0]); err != nil {
		j.report(p, "%v", err)
		return
	}
	missing := len(allowed)
	for i, o := range j.outcomes {
		same := func(o2 bytecode.Outcome) bool { return specOutcome(o2) == specOutcome(o) }
		if !slices.Contains(allowed, specOutcome(o)) {
			j.report(p, "the rules say %+v, allowed is %+v", o, allowed)
		} else if slices.IndexFunc(j.outcomes, same) == i {
			missing--
		}
		j.left(p, o, affinity)
	}
	if one := j.cluster.Facts(specPacket(p, j.bit)).One; one && len(allowed) > 0 {
		missing -= len(allowed) - 1
	}
	if missing != 0 {
		j.report(p, "the rules say only %+v, allowed is %+v", j.outcomes, allowed)
	}
	if affinity > 0 {
		j.returns(p, affinity)
	}
}

// specOutcome returns the part of an outcome that the specification is about.
func specOutcome(o bytecode.Outcome) spec.Outcome {
	return spec.Outcome{Verdict: spec.Verdict(o.Verdict), Endpoint: o.Endpoint, Masqueraded: o.Masqueraded,
		Reset: o.Reset}
}

// left checks what the rules leave in the packet: of the mark they change only their own bit, which does not
// leave the host, and the priority on which they work neither.
func (j *judge) left(p bytecode.Packet, o bytecode.Outcome, affinity time.Duration) {
	if o.Verdict == bytecode.Refused || o.Verdict == bytecode.Dropped {
		return
	}
	leaves := p.Interface == "" || !j.machine.Local(p.Dst) && !p.Socket
	priority := p.Priority
	if o.Verdict == bytecode.Translated {
		leaves = p.Interface == "" || !j.machine.Local(o.Endpoint.Addr())
		priority = 0
	}
	stays := o.Endpoint == netip.AddrPortFrom(p.Dst, p.Port)
	if (o.Mark^p.Mark)&^j.bit != 0 || leaves && o.Mark&j.bit != 0 {
		j.report(p, "the mark is %#x afterwards", o.Mark)
	}
	if o.Priority != priority && !stays && (leaves || o.Verdict == bytecode.Untouched) {
		j.report(p, "the priority is %#x afterwards", o.Priority)
	}
	if o.Remembered != 0 && o.Remembered != affinity {
		j.report(p, "the client is remembered for %s, want %s", o.Remembered, affinity)
	}
}

// returns checks session affinity: a client is remembered unless the map is full, and comes to the same
// endpoint again, whatever the map had about it before.
func (j *judge) returns(p bytecode.Packet, affinity time.Duration) {
	for _, m := range []*bytecode.Machine{j.fresh, j.machine} {
		type first struct {
			outcome bytecode.Outcome
			memory  bytecode.Memory
		}
		var firsts []first
		err := m.Run(p, nil, func(o bytecode.Outcome, known bytecode.Memory) {
			firsts = append(firsts, first{o, slices.Clone(known)})
		})
		for _, f := range firsts {
			if m == j.fresh && f.outcome.Verdict == bytecode.Translated && f.outcome.Remembered != affinity {
				j.report(p, "the client is remembered for %s, want %s", f.outcome.Remembered, affinity)
			}
			if f.outcome.Remembered == 0 {
				continue
			}
			var again []bytecode.Outcome
			again, err = j.fresh.Outcomes(p, f.memory, nil)
			if err == nil && !slices.Equal(again, []bytecode.Outcome{f.outcome}) {
				j.report(p, "after %+v the client comes to %+v", f.outcome, again)
			}
		}
		if err != nil {
			j.report(p, "%v", err)
		}
	}
}

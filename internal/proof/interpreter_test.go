package proof

import (
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
	"github.com/nftproxy/nftproxy/rules/interpreter"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestInterpretersAgree holds the interpreter of statements, with which `nftproxy explain` answers, against
// the one of the kernel's bytecode. Clients are not remembered yet.
func TestInterpretersAgree(t *testing.T) {
	const few = 250 // the interpreter of statements keeps what it did, which takes its time
	for _, name := range cases(t, rulesDir) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range newProofCases(t, name) {
				tables := c.wanted.Lookup()
				j := newJudge(t, c.config, c.ruleset, c.cluster)
				for _, family := range families() {
					classes := c.classes(t, family)
					classes.marks, classes.priorities = []uint32{0}, []uint32{0} // those of `explain`
					classes.visit(few, func(p bytecode.Packet) { j.statements(tables, p) })
				}
			}
		})
	}
}

// statements compares what both interpreters say about a packet.
func (j *judge) statements(tables interpreter.Tables, p bytecode.Packet) {
	said, err := interpreter.Run(tables, j.fresh.Local, interpreter.Packet{Src: p.Src, Dst: p.Dst,
		Protocol: service.Protocol(p.Protocol), Port: p.Port, Interface: p.Interface, Socket: p.Socket})
	if err != nil {
		j.report(p, "statements: %v", err)
		return
	}
	if j.outcomes, err = j.fresh.Outcomes(p, nil, j.outcomes[:0]); err != nil {
		j.report(p, "bytecode: %v", err)
		return
	}
	var statements, bytes []spec.Outcome
	for _, o := range said {
		statements = append(statements, spec.Outcome{Verdict: spec.Verdict(o.Verdict), Endpoint: o.Endpoint,
			Masqueraded: o.Masqueraded})
	}
	for _, o := range j.outcomes {
		one := specOutcome(o)
		one.Reset = false // which is not said
		bytes = append(bytes, one)
	}
	order := func(a, b spec.Outcome) int { return a.Endpoint.Compare(b.Endpoint) }
	slices.SortFunc(statements, order)
	slices.SortFunc(bytes, order)
	if !slices.Equal(statements, bytes) {
		j.report(p, "the statements say %+v, the bytecode %+v", statements, bytes)
	}
}

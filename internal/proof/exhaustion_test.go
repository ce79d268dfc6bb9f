package proof

import (
	"math"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExhaustion visits the classes of packets of each case: each has exactly the outcomes that the objects
// allow. It does so for a host that has its own addresses only, and for one that has bound those of Services
// as well.
func TestExhaustion(t *testing.T) {
	var visited, total atomic.Int64
	t.Run("cases", func(t *testing.T) {
		for _, name := range cases(t, rulesDir) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for _, c := range newProofCases(t, name) {
					for _, family := range families() {
						classes := c.classes(t, family)
						j := newJudge(t, c.config, c.ruleset, c.cluster)
						visited.Add(int64(classes.visit(limit(), j.packet)))
						total.Add(int64(classes.count()))
					}
				}
			})
		}
	})
	t.Logf("%d of %d classes", visited.Load(), total.Load())
}

func families() []uint8 { return []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} }

// limit is how many classes to visit.
func limit() int {
	if *all {
		return math.MaxInt
	}
	return *sample
}

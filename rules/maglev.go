package rules

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/nftproxy/nftproxy/rules/service"
)

// tableSizes are the sizes of tables of hashes, primes as in IPVS. When the size of a table changes, nearly
// all connections would choose another endpoint. So a table has every other of these sizes, and those between
// only where a Service has no room for more elements. The size depends on nothing that nodes may see
// differently, such as the size before, so that all of them have the same table.
func tableSizes() []int { return []int{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521} }

// wantedSlots returns how many slots a table of n endpoints should have at least. Fifty for each endpoint
// make their parts of the connections differ by at most 1 in 50. And if an endpoint comes or goes, fewer
// other slots change the more there are: with 3 n² slots at most as many as those of the endpoint itself
// (TestMaglevMovesLittle).
func wantedSlots(n int) int { return max(50*n, 3*n*n) }

// minSlots is how many slots an endpoint has at least, where a Service has no room for more.
const minSlots = 5

// tableSize returns the size of a table of n endpoints with the sum of their weights, that has room for at
// most so many slots; 0 if there is no such table. Each endpoint gets a slot at least.
func tableSize(n, weight, room int) int {
	size := 0
	for i, m := range tableSizes() {
		if m > room {
			break
		}
		if m >= max(n*minSlots, weight) {
			size = m
		}
		if wanted := max(wantedSlots(n), weight); i%2 == 0 && m >= wanted {
			break
		}
	}
	return size
}

// maglev returns a table of backends, which are sorted. It is that of Maglev (NSDI 2016, section 3.4): each
// backend prefers the slots in an order of its own, and they take turns in choosing. So the table depends
// only on addresses, ports and weights, and if a backend comes or goes, few slots change between two others.
//
// The order of a backend is offset + i * skip. Both come from the SHA-256 of its address, in 4 or 16 bytes,
// and its port in 2: offset is the first 8 bytes modulo size, skip the next 8 modulo size-1, plus 1; both
// in network byte order. The weight is how often a backend chooses in each round.
func maglev(backends []service.Backend, weights weights, size int) []service.Backend {
	type preference struct{ next, skip uint32 }
	m := uint64(size)
	order := make([]preference, len(backends))
	for i, b := range backends {
		h := sha256.Sum256(binary.BigEndian.AppendUint16(b.Addr().AsSlice(), b.Port()))
		order[i] = preference{uint32(binary.BigEndian.Uint64(h[:]) % m),
			uint32(binary.BigEndian.Uint64(h[8:])%(m-1) + 1)}
	}
	table, taken := make([]service.Backend, size), make([]bool, size)
	for filled, round := 0, turns(backends, weights); ; {
		for _, i := range round {
			p := &order[i]
			for taken[p.next] {
				if p.next += p.skip; p.next >= uint32(size) {
					p.next -= uint32(size)
				}
			}
			table[p.next], taken[p.next] = backends[i], true
			if filled++; filled == size {
				return table
			}
		}
	}
}

package rules

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// stickyRules send a client to the endpoint that it had, and choose one of n for others. Endpoints are named
// by numbers, see assignNumbers. The number that the rules work on is in the packet's priority.
//
//   - A known client whose endpoint the frontend still has goes there, and is remembered for the whole
//     timeout again. If the endpoint is gone, the last lookup of the rule fails, and the next rules choose
//     anew.
//   - The client is forgotten: remembering it does not change a number that the map has.
//   - A slot is chosen, its endpoint's number remembered, and the connection goes there.
//   - When the map is full, the rule before ends at remembering, and the connection goes there all the same.
//
// So an endpoint that is removed gets no connection after the transaction that removes it, and nobody has to
// look for its clients.
func stickyRules(n int, timeout time.Duration, slots, backends nftables.SetKind) []nftables.Rule {
	affinity := nftables.Affinity.String()
	remember := nftables.Remember{Map: affinity, Timeout: timeout}
	send := nftables.DNAT{Key: nftables.BackendKey(), Map: backends.String()}
	return []nftables.Rule{
		{nftables.Recall{Map: affinity}, remember, send},
		{nftables.Forget{Map: affinity}},
		{nftables.SetPriority{Key: nftables.SlotKey(n), Map: slots.String()}, remember, send},
		{send},
	}
}

// assignNumbers returns the numbers of the backends in slots. A backend keeps the number that it has in prev.
// It has the same in all of its slots. A new one gets that of its address, which a person can read: an IPv4
// address itself, of an IPv6 address a hash; or the next one that is free, if another backend of the frontend
// has that.
//
// So a number names the same address and port for as long as they serve, on every node and in every process,
// and another endpoint gets it only if both addresses have the same number. Even then a client that is
// remembered with it reaches an endpoint of the Service that it asks for, as numbers are looked up together
// with the frontend.
func assignNumbers(prev numbered, slots []service.Backend) []nftables.Class {
	known := make(map[service.Backend]nftables.Class, len(prev.numbers))
	for slot, n := range prev.numbers {
		known[prev.backends[slot]] = n
	}
	taken := takenNumbers{0: 1} // nft prints 0 as none
	given := make(map[service.Backend]nftables.Class, len(slots))
	for _, b := range slots {
		if n, ok := known[b]; ok && given[b] == 0 && taken.free(n) {
			given[b] = taken.take(n)
		}
	}
	numbers := make([]nftables.Class, len(slots))
	for slot, b := range slots {
		if given[b] == 0 {
			given[b] = taken.take(numberOf(b.Addr()))
		}
		numbers[slot] = given[b]
	}
	return numbers
}

// takenNumbers has a number after each taken one, from which the search for a free number goes on. Taking one
// costs nearly the same, however many are taken in a row.
type takenNumbers map[nftables.Class]nftables.Class

func (t takenNumbers) free(n nftables.Class) bool {
	_, taken := t[n]
	return !taken
}

// take takes the first free number from n on; after the last one comes the first.
func (t takenNumbers) take(n nftables.Class) nftables.Class {
	found := n
	for !t.free(found) {
		found = t[found]
	}
	t[found] = found + 1
	for n != found { // shorten the way for the next search
		n, t[n] = t[n], found+1
	}
	return found
}

// numbered are the backends that a frontend has by slot, and their numbers.
type numbered struct {
	backends []service.Backend
	numbers  []nftables.Class // none without session affinity
}

// numberOf returns the number of an address.
func numberOf(a netip.Addr) nftables.Class {
	if a.Is4() {
		b := a.As4()
		return nftables.Class(binary.BigEndian.Uint32(b[:]))
	}
	h := fnv.New32a()
	_, _ = h.Write(a.AsSlice()) // never fails
	return nftables.Class(h.Sum32())
}

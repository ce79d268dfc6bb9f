package bytecode

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// lookup looks a key up in a set or map.
type lookup struct {
	set     *Set
	from    int
	to      int // -1: there is no data
	inverse bool
}

func (p *parser) lookup() expression {
	x := lookup{set: p.set(unix.NFTA_LOOKUP_SET), from: p.register(unix.NFTA_LOOKUP_SREG), to: -1,
		inverse: p.number(unix.NFTA_LOOKUP_FLAGS)&unix.NFT_LOOKUP_F_INV != 0}
	if p.has(unix.NFTA_LOOKUP_DREG) {
		x.to = p.register(unix.NFTA_LOOKUP_DREG)
	}
	return x
}

func (p *parser) set(attribute uint16) *Set {
	name := netlink.String(p.attrs[attribute])
	s := p.table.Sets[name]
	if s == nil {
		p.refuse("set %s is not there", name)
	}
	return s
}

func (x lookup) run(w *way) {
	set := w.set(x.set)
	key := w.registers[x.from : x.from+set.keySize]
	if set.dynamic() {
		data, found := w.recall(set, string(key))
		if w.match(found != x.inverse); found && x.to >= 0 {
			w.registers.store(x.to, []byte(data))
		}
		return
	}
	e := set.find(key)
	if w.match((e != nil) != x.inverse); e == nil || x.to < 0 {
		return
	}
	if set.verdicts {
		e.verdict.run(w)
		return
	}
	w.registers.store(x.to, e.data)
}

// recall looks a key up in a dynamic set. What the memory does not have is absent if dynamic sets are empty;
// otherwise it is absent, or has any data.
func (w *way) recall(s *Set, key string) (data string, found bool) {
	for i := range w.memory {
		if e := &w.memory[i]; e.set.Name == s.Name && e.key == key {
			return e.data, !e.absent
		}
	}
	e := entry{set: s, key: key, absent: true}
	if !w.Empty {
		possible := s.possible()
		if c := w.choose(1 + len(possible)); c > 0 {
			e.absent, e.data = false, possible[c-1]
		}
	}
	w.memory = append(w.memory, e)
	return e.data, !e.absent
}

// possible returns the data that distinguish what the rules can do with an element of a dynamic map: all that
// the other maps of the table have as data or as a part of a key, and one that none of them has. A set has
// no data.
func (s *Set) possible() []string {
	if s.dataSize == 0 || s.flags&unix.NFT_SET_MAP == 0 {
		return []string{""}
	}
	if s.candidates != nil {
		return s.candidates
	}
	seen := map[string]bool{}
	add := func(b []byte) {
		if len(b) == s.dataSize && !seen[string(b)] {
			seen[string(b)] = true
			s.candidates = append(s.candidates, string(b))
		}
	}
	other := make([]byte, s.dataSize)
	for i := range other {
		other[i] = 0xfe
	}
	add(other)
	for _, t := range s.table.Sets {
		for _, e := range t.list {
			if t.keySize > s.dataSize {
				add(e.key[t.keySize-s.dataSize:])
			}
		}
	}
	return s.candidates
}

// dynset changes a dynamic set.
type dynset struct {
	set       *Set
	op        uint32
	key, data int // data: -1 for none
	timeout   time.Duration
}

// dynsetDelete is NFT_DYNSET_OP_DELETE.
const dynsetDelete = 2

func (p *parser) dynset() expression {
	x := dynset{set: p.set(unix.NFTA_DYNSET_SET_NAME), op: p.number(unix.NFTA_DYNSET_OP),
		key: p.register(unix.NFTA_DYNSET_SREG_KEY), data: -1}
	if p.has(unix.NFTA_DYNSET_SREG_DATA) {
		x.data = p.register(unix.NFTA_DYNSET_SREG_DATA)
	}
	if b := p.attrs[unix.NFTA_DYNSET_TIMEOUT]; len(b) == 8 {
		x.timeout = time.Duration(binary.BigEndian.Uint64(b)) * time.Millisecond
	}
	if x.timeout == 0 && x.set != nil { // nft_dynset_eval
		x.timeout = x.set.timeout
	}
	flags := p.number(unix.NFTA_DYNSET_FLAGS)
	if flags != 0 || p.has(unix.NFTA_DYNSET_EXPR) || x.op > dynsetDelete {
		p.refuse("operation %d with flags %#x or expressions is not known", x.op, flags)
	}
	return x
}

// run adds, updates or deletes. An update of an element that is there changes its time and not its data. A
// set that is full takes no other, and the rule does not match (nft_dynset_eval).
func (x dynset) run(w *way) {
	set := w.set(x.set)
	key := string(w.registers[x.key : x.key+set.keySize])
	if x.op == dynsetDelete {
		w.memorize(entry{set: set, key: key, absent: true})
		w.remembered = 0
		return
	}
	if data, found := w.recall(set, key); found {
		w.memorize(entry{set: set, key: key, data: data})
	} else if w.Empty || w.choose(2) == 0 {
		e := entry{set: set, key: key}
		if x.data >= 0 {
			e.data = string(w.registers[x.data : x.data+set.dataSize])
		}
		w.memorize(e)
	} else {
		w.match(false)
		return
	}
	w.remembered = max(w.remembered, x.timeout)
}

// memorize adds or replaces an entry.
func (w *way) memorize(e entry) {
	for i := range w.memory {
		if old := &w.memory[i]; old.set.Name == e.set.Name && old.key == e.key {
			*old = e
			return
		}
	}
	w.memory = append(w.memory, e)
}

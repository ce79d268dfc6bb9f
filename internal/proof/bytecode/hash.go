package bytecode

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/unix"
)

// jenkins is hash: Jenkins' lookup3 of a register, scaled to a modulus.
type jenkins struct {
	from, size, to        int
	modulus, seed, offset uint32
}

func (p *parser) hash() expression {
	if typ := p.number(unix.NFTA_HASH_TYPE); typ != unix.NFT_HASH_JENKINS {
		p.refuse("type %d is not known", typ)
	}
	return jenkins{p.register(unix.NFTA_HASH_SREG), int(p.number(unix.NFTA_HASH_LEN)),
		p.register(unix.NFTA_HASH_DREG), p.number(unix.NFTA_HASH_MODULUS), p.number(unix.NFTA_HASH_SEED),
		p.number(unix.NFTA_HASH_OFFSET)}
}

// run scales the hash as reciprocal_scale of linux/kernel.h does. A hash with the source port can be any
// number: clients choose their ports.
func (x jenkins) run(w *way) {
	if w.anyPort {
		w.anyPort = false
		w.registers.store32(x.to, uint32(w.choose(int(x.modulus)))+x.offset)
		return
	}
	h := lookup3(w.registers[x.from:x.from+x.size], x.seed)
	w.registers.store32(x.to, uint32(uint64(h)*uint64(x.modulus)>>32)+x.offset)
}

// lookup3 is jhash of linux/jhash.h.
func lookup3(key []byte, seed uint32) uint32 {
	start := 0xdeadbeef + uint32(len(key)) + seed
	s := [3]uint32{start, start, start}
	for ; len(key) > 12; key = key[12:] {
		for i := range s {
			s[i] += binary.NativeEndian.Uint32(key[4*i:])
		}
		for step, turn := range []int{4, 6, 8, 16, 19, 4} { // __jhash_mix
			a, b, c := step%3, (step+1)%3, (step+2)%3
			s[a] = (s[a] - s[c]) ^ bits.RotateLeft32(s[c], turn)
			s[c] += s[b]
		}
	}
	var last [12]byte
	copy(last[:], key)
	for i := range s {
		s[i] += binary.NativeEndian.Uint32(last[4*i:])
	}
	for step, turn := range []int{14, 11, 25, 16, 4, 14, 24} { // __jhash_final
		to, from := (step+2)%3, (step+1)%3
		s[to] = (s[to] ^ s[from]) - bits.RotateLeft32(s[from], turn)
	}
	return s[2]
}

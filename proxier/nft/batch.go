package nft

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
)

// Batch is a list of messages that the kernel takes as one transaction. Begin starts it; each Message is followed
// by its attributes; Conn.Commit or Conn.Check sends it, any number of times.
//
// Everything is appended to one slice, which Begin keeps: after an unusually large batch, drop the Batch.
// Numbers in nftables attributes are big endian. An attribute, and so a list of elements, holds 65,535 bytes with
// its header of four; a batch with a longer one is not sent.
type Batch struct {
	// Describe puts into words what an error is about: message msg of the batch, and in it the attribute at offset,
	// or the message as a whole if that is 0. It may be nil.
	Describe func(msg, offset int) string

	buf    []byte
	starts []int // where each message starts in buf
	err    error
}

// Begin empties the batch. A generation other than 0 makes the kernel refuse the batch with ErrStale unless it is
// still the current one.
func (b *Batch) Begin(generation uint32) {
	b.buf, b.starts, b.err = b.buf[:0], b.starts[:0], nil
	b.buf = appendHeader(b.buf, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	if generation != 0 {
		b.U32(unix.NFNL_BATCH_GENID, generation)
	}
	setLength(b.buf, 0)
}

// Grow makes room for so many bytes more.
func (b *Batch) Grow(n int) { b.buf = slices.Grow(b.buf, n) }

// Message starts a message: an NFT_MSG_ type, NLM_F_ flags (NLM_F_REQUEST is understood) and an NFPROTO_ family.
func (b *Batch) Message(msgType, flags uint16, family uint8) {
	if len(b.buf) == 0 {
		b.Begin(0)
	}
	b.finish()
	b.starts = append(b.starts, len(b.buf))
	b.buf = appendHeader(b.buf, unix.NFNL_SUBSYS_NFTABLES<<8|msgType, unix.NLM_F_REQUEST|flags, family, 0)
}

// Len is the number of messages.
func (b *Batch) Len() int { return len(b.starts) }

// Size is the number of bytes so far.
func (b *Batch) Size() int { return len(b.buf) }

// Offset is where the next attribute of the current message comes, as in Error.Offset.
func (b *Batch) Offset() int { return len(b.buf) - b.starts[len(b.starts)-1] }

// U8 appends an attribute of one byte.
func (b *Batch) U8(typ uint16, v uint8) {
	b.attribute(typ, 1)
	b.buf = append(b.buf, v, 0, 0, 0)
}

// U16 appends a big-endian attribute of two bytes.
func (b *Batch) U16(typ, v uint16) {
	b.attribute(typ, 2)
	b.buf = append(b.buf, byte(v>>8), byte(v), 0, 0)
}

// U32 appends a big-endian attribute of four bytes.
func (b *Batch) U32(typ uint16, v uint32) {
	b.attribute(typ, 4)
	b.buf = binary.BigEndian.AppendUint32(b.buf, v)
}

// U64 appends a big-endian attribute of eight bytes.
func (b *Batch) U64(typ uint16, v uint64) {
	b.attribute(typ, 8)
	b.buf = binary.BigEndian.AppendUint64(b.buf, v)
}

// String appends a string with its terminating zero.
func (b *Batch) String(typ uint16, v string) {
	b.attribute(typ, len(v)+1)
	b.buf = append(b.buf, v...)
	b.buf = append(b.buf, 0)
	b.pad()
}

// Bytes appends bytes as they are, or attributes that are encoded already.
func (b *Batch) Bytes(typ uint16, v []byte) {
	b.attribute(typ, len(v))
	b.buf = append(b.buf, v...)
	b.pad()
}

// Nest opens an attribute that holds others, until EndNest is given what it returned. Size less that is how many
// bytes the attribute has so far.
func (b *Batch) Nest(typ uint16) (start int) {
	start = len(b.buf)
	b.attribute(typ|unix.NLA_F_NESTED, 0)
	return start
}

// EndNest closes the attribute that starts at start.
func (b *Batch) EndNest(start int) {
	n := len(b.buf) - start
	if n > math.MaxUint16 {
		b.tooLong(binary.NativeEndian.Uint16(b.buf[start+2:]), n)
	}
	binary.NativeEndian.PutUint16(b.buf[start:], uint16(n))
}

func (b *Batch) attribute(typ uint16, n int) {
	n += unix.SizeofNlAttr
	if n > math.MaxUint16 {
		b.tooLong(typ, n)
	}
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(n))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
}

func (b *Batch) pad() {
	for len(b.buf)%unix.NLMSG_ALIGNTO != 0 {
		b.buf = append(b.buf, 0)
	}
}

func (b *Batch) tooLong(typ uint16, n int) {
	if b.err == nil {
		b.err = fmt.Errorf("message %d: attribute %d of %d bytes is longer than %d",
			b.Len()-1, typ&netfilter.TypeMask, n, math.MaxUint16)
	}
}

// finish writes the length of the message that is being built.
func (b *Batch) finish() {
	if n := len(b.starts); n > 0 {
		setLength(b.buf, b.starts[n-1])
	}
}

// raw is message i with its header, so that an Error.Offset is an index into it.
func (b *Batch) raw(i int) []byte {
	if i+1 < len(b.starts) {
		return b.buf[b.starts[i]:b.starts[i+1]]
	}
	return b.buf[b.starts[i]:]
}

// seal returns the batch as it is sent: BATCH_BEGIN with sequence number first, the messages with those after it
// and, if it is to be committed, BATCH_END. Only the last message asks for an answer: before 6.10 the kernel does
// not acknowledge BATCH_END.
func (b *Batch) seal(first uint32, commit bool) []byte {
	b.finish()
	setSequence(b.buf, 0, first)
	for i, start := range b.starts {
		setSequence(b.buf, start, first+1+uint32(i))
	}
	flags := b.buf[b.starts[len(b.starts)-1]+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	if !commit {
		return b.buf
	}
	// The end is behind the batch in the same memory, and not part of it: the batch can be sent again.
	end := len(b.buf)
	sealed := appendHeader(b.buf, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	setLength(sealed, end)
	setSequence(sealed, end, first+1+uint32(len(b.starts)))
	b.buf = sealed[:end]
	return sealed
}

// failed adds the kernel's refusal of message index to what is known already: the first is reported.
func (b *Batch) failed(known, e *Error, index int) *Error {
	if known != nil {
		known.More++
		return known
	}
	e.MsgIndex = index
	if index >= 0 && b.Describe != nil {
		e.What = b.Describe(index, e.Offset)
	}
	return e
}

// appendHeader appends the headers of a message; its length and sequence number are written later.
func appendHeader(p []byte, msgType, flags uint16, family uint8, resource uint16) []byte {
	p = binary.NativeEndian.AppendUint32(p, 0)
	p = binary.NativeEndian.AppendUint16(p, msgType)
	p = binary.NativeEndian.AppendUint16(p, flags)
	p = append(p, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number; port, for which 0 is the sender's own
	p = append(p, family, unix.NFNETLINK_V0)
	return binary.BigEndian.AppendUint16(p, resource)
}

// setLength writes the length of the message that starts at start and ends with p.
func setLength(p []byte, start int) {
	binary.NativeEndian.PutUint32(p[start:], uint32(len(p)-start))
}

func setSequence(p []byte, start int, seq uint32) {
	binary.NativeEndian.PutUint32(p[start+8:], seq)
}

package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Batch is a list of nftables messages that the kernel takes as one transaction. Begin starts it; each Message is
// followed by its attributes; Conn.Commit or Conn.Check sends it, any number of times.
type Batch struct {
	Writer

	// Describe puts into words what an error is about: message msg of the batch, and in it the attribute at offset,
	// or the message as a whole if that is 0. It may be nil.
	Describe func(msg, offset int) string
}

// Begin empties the batch. A generation other than 0 makes the kernel refuse the batch with ErrStale unless it is
// still the current one.
func (b *Batch) Begin(generation uint32) {
	b.Reset()
	b.buf = appendHeader(b.buf, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST,
		unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	if generation != 0 {
		b.U32(unix.NFNL_BATCH_GENID, generation)
	}
	setLength(b.buf, 0)
}

// Message starts a message: an NFT_MSG_ type, NLM_F_ flags and the number of a family.
func (b *Batch) Message(msgType, flags uint16, family uint8) {
	if len(b.buf) == 0 {
		b.Begin(0)
	}
	b.Writer.Message(unix.NFNL_SUBSYS_NFTABLES, msgType, flags, family)
}

// seal returns the batch as it is sent: BATCH_BEGIN with sequence number first, the messages with the numbers after
// it and, if it is to be committed, BATCH_END. Only the last message asks for an answer: before 6.10 the kernel does
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
	sealed := appendHeader(b.buf, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST,
		unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	setLength(sealed, end)
	setSequence(sealed, end, first+1+uint32(len(b.starts)))
	b.buf = sealed[:end]
	return sealed
}

// failed adds the kernel's refusal of message index to the first one, which is the one that is reported.
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

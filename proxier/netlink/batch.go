package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Batch is a list of nftables messages that the kernel takes as one transaction. Call Begin, then Message
// with its attributes for each message. Conn.Commit or Conn.Check sends the batch, any number of times.
type Batch struct {
	Writer

	// Describe names the object that the kernel refused: it is in message msg of the batch, in the attribute
	// at offset, or offset is 0 and it is the message as a whole. It may be nil.
	Describe func(msg, offset int) string

	// Echo gets the attributes of the elements that messages with NLM_F_ECHO have deleted, as they were in the
	// moment of the commit. They are valid during the call only. It may be nil if no message has the flag. See
	// Socket.EchoRoom.
	Echo func(attributes []byte)
}

// Begin empties the batch.
func (b *Batch) Begin() {
	b.Reset()
	b.buf = appendHeader(b.buf, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, unix.AF_UNSPEC,
		unix.NFNL_SUBSYS_NFTABLES)
	setLength(b.buf, 0)
}

// Message starts a message with an NFT_MSG_ type, NLM_F_ flags and the number of a family (NFPROTO_).
func (b *Batch) Message(msgType, flags uint16, family uint8) {
	if len(b.buf) == 0 {
		b.Begin()
	}
	b.Writer.Message(unix.NFNL_SUBSYS_NFTABLES, msgType, flags, family)
}

// seal returns the datagram to send: BATCH_BEGIN with sequence number first, the messages with the numbers
// that follow and, with commit, BATCH_END. Only the last message asks for an acknowledgement, because before
// Linux 6.10 the kernel does not acknowledge BATCH_END.
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
	// BATCH_END uses the memory behind the batch without being a part of it, so the batch can be sent again.
	end := len(b.buf)
	sealed := appendHeader(b.buf, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, unix.AF_UNSPEC,
		unix.NFNL_SUBSYS_NFTABLES)
	setLength(sealed, end)
	setSequence(sealed, end, first+1+uint32(len(b.starts)))
	b.buf = sealed[:end]
	return sealed
}

// echoed delivers what the kernel reports about a message with NLM_F_ECHO. These reports have the sequence
// number 0 (seen on 6.18).
func (b *Batch) echoed(m message) {
	const deleted = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSETELEM
	if b.Echo != nil && m.typ == deleted && len(m.payload) >= headerSize {
		b.Echo(m.payload[headerSize:])
	}
}

// failed adds the kernel's refusal of message index to the error. The error is the first refusal, known;
// others are only counted.
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

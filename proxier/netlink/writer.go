package netlink

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// Writer writes netfilter messages one after the other into one slice: call Message, then append its
// attributes.
//
// Numbers in attributes are big endian. An attribute, and so a list of elements, holds at most 65,535 bytes
// including its header of four; a longer one makes sending fail. Reset keeps the memory, so drop a
// Writer that had an unusual number of messages.
type Writer struct {
	buf    []byte
	starts []int // where each message starts in buf
	err    error
}

// Reset empties the writer.
func (w *Writer) Reset() { w.buf, w.starts, w.err = w.buf[:0], w.starts[:0], nil }

// Grow makes room for n more bytes.
func (w *Writer) Grow(n int) { w.buf = slices.Grow(w.buf, n) }

// Message starts a message of a netfilter subsystem (NFNL_SUBSYS_) with the subsystem's type, NLM_F_ flags
// (NLM_F_REQUEST is implied) and the number of a family (NFPROTO_).
func (w *Writer) Message(subsystem, msgType, flags uint16, family uint8) {
	w.finish()
	w.starts = append(w.starts, len(w.buf))
	w.buf = appendHeader(w.buf, subsystem<<8|msgType, unix.NLM_F_REQUEST|flags, family, 0)
}

// Len returns the number of messages.
func (w *Writer) Len() int { return len(w.starts) }

// Size returns the number of bytes so far.
func (w *Writer) Size() int { return len(w.buf) }

// Offset returns where the next attribute of the current message starts, counted as in Error.Offset.
func (w *Writer) Offset() int { return len(w.buf) - w.starts[len(w.starts)-1] }

// U8 appends an attribute of one byte.
func (w *Writer) U8(typ uint16, v uint8) {
	w.attribute(typ, 1)
	w.buf = append(w.buf, v, 0, 0, 0)
}

// U16 appends a big-endian attribute of two bytes.
func (w *Writer) U16(typ, v uint16) {
	w.attribute(typ, 2)
	w.buf = append(w.buf, byte(v>>8), byte(v), 0, 0)
}

// U32 appends a big-endian attribute of four bytes.
func (w *Writer) U32(typ uint16, v uint32) {
	w.attribute(typ, 4)
	w.buf = binary.BigEndian.AppendUint32(w.buf, v)
}

// U64 appends a big-endian attribute of eight bytes.
func (w *Writer) U64(typ uint16, v uint64) {
	w.attribute(typ, 8)
	w.buf = binary.BigEndian.AppendUint64(w.buf, v)
}

// String appends a string with its terminating zero.
func (w *Writer) String(typ uint16, v string) {
	w.attribute(typ, len(v)+1)
	w.buf = append(w.buf, v...)
	w.buf = append(w.buf, 0)
	w.pad()
}

// Bytes appends an attribute whose value is v: plain bytes, or attributes that are already encoded.
func (w *Writer) Bytes(typ uint16, v []byte) {
	w.attribute(typ, len(v))
	w.buf = append(w.buf, v...)
	w.pad()
}

// Nest opens an attribute that holds others. EndNest closes it, with the position that Nest returned. Size
// minus this position is the number of bytes that the attribute has so far.
func (w *Writer) Nest(typ uint16) (start int) {
	start = len(w.buf)
	w.attribute(typ|unix.NLA_F_NESTED, 0)
	return start
}

// EndNest closes the attribute that starts at start.
func (w *Writer) EndNest(start int) {
	n := len(w.buf) - start
	if n > math.MaxUint16 {
		w.tooLong(binary.NativeEndian.Uint16(w.buf[start+2:]), n)
	}
	binary.NativeEndian.PutUint16(w.buf[start:], uint16(n))
}

func (w *Writer) attribute(typ uint16, n int) {
	n += unix.SizeofNlAttr
	if n > math.MaxUint16 {
		w.tooLong(typ, n)
	}
	w.buf = binary.NativeEndian.AppendUint16(w.buf, uint16(n))
	w.buf = binary.NativeEndian.AppendUint16(w.buf, typ)
}

func (w *Writer) pad() {
	for len(w.buf)%unix.NLMSG_ALIGNTO != 0 {
		w.buf = append(w.buf, 0)
	}
}

func (w *Writer) tooLong(typ uint16, n int) {
	if w.err == nil {
		w.err = fmt.Errorf("message %d: attribute %d of %d bytes is longer than %d",
			w.Len()-1, typ&typeMask, n, math.MaxUint16)
	}
}

// finish writes the length of the last message.
func (w *Writer) finish() {
	if n := len(w.starts); n > 0 {
		setLength(w.buf, w.starts[n-1])
	}
}

// appendHeader appends the headers of a message, which still needs its length and sequence number.
func appendHeader(p []byte, msgType, flags uint16, family uint8, resource uint16) []byte {
	p = binary.NativeEndian.AppendUint32(p, 0)
	p = binary.NativeEndian.AppendUint16(p, msgType)
	p = binary.NativeEndian.AppendUint16(p, flags)
	p = append(p, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number, and the port: 0 is the sender's own
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

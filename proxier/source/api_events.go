package source

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
)

// boundedEvents is the body of a watch without the events that are too large. It passes an event on when it
// has all of it.
type boundedEvents struct {
	io.Closer
	reader *bufio.Reader
	next   nextEvent
	left   func(largeEvent)
	rest   []byte // of the event that is passed on
	buf    []byte // its memory
}

// nextEvent reads an event and returns it in buf. If it is larger than maxEvent, it returns its beginning,
// and its size and object. It returns io.EOF only between two events.
type nextEvent func(r *bufio.Reader, buf []byte) (event []byte, large *largeEvent, err error)

func boundEvents(body io.ReadCloser, next nextEvent, left func(largeEvent)) *boundedEvents {
	return &boundedEvents{Closer: body, reader: bufio.NewReader(body), next: next, left: left}
}

// keptBuffer is the size up to which the memory of an event is used again.
const keptBuffer = 64 << 10

func (e *boundedEvents) Read(p []byte) (int, error) {
	for len(e.rest) == 0 {
		if cap(e.buf) > keptBuffer {
			e.buf = nil
		}
		event, large, err := e.next(e.reader, e.buf[:0])
		if err != nil {
			return 0, err
		}
		e.buf = event
		if large != nil {
			e.left(*large)
			continue
		}
		e.rest = event
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// nextProtobuf reads an event after its length, 4 bytes in big endian.
func nextProtobuf(r *bufio.Reader, buf []byte) ([]byte, *largeEvent, error) {
	const header = 4
	buf = append(buf, make([]byte, header)...)
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, nil, err
	}
	n := int64(binary.BigEndian.Uint32(buf))
	buf = append(buf, make([]byte, min(n, maxEvent))...)
	if _, err := io.ReadFull(r, buf[header:]); err != nil {
		return buf, nil, unexpected(err)
	}
	if n <= maxEvent {
		return buf, nil, nil
	}
	_, err := io.CopyN(io.Discard, r, n-maxEvent)
	return buf, &largeEvent{protobufObject(buf[header:]), n}, unexpected(err)
}

// nextJSON reads a JSON object. It looks only for its end; the decoder finds errors inside.
func nextJSON(r *bufio.Reader, buf []byte) ([]byte, *largeEvent, error) {
	depth, quoted, escaped := 0, false, false
	for n := int64(0); ; {
		c, err := r.ReadByte()
		if err != nil && depth > 0 {
			err = unexpected(err)
		}
		switch {
		case err != nil:
			return buf, nil, err
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		switch {
		case n == 0 && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			continue
		case n == 0 && c != '{':
			return buf, nil, fmt.Errorf("an event begins with %q and not with {", c)
		}
		if n++; n <= maxEvent {
			buf = append(buf, c)
		}
		switch {
		case depth > 0:
		case n > maxEvent:
			return buf, &largeEvent{jsonObject(buf), n}, nil
		default:
			return buf, nil, nil
		}
	}
}

// unexpected returns the error for the end of a watch within an event.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// jsonObject returns the name of the object of an event that has only its beginning. Kubernetes begins the
// metadata with it.
func jsonObject(event []byte) string {
	name := regexp.MustCompile(`"metadata":\{"name":"([^"]*)"(?:,"namespace":"([^"]*)")?`)
	found := name.FindSubmatch(event)
	if found == nil {
		return ""
	}
	return objectName(found[2], found[1])
}

// protobufObject returns the name of the object of an event that has only its beginning. The numbers of the
// fields are those of WatchEvent.object, RawExtension.raw, Unknown.raw and ObjectMeta in k8s.io/apimachinery
// v0.37, and metadata has number 1 in every object.
func protobufObject(event []byte) string {
	raw := protobufField(protobufField(event, 2), 1)
	unknown, _ := bytes.CutPrefix(raw, []byte("k8s\x00"))
	meta := protobufField(protobufField(unknown, 2), 1)
	return objectName(protobufField(meta, 3), protobufField(meta, 1))
}

// protobufField returns the first field of a message with a number, which has bytes. It returns what there is
// of them.
func protobufField(message []byte, number uint64) []byte {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 || tag&7 != 2 { // no other type of field comes before those that are looked for
			return nil
		}
		size, m := binary.Uvarint(message[n:])
		if m <= 0 {
			return nil
		}
		message = message[n+m:]
		size = min(size, uint64(len(message)))
		if tag>>3 == number {
			return message[:size]
		}
		message = message[size:]
	}
	return nil
}

func objectName(namespace, name []byte) string {
	if len(namespace) == 0 {
		return string(name)
	}
	return string(namespace) + "/" + string(name)
}

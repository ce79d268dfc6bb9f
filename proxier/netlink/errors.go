package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrInterrupted: the ruleset changed during a dump. The dump is complete, but not of one moment.
	ErrInterrupted = errors.New("ruleset changed during the dump")
	// ErrUnknownOutcome: a batch was sent and its answer lost. The kernel may or may not have committed it.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrPermission: the process may not use nftables in this network namespace.
	ErrPermission = errors.New("CAP_NET_ADMIN is needed")
	// ErrAbsent: the kernel has no nftables. It tries to load the module itself, also for a container.
	ErrAbsent = errors.New("the kernel has no nftables and could not load the module nf_tables; " +
		"modprobe nf_tables says why")
)

// absent wraps the error of a request that the kernel cannot find invalid in ErrAbsent, if it says that the
// kernel has no such subsystem: nfnetlink answers with EINVAL then (net/netfilter/nfnetlink.c).
func absent(err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Errno == unix.EINVAL {
		return fmt.Errorf("%w (%w)", ErrAbsent, err)
	}
	return err
}

// Error is the kernel's refusal of a batch or of a request. Nothing of the batch was committed.
type Error struct {
	Errno    unix.Errno
	Message  string // the kernel's own words, often empty
	MsgIndex int    // the index of the message in the batch; -1: the batch as a whole, or a request
	Offset   int    // of the refused attribute, in bytes from the start of the message's header; 0: unknown
	What     string // names the refused object, from Batch.Describe
	More     int    // how many other messages of the batch failed
}

func (e *Error) Error() string {
	var s strings.Builder
	switch {
	case e.What != "":
		s.WriteString(e.What + ": ")
	case e.MsgIndex >= 0:
		fmt.Fprintf(&s, "message %d, offset %d: ", e.MsgIndex, e.Offset)
	}
	s.WriteString(e.Errno.Error())
	if e.Is(ErrPermission) {
		s.WriteString(": " + ErrPermission.Error())
	}
	if e.Message != "" {
		fmt.Fprintf(&s, " (kernel: %s)", e.Message)
	}
	if e.More > 0 {
		fmt.Fprintf(&s, ", and %d more", e.More)
	}
	return s.String()
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Is recognises ErrPermission. EPERM of a single message is another error: another process owns the table.
func (e *Error) Is(target error) bool {
	return target == ErrPermission && e.MsgIndex < 0 && e.Errno == unix.EPERM
}

// parseError reads an NLMSG_ERROR or NLMSG_DONE. It returns nil for success.
func parseError(m message) *Error {
	if len(m.payload) < 4 {
		return &Error{Errno: unix.EBADMSG, MsgIndex: -1}
	}
	errno := int32(binary.NativeEndian.Uint32(m.payload))
	if errno == 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(-errno), MsgIndex: -1}
	if m.flags&unix.NLM_F_ACK_TLVS == 0 {
		return e
	}
	extended := m.payload[4:]
	if m.typ == unix.NLMSG_ERROR {
		// The header of the refused message comes first. NETLINK_CAP_ACK leaves out the rest of the message.
		extended = extended[min(len(extended), unix.NLMSG_HDRLEN):]
	}
	for typ, v := range Attrs(extended) {
		switch {
		case typ == unix.NLMSGERR_ATTR_MSG:
			e.Message = String(v)
		case typ == unix.NLMSGERR_ATTR_OFFS && len(v) == 4:
			e.Offset = int(binary.NativeEndian.Uint32(v))
		}
	}
	return e
}

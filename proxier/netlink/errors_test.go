package netlink

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// The kernel names the message and the element that it refuses.
func TestErrorNamesElement(t *testing.T) {
	c := testConn(t)
	mustCommit(t, c, putTable, putSet, func(b *Batch) {
		putElements(b, unix.NFT_MSG_NEWSETELEM, 0, 5000, 5001)
	})
	const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	for _, test := range []struct {
		name    string
		msgType uint16
		flags   uint16
		from    uint32
		bad     uint32 // key of the first element that the kernel refuses
		errno   unix.Errno
	}{
		{"duplicate", unix.NFT_MSG_NEWSETELEM, create, 4990, 5000, unix.EEXIST},
		{"duplicate in the second message", unix.NFT_MSG_NEWSETELEM, create, 2000, 5000, unix.EEXIST},
		{"delete an element that does not exist", unix.NFT_MSG_DELSETELEM, 0, 5000, 5001, unix.ENOENT},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b Batch
			putTable(&b)
			offsets := putElements(&b, test.msgType, test.flags, test.from, 5010)
			b.Describe = func(msg, offset int) string {
				for _, element := range Attrs(rawMessage(&b, msg)[offset:]) {
					return fmt.Sprintf("element %d", elementKey(element))
				}
				return ""
			}
			before := mustGeneration(t, c)
			var got *Error
			if err := c.Commit(&b); !errors.As(err, &got) {
				t.Fatalf("commit: %v, want an *Error", err)
			}
			want := &Error{Errno: test.errno, MsgIndex: b.Len() - 1, Offset: offsets[test.bad-test.from],
				What: fmt.Sprintf("element %d", test.bad)}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Error{}, "Message")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if after := mustGeneration(t, c); after != before {
				t.Errorf("generation %d, want %d", after, before)
			}
		})
	}
}

func TestErrorCountsMessages(t *testing.T) {
	c := testConn(t)
	var b Batch
	putTable(&b)
	for range 3 {
		b.Message(unix.NFT_MSG_DELSET, 0, testFamily)
		b.String(unix.NFTA_SET_TABLE, testTable)
		b.String(unix.NFTA_SET_NAME, "none")
	}
	putSet(&b) // the last one is good
	var got *Error
	if err := c.Commit(&b); !errors.As(err, &got) {
		t.Fatalf("commit: %v, want an *Error", err)
	}
	// The kernel refuses the name, which follows the headers of 20 bytes and the table of 8.
	want := &Error{Errno: unix.ENOENT, MsgIndex: 1, Offset: 28, More: 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestErrorText(t *testing.T) {
	for _, test := range []struct {
		err  *Error
		want string
	}{
		{&Error{Errno: unix.EEXIST, MsgIndex: 2, Offset: 40}, "message 2, offset 40: file exists"},
		{&Error{Errno: unix.EEXIST, MsgIndex: 2, What: "add element x", Message: "no room", More: 3},
			"add element x: file exists (kernel: no room), and 3 more"},
		{&Error{Errno: unix.EPERM, MsgIndex: -1}, "operation not permitted: CAP_NET_ADMIN is needed"},
		{&Error{Errno: unix.EPERM, MsgIndex: 0}, "message 0, offset 0: operation not permitted"},
	} {
		if diff := cmp.Diff(test.want, test.err.Error()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

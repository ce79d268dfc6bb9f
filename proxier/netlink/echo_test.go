package netlink

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The receive buffer holds as many echoes as EchoRoom says: each deleted element comes once, with its data,
// and the answer to the batch comes as well. Without the flag there is none.
func TestEcho(t *testing.T) {
	c := testConn(t)
	n := uint32(c.EchoRoom())
	if n < 10 {
		t.Fatalf("room for %d echoes", n)
	}
	for _, tt := range []struct {
		flags uint16
		want  int
	}{{unix.NLM_F_ECHO, int(n)}, {0, 0}} {
		mustCommit(t, c, putTable, putSet, func(b *Batch) {
			putElements(b, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, n)
		})
		got := map[string]bool{}
		var b Batch
		b.Echo = func(attributes []byte) {
			for typ, list := range Attrs(attributes) {
				if typ == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					got[string(list)] = true
				}
			}
		}
		putElements(&b, unix.NFT_MSG_DELSETELEM, tt.flags, 0, n)
		if err := c.Commit(&b); err != nil {
			t.Fatal(err)
		}
		if len(got) != tt.want {
			t.Errorf("flags %#x: %d echoes of %d deleted elements, want %d", tt.flags, len(got), n, tt.want)
		}
	}
}

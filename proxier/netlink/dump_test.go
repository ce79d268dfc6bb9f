package netlink

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

func TestDumpNothing(t *testing.T) {
	c := testConn(t)
	each := func([]byte) error { return errors.New("unexpected object") }
	if err := c.Dump(unix.NFT_MSG_GETTABLE, testFamily, "", "", each); err != nil {
		t.Errorf("tables: %v", err)
	}
	fd := c.fd
	err := c.DumpElements(testFamily, testTable, testSet, each)
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("elements of a set that does not exist: %v, want ENOENT", err)
	}
	if c.fd != fd {
		t.Error("the refusal closed the socket")
	}
}

func TestDumpNames(t *testing.T) {
	c := testConn(t)
	mustCommit(t, c, putTable, putSet, func(b *Batch) {
		for _, name := range []string{"one", "two"} {
			b.Message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, testFamily)
			b.String(unix.NFTA_CHAIN_TABLE, testTable)
			b.String(unix.NFTA_CHAIN_NAME, name)
		}
	})
	for _, test := range []struct {
		kind    string
		msgType uint16
		table   string
		name    uint16 // attribute
		want    []string
	}{
		{"table", unix.NFT_MSG_GETTABLE, "", unix.NFTA_TABLE_NAME, []string{testTable}},
		{"chain", unix.NFT_MSG_GETCHAIN, "", unix.NFTA_CHAIN_NAME, []string{"one", "two"}},
		{"set", unix.NFT_MSG_GETSET, testTable, unix.NFTA_SET_NAME, []string{testSet}},
		{"rule", unix.NFT_MSG_GETRULE, testTable, unix.NFTA_RULE_CHAIN, nil},
	} {
		var got []string
		err := c.Dump(test.msgType, testFamily, test.table, "", func(attributes []byte) error {
			for typ, v := range Attrs(attributes) {
				if typ == test.name {
					got = append(got, String(v))
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", test.kind, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.kind, diff)
		}
	}
}

// A dump notices a commit in its middle and goes on to its end, and the next dump is complete.
func TestDumpInterrupted(t *testing.T) {
	const n = 20_000
	ns := lab.TestNamespace(t)
	c, other := testDial(t, ns), testDial(t, ns)
	mustCommit(t, c, putTable, putSet, func(b *Batch) {
		putElements(b, unix.NFT_MSG_NEWSETELEM, 0, 0, n)
	})
	fd, got := c.fd, 0
	err := c.DumpElements(testFamily, testTable, testSet, func([]byte) error {
		if got++; got == n/2 {
			mustCommit(t, other, putTable, func(b *Batch) {
				b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, testFamily)
				b.String(unix.NFTA_TABLE_NAME, "another")
			})
		}
		return nil
	})
	if !errors.Is(err, ErrInterrupted) {
		t.Errorf("dump with a commit in its middle: %v, want ErrInterrupted", err)
	}
	if got != n {
		t.Errorf("%d elements, want %d: the other commit did not touch the set", got, n)
	}
	if got := len(dumpKeys(t, c)); got != n || c.fd != fd {
		t.Errorf("%d elements, want %d; descriptor %d, want %d", got, n, c.fd, fd)
	}
}

func TestDumpDeletedTable(t *testing.T) {
	ns := lab.TestNamespace(t)
	c, other := testDial(t, ns), testDial(t, ns)
	mustCommit(t, c, putTable, putSet, func(b *Batch) {
		putElements(b, unix.NFT_MSG_NEWSETELEM, 0, 0, 20_000)
	})
	got := 0
	err := c.DumpElements(testFamily, testTable, testSet, func([]byte) error {
		if got++; got == 1 {
			mustCommit(t, other, func(b *Batch) {
				b.Message(unix.NFT_MSG_DELTABLE, 0, testFamily)
				b.String(unix.NFTA_TABLE_NAME, testTable)
			})
		}
		return nil
	})
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, ErrInterrupted) {
		t.Errorf("dump of a table that is deleted meanwhile: %v after %d elements", err, got)
	}
	mustCommit(t, c, putTable)
}

func TestAttrsMalformed(t *testing.T) {
	for _, b := range [][]byte{nil, {4, 0, 1}, {3, 0, 1, 0}, {9, 0, 1, 0, 5, 5, 5, 5}, {0, 0, 0, 0}} {
		for typ, v := range Attrs(b) {
			t.Errorf("%v has attribute %d %v", b, typ, v)
		}
	}
	var got [][]byte // the last attribute lacks its padding
	for _, v := range Attrs([]byte{5, 0, 1, 0, 7, 0, 0, 0, 6, 0, 2, 0x80, 8, 9}) {
		got = append(got, slices.Clone(v))
	}
	if diff := cmp.Diff([][]byte{{7}, {8, 9}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func BenchmarkDump100k(b *testing.B) {
	c := testConn(b)
	mustCommit(b, c, putTable, putSet, func(b *Batch) {
		putElements(b, unix.NFT_MSG_NEWSETELEM, 0, 0, 100_000)
	})
	b.ReportAllocs()
	for b.Loop() {
		n, sum := 0, uint64(0)
		err := c.DumpElements(testFamily, testTable, testSet, func(element []byte) error {
			n++
			sum += uint64(elementKey(element))
			return nil
		})
		if err != nil || n != 100_000 || sum != 100_000*99_999/2 {
			b.Fatalf("%d elements, sum %d: %v", n, sum, err)
		}
	}
}

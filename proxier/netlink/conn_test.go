package netlink

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

func mustCommit(t testing.TB, c *Conn, put ...func(*Batch)) {
	t.Helper()
	var b Batch
	for _, p := range put {
		p(&b)
	}
	if err := c.Commit(&b); err != nil {
		t.Fatal(err)
	}
}

func mustGeneration(t testing.TB, c *Conn) uint32 {
	t.Helper()
	g, err := c.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// dumpKeys reads the elements back and fails if one comes twice.
func dumpKeys(t testing.TB, c *Conn) map[uint32]bool {
	t.Helper()
	keys := map[uint32]bool{}
	err := c.DumpElements(testFamily, testTable, testSet, func(element []byte) error {
		key := elementKey(element)
		if keys[key] {
			return fmt.Errorf("key %d comes twice", key)
		}
		keys[key] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestCommitManyElements(t *testing.T) {
	const n = 100_000
	c := testConn(t)
	var b Batch
	putTable(&b)
	putSet(&b)
	putElements(&b, unix.NFT_MSG_NEWSETELEM, 0, 1, n+1)
	before := mustGeneration(t, c)
	if err := c.Commit(&b); err != nil {
		t.Fatal(err)
	}
	if after := mustGeneration(t, c); after != before+1 {
		t.Errorf("generation %d after %d, want one more", after, before)
	}
	keys := dumpKeys(t, c)
	for key := uint32(1); key <= n; key++ {
		if !keys[key] {
			t.Fatalf("key %d is missing among %d", key, len(keys))
		}
	}
	if len(keys) != n {
		t.Errorf("%d elements, want %d", len(keys), n)
	}
}

func TestCommitNothing(t *testing.T) {
	c := testConn(t)
	before := mustGeneration(t, c)
	for _, b := range []*Batch{{}, {}} {
		b.Begin()
		if err := c.Commit(b); err != nil {
			t.Error(err)
		}
	}
	if after := mustGeneration(t, c); after != before {
		t.Errorf("generation %d, want %d", after, before)
	}
}

// A Conn stays in step through many commits, also with a file descriptor that select cannot use.
func TestCommitOften(t *testing.T) {
	for range 1100 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	c := testConn(t)
	if c.fd < 1024 {
		t.Fatalf("file descriptor %d, want one beyond 1023", c.fd)
	}
	c.seq = ^uint32(0) - 3000 // sequence numbers wrap around during the test
	mustCommit(t, c, putTable, putSet)
	fd, generation := c.fd, mustGeneration(t, c)
	var b Batch
	for i := range uint32(2000) {
		b.Begin()
		putElements(&b, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, i, i+1)
		if err := c.Commit(&b); err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		generation++
		if got := mustGeneration(t, c); got != generation {
			t.Fatalf("commit %d: generation %d, want %d", i, got, generation)
		}
	}
	if c.fd != fd {
		t.Error("the socket was opened again")
	}
	if got := len(dumpKeys(t, c)); got != 2000 {
		t.Errorf("%d elements, want 2000", got)
	}
}

func TestCheckChangesNothing(t *testing.T) {
	c := testConn(t)
	before := mustGeneration(t, c)
	var b Batch
	putTable(&b)
	putSet(&b)
	offsets := putElements(&b, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, 0, 10)
	if err := c.Check(&b); err != nil {
		t.Fatalf("check: %v", err)
	}
	if after := mustGeneration(t, c); after != before {
		t.Errorf("the check moved the generation from %d to %d", before, after)
	}
	if err := c.Commit(&b); err != nil {
		t.Fatalf("commit of the same batch: %v", err)
	}
	b.Begin()
	putElements(&b, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 3, 4)
	var refused *Error
	err := c.Check(&b)
	if !errors.As(err, &refused) || refused.Errno != unix.EEXIST || refused.Offset != offsets[0] {
		t.Errorf("check of an element that exists: %v", err)
	}
	if after := mustGeneration(t, c); after != before+1 {
		t.Errorf("generation %d, want %d", after, before+1)
	}
}

// When the kernel refuses more messages than the receive buffer holds answers, Commit still returns the
// refusal, and the socket stays in step.
func TestCommitManyErrors(t *testing.T) {
	c := testConn(t)
	mustCommit(t, c, putTable)
	fd, before := c.fd, mustGeneration(t, c)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10); err != nil {
		t.Fatal(err)
	}
	var b Batch
	for range 5000 {
		b.Message(unix.NFT_MSG_DELSET, 0, testFamily)
		b.String(unix.NFTA_SET_TABLE, testTable)
		b.String(unix.NFTA_SET_NAME, "none")
	}
	var refused *Error
	if err := c.Commit(&b); !errors.As(err, &refused) {
		t.Fatalf("commit: %v, want an *Error", err)
	}
	if refused.Errno != unix.ENOENT || refused.MsgIndex != 0 || refused.More == 0 || refused.More > 4000 {
		t.Errorf("refused with %+v, want ENOENT for message 0 and some of the others", refused)
	}
	if after := mustGeneration(t, c); after != before || c.fd != fd {
		t.Errorf("generation %d and descriptor %d, want %d and %d", after, c.fd, before, fd)
	}
}

// A Conn that gave up its socket opens another one with the next call, in the namespace of the calling
// thread.
func TestReopen(t *testing.T) {
	ns := lab.TestNamespace(t)
	c := testDial(t, ns)
	if err := ns.Do(func() error { testReopen(t, c); return nil }); err != nil {
		t.Fatal(err)
	}
}

func testReopen(t *testing.T, c *Conn) {
	mustCommit(t, c, putTable, putSet, func(b *Batch) {
		putElements(b, unix.NFT_MSG_NEWSETELEM, 0, 0, 20_000)
	})
	stop := errors.New("stop")
	err := c.DumpElements(testFamily, testTable, testSet, func([]byte) error { return stop })
	if !errors.Is(err, stop) || c.fd >= 0 {
		t.Errorf("stopped dump: %v, descriptor %d, want the socket given up", err, c.fd)
	}
	if got := len(dumpKeys(t, c)); got != 20_000 {
		t.Errorf("%d elements after reopening, want 20000", got)
	}

	// The answer does not come: the batch was committed, and the caller cannot know it.
	before := mustGeneration(t, c)
	port := c.port
	c.port++
	var b Batch
	putElements(&b, unix.NFT_MSG_DELSETELEM, 0, 0, 1)
	if err := c.Commit(&b); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("commit without an answer: %v, want ErrUnknownOutcome", err)
	}
	b.Begin()
	putElements(&b, unix.NFT_MSG_DELSETELEM, 0, 1, 2)
	if err := c.Commit(&b); err != nil {
		t.Errorf("commit after reopening: %v", err)
	}
	if after := mustGeneration(t, c); after != before+2 {
		t.Errorf("generation %d, want %d", after, before+2)
	}
	if c.port == port+1 {
		t.Error("the address is still the wrong one")
	}
}

func TestBatchLargerThanSendBuffer(t *testing.T) {
	c := testConn(t)
	// Begin and end have 20 bytes each and a table 28. The kernel doubles the size and keeps 32 bytes.
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, (40+1000*28+32)/2); err != nil {
		t.Fatal(err)
	}
	var b Batch
	for range 1000 {
		putTable(&b)
	}
	if err := c.Commit(&b); err != nil {
		t.Errorf("batch as large as the buffer: %v", err)
	}
	putTable(&b)
	err := c.Commit(&b)
	if !errors.Is(err, unix.EMSGSIZE) || !strings.Contains(err.Error(), "net.core.wmem_max >= 14050") {
		t.Errorf("larger batch: %v, want EMSGSIZE and the required sysctl", err)
	}
	mustCommit(t, c, putTable)
}

func TestClose(t *testing.T) {
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Generation(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("generation after close: %v, want net.ErrClosed", err)
	}
}

// Without CAP_NET_ADMIN the error says so.
func TestPermission(t *testing.T) {
	ns := lab.TestNamespace(t)
	errs := make(chan [2]error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread has no capabilities and ends with the goroutine
		err := ns.Do(func() error {
			c, err := Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := dropCapabilities(); err != nil {
				return err
			}
			var b Batch
			putTable(&b)
			_, generation := c.Generation()
			errs <- [2]error{c.Commit(&b), generation}
			return nil
		})
		if err != nil {
			errs <- [2]error{err, err}
		}
	}()
	for i, err := range <-errs {
		if !errors.Is(err, ErrPermission) || !errors.Is(err, os.ErrPermission) {
			t.Errorf("%d: %v, want ErrPermission", i, err)
		}
	}
}

// dropCapabilities takes all capabilities from the calling thread.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

func BenchmarkCommit100k(b *testing.B) {
	c := testConn(b)
	var batch Batch
	putElements(&batch, unix.NFT_MSG_NEWSETELEM, 0, 0, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		mustCommit(b, c, putTable, func(b *Batch) { // replaces the table by an empty one
			b.Message(unix.NFT_MSG_DELTABLE, 0, testFamily)
			b.String(unix.NFTA_TABLE_NAME, testTable)
		}, putTable, putSet)
		b.StartTimer()
		if err := c.Commit(&batch); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(batch.Size()))
}

func BenchmarkCommitOne(b *testing.B) {
	c := testConn(b)
	mustCommit(b, c, putTable, putSet)
	var batch Batch
	b.ReportAllocs()
	for key := uint32(0); b.Loop(); key++ {
		batch.Begin()
		putElements(&batch, unix.NFT_MSG_NEWSETELEM, 0, key%100_000, key%100_000+1)
		if err := c.Commit(&batch); err != nil {
			b.Fatal(err)
		}
	}
}

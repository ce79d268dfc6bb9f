package nft

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// testNetNS makes a network namespace and returns its file descriptor, which lives as long as the test.
func testNetNS(t testing.TB) int {
	t.Helper()
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{nil, os.NewSyscallError("unshare", err)}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		result <- made{file, err}
	}()
	m := <-result
	if m.err != nil {
		t.Fatalf("network namespace: %v", m.err)
	}
	t.Cleanup(func() { m.file.Close() })
	return int(m.file.Fd())
}

// testConn returns a Conn in a network namespace of its own.
func testConn(t testing.TB) *Conn {
	t.Helper()
	return testDial(t, testNetNS(t))
}

func testDial(t testing.TB, netns int) *Conn {
	t.Helper()
	c, err := Dial(Options{NetNS: netns})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

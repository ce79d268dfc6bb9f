package netfilter

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// In runs open on a thread in a network namespace, given by file descriptor; zero is
// that of the calling thread. A socket that it opens stays in the namespace.
func In(netns int, open func() error) (err error) {
	if netns == 0 {
		return open()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, e := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if e != nil {
			err = fmt.Errorf("open own network namespace: %w", e)
			return
		}
		defer unix.Close(home)
		if e := unix.Setns(netns, unix.CLONE_NEWNET); e != nil {
			err = fmt.Errorf("enter network namespace: %w", e)
			return
		}
		err = open()
		// A user namespace may not be allowed back. Then the thread stays locked, and ends with the goroutine.
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return err
}

// Receive returns the next datagram from the kernel, in buf. EAGAIN says there is none.
func Receive(fd int, buf []byte) ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if n > len(buf) {
			return nil, fmt.Errorf("receive: datagram of %d bytes, %d expected at most", n, len(buf))
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
			return buf[:n], nil
		}
	}
}

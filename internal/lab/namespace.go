package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. It exists until Close, and as long as sockets or processes use it.
type Namespace struct {
	file *os.File
}

// NewNamespace creates a network namespace with its loopback device up.
func NewNamespace() (*Namespace, error) {
	type result struct {
		ns  *Namespace
		err error
	}
	created := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			created <- result{err: fmt.Errorf("unshare: %w", err)}
			return
		}
		ns, err := currentNamespace()
		created <- result{ns, err}
	}()
	r := <-created
	if r.err != nil {
		return nil, fmt.Errorf("create network namespace: %w", r.err)
	}
	if err := r.ns.loopbackUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("create network namespace: %w", err), r.ns.Close())
	}
	return r.ns, nil
}

// NamespaceOf returns the network namespace of a process.
func NamespaceOf(pid int) (*Namespace, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &Namespace{file}, nil
}

// unusedNamespace returns the network namespace of the calling thread, and an error if it has devices that
// are up.
func unusedNamespace() (*Namespace, error) {
	ns, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	h, err := ns.handle()
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("list devices: %w", err), ns.Close())
	}
	for _, link := range links {
		if name := link.Attrs().Name; name != "lo" && link.Attrs().Flags&net.FlagUp != 0 {
			return nil, errors.Join(fmt.Errorf("this namespace is in use: it has the device %s", name),
				ns.Close())
		}
	}
	return ns, nil
}

// currentNamespace returns the network namespace of the calling thread.
func currentNamespace() (*Namespace, error) {
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return &Namespace{file}, nil
}

// TestNamespace returns a network namespace that lives as long as the test.
func TestNamespace(t testing.TB) *Namespace {
	t.Helper()
	ns, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// FD returns the file descriptor of the namespace, which is valid until Close.
func (n *Namespace) FD() int { return int(n.file.Fd()) }

// Close closes the namespace, which must not be used after that.
func (n *Namespace) Close() error { return n.file.Close() }

// Do runs f in the namespace and returns its error. f runs in the calling goroutine, on a thread of its own:
// sockets that it opens and processes that it starts belong to the namespace, goroutines that it starts do
// not.
func (n *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	before, err := currentNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer before.Close()
	if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer func() {
		// A thread that cannot return stays locked and ends with the goroutine.
		if unix.Setns(before.FD(), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// handle returns a route netlink connection into the namespace.
func (n *Namespace) handle() (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(n.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

func (n *Namespace) loopbackUp() error {
	h, err := n.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// setting is a file below /proc/sys/net; a * in its path stands for every device, "all" and "default".
type setting struct {
	path, value string
	optional    bool // the kernel may lack it
}

func (n *Namespace) apply(settings []setting) error {
	return n.Do(func() error {
		for _, s := range settings {
			files, err := filepath.Glob("/proc/sys/net/" + s.path)
			if err != nil {
				return fmt.Errorf("set %s: %w", s.path, err)
			}
			if len(files) == 0 && !s.optional {
				return fmt.Errorf("set %s: this kernel does not have it", s.path)
			}
			for _, file := range files {
				if err := os.WriteFile(file, []byte(s.value+"\n"), 0); err != nil {
					return fmt.Errorf("set %s: %w", s.path, err)
				}
			}
		}
		return nil
	})
}

package lab

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
)

func TestNamespaceDo(t *testing.T) {
	// The goroutine must run on the same thread during the whole test.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here := func() string {
		link, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	outside := here()
	ns, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()

	var first string
	want := errors.New("of the function")
	err = ns.Do(func() error {
		first = here()
		listener, err := net.Listen("tcp", "127.0.0.1:0") // lo is up
		if err != nil {
			t.Error(err)
		} else {
			listener.Close()
		}
		return want
	})
	if err != want {
		t.Errorf("error is %v, want the function's own", err)
	}
	if first == outside {
		t.Errorf("ran in %s, where it was called", first)
	}
	if got := here(); got != outside {
		t.Errorf("came back to %s, want %s", got, outside)
	}
	func() {
		defer func() { recover() }()
		ns.Do(func() error { panic("in the namespace") })
	}()
	if got := here(); got != outside {
		t.Errorf("came back from a panic to %s, want %s", got, outside)
	}
}

func TestNamespacesDiffer(t *testing.T) {
	links := map[string]bool{}
	for range 3 {
		ns, err := NewNamespace()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		if err := ns.Do(func() error {
			link, err := os.Readlink("/proc/thread-self/ns/net")
			links[link] = true
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(links) != 3 {
		t.Errorf("3 namespaces are %v", links)
	}
}

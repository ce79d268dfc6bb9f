package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// answering serves pages at a name of this test's own until the test ends.
func answering(t *testing.T) (name string) {
	t.Helper()
	name = fmt.Sprintf("@nftproxy-test-%d-%s", os.Getpid(), t.Name())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	})
	go func() { done <- Serve(ctx, name, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for { // until it listens
		conn, err := net.Dial("unix", name)
		if err == nil {
			_ = conn.Close()
			return name
		}
		runtime.Gosched()
	}
}

func get(t *testing.T, name string) (string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://nftproxy/page", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := Do(name, request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func TestServe(t *testing.T) {
	name := answering(t)
	if body, err := get(t, name); err != nil || body != "/page" {
		t.Errorf("body %q, error %v", body, err)
	}
	if _, err := get(t, name+"-nobody"); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("nobody listens: error %v, want ErrNoDaemon", err)
	}
	if err := Serve(t.Context(), name, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second daemon: error %v, want EADDRINUSE", err)
	}
}

// TestOtherUsers connects as another user, which needs root: the daemon closes the connection without an
// answer. Without root it only shows that the own user gets one.
func TestOtherUsers(t *testing.T) {
	name := answering(t)
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		const nobody = 65534
		if os.Geteuid() == 0 {
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
				result <- e
				return
			}
		}
		result <- read(name)
	}()
	err := <-result
	refused := errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
	if another := os.Geteuid() == 0; refused != another || !refused && err != nil {
		t.Errorf("another user: %t, error %v; want no answer exactly for another user", another, err)
	}
}

// read asks without looking at who answers, and returns why there is no answer.
func read(name string) error {
	conn, err := net.Dial("unix", name)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// answering serves an answer at a name of this test's own until the test ends.
func answering(t *testing.T, answer Answer) (name string) {
	t.Helper()
	name = fmt.Sprintf("@nftproxy-test-%d-%s", os.Getpid(), t.Name())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveAt(ctx, name, answer) }()
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

func TestAsk(t *testing.T) {
	name := answering(t, func(_ context.Context, q Question) (*Report, error) {
		switch q.From {
		case "":
			return nil, errors.New("who asks?")
		case "early":
			return nil, fmt.Errorf("%w: wait", ErrNoDaemon)
		}
		return &Report{Target: q.Target, Verdict: q.From}, nil
	})
	report, err := askAt(t.Context(), name, Question{Target: "default/web", From: "node"})
	if err != nil || report.Target != "default/web" || report.Verdict != "node" {
		t.Errorf("report %+v, error %v", report, err)
	}
	_, err = askAt(t.Context(), name, Question{})
	if err == nil || errors.Is(err, ErrNoDaemon) || err.Error() != "who asks?" {
		t.Errorf("error %v, want that of the daemon", err)
	}
	_, err = askAt(t.Context(), name, Question{From: "early"})
	if !errors.Is(err, ErrNoDaemon) || !strings.HasSuffix(err.Error(), ": wait") {
		t.Errorf("early: error %v, want ErrNoDaemon with the reason", err)
	}
	if _, err := askAt(t.Context(), name+"-nobody", Question{}); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("nobody listens: error %v, want ErrNoDaemon", err)
	}
	long := Question{Target: strings.Repeat("x", maxQuestion)}
	if _, err := askAt(t.Context(), name, long); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a long question: error %v", err)
	}
	if err := serveAt(t.Context(), name, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second daemon: error %v, want EADDRINUSE", err)
	}
}

// TestOtherUsers connects as another user, which needs root: the daemon closes the connection without an
// answer. Without root it only shows that the own user gets one.
func TestOtherUsers(t *testing.T) {
	name := answering(t, func(context.Context, Question) (*Report, error) { return &Report{}, nil })
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
		result <- post(name)
	}()
	err := <-result
	refused := errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
	if another := os.Geteuid() == 0; refused != another || !refused && err != nil {
		t.Errorf("another user: %t, error %v; want no answer exactly for another user", another, err)
	}
}

// post asks without looking at who answers, and returns why there is no answer.
func post(name string) error {
	conn, err := net.Dial("unix", name)
	if err != nil {
		return err
	}
	defer conn.Close()
	const request = "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"
	if _, err := conn.Write([]byte(request)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

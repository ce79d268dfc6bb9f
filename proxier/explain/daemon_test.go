package explain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/proxier/socket"
)

// answering serves an answer at a name of this test's own until the test ends.
func answering(t *testing.T, answer Answer) (name string) {
	t.Helper()
	name = fmt.Sprintf("@nftproxy-test-%d-%s", os.Getpid(), t.Name())
	mux := http.NewServeMux()
	mux.Handle("POST "+Path, Handler(answer))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- socket.Serve(ctx, name, mux) }()
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
			return nil, fmt.Errorf("%w: wait", socket.ErrNoDaemon)
		}
		return &Report{Target: q.Target, Verdict: q.From}, nil
	})
	report, err := askAt(t.Context(), name, Question{Target: "default/web", From: "node"})
	if err != nil || report.Target != "default/web" || report.Verdict != "node" {
		t.Errorf("report %+v, error %v", report, err)
	}
	_, err = askAt(t.Context(), name, Question{})
	if err == nil || errors.Is(err, socket.ErrNoDaemon) || err.Error() != "who asks?" {
		t.Errorf("error %v, want that of the daemon", err)
	}
	_, err = askAt(t.Context(), name, Question{From: "early"})
	if !errors.Is(err, socket.ErrNoDaemon) || !strings.HasSuffix(err.Error(), ": wait") {
		t.Errorf("early: error %v, want ErrNoDaemon with the reason", err)
	}
	if _, err := askAt(t.Context(), name+"-nobody", Question{}); !errors.Is(err, socket.ErrNoDaemon) {
		t.Errorf("nobody listens: error %v, want ErrNoDaemon", err)
	}
	long := Question{Target: strings.Repeat("x", maxQuestion)}
	if _, err := askAt(t.Context(), name, long); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a long question: error %v", err)
	}
}

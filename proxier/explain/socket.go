package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// socket is where the daemon answers questions: a name in the abstract namespace (unix(7)), of which every
// network namespace has its own. So the daemon that answers is the one of this network namespace, whether it
// runs in a container or not, and no file stays behind.
const socket = "@nftproxy-explain"

// Bounds of a question and its answer.
const (
	askTimeout  = 5 * time.Second
	maxQuestion = 4 << 10
	maxAnswer   = 64 << 20
)

// Serve answers questions until ctx ends, or returns why it cannot listen: another nftproxy may still do so.
// The protocol is HTTP: a Question as JSON is posted, and the answer is a Report, or an error in words. Only
// processes of this process's user may ask, which is root: an abstract name has no file mode.
func Serve(ctx context.Context, answer Answer) error { return serveAt(ctx, socket, answer) }

// Answer answers a question. Its error is for the one who asks.
type Answer func(context.Context, Question) (*Report, error)

func serveAt(ctx context.Context, name string, answer Answer) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return fmt.Errorf("serve explain: %w", err)
	}
	server := &http.Server{
		ReadTimeout: askTimeout, WriteTimeout: 2 * askTimeout, MaxHeaderBytes: maxQuestion,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, answer) }),
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(sameUser{l}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve explain: %w", err)
	}
	return nil
}

// sameUser accepts connections of processes of this process's user.
type sameUser struct{ *net.UnixListener }

func (l sameUser) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if isOurs(conn) {
			return conn, nil
		}
		_ = conn.Close()
	}
}

// isOurs reports whether the other side is a process of this process's user.
func isOurs(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	ours := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		ours = err == nil && int(cred.Uid) == os.Geteuid()
	})
	return err == nil && ours
}

// dial connects to the daemon. It refuses one of another user, who could have taken the name.
func dial(ctx context.Context, name string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	if c, ok := conn.(*net.UnixConn); !ok || !isOurs(c) {
		_ = conn.Close()
		return nil, errors.New("another user answers at " + name)
	}
	return conn, nil
}

func handle(w http.ResponseWriter, r *http.Request, answer Answer) {
	var q Question
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&q); err != nil {
		http.Error(w, "read question: "+err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	report, err := answer(ctx, q)
	switch {
	case errors.Is(err, ErrNoDaemon):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = report.WriteJSON(w) // fails if the client has gone
}

// ErrNoDaemon means that no daemon answers in this network namespace, or that it cannot say yet what it wants.
var ErrNoDaemon = errors.New("no answer from the daemon")

// unready is ErrNoDaemon in the words of the daemon.
type unready string

func (u unready) Error() string { return string(u) }

func (unready) Is(err error) bool { return err == ErrNoDaemon }

// Ask asks the daemon of this network namespace. The error is ErrNoDaemon if none answers, and otherwise what
// the daemon says.
func Ask(ctx context.Context, q Question) (*Report, error) { return askAt(ctx, socket, q) }

func askAt(ctx context.Context, name string, q Question) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*askTimeout)
	defer cancel()
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://nftproxy/explain",
		bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, name) }}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	switch text := bytes.TrimSpace(data); response.StatusCode {
	case http.StatusOK:
	case http.StatusServiceUnavailable:
		return nil, unready(text)
	default:
		return nil, errors.New(string(text))
	}
	report := &Report{}
	if err := json.Unmarshal(data, report); err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return report, nil
}

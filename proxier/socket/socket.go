// Package socket is how a command of nftproxy reaches the daemon on the same node: HTTP over a Unix socket
// that only processes of the daemon's user may use, which is root.
//
// The socket has a name in the abstract namespace (unix(7)), of which every network namespace has its own. So
// the daemon that answers is the one of this network namespace, whether it runs in a container or not, and no
// file stays behind. An abstract name has no file mode: both sides ask the kernel who the other one is.
//
// Start reading at [Serve] and [Do].
package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Name is where the daemon answers commands.
const Name = "@nftproxy"

// Bounds of the header of a request in bytes, of the time to receive the request, and of the time until it is
// answered.
const (
	maxHeader   = 4 << 10
	readTimeout = 5 * time.Second
	Timeout     = time.Minute
)

// ErrNoDaemon means that no daemon answers in this network namespace, or that it cannot say yet what it wants.
var ErrNoDaemon = errors.New("no answer from the daemon")

// Serve answers requests at a name, which begins with @, until ctx ends. Or it returns why it cannot listen:
// another nftproxy may still do so.
func Serve(ctx context.Context, name string, handler http.Handler) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	server := &http.Server{Handler: handler, MaxHeaderBytes: maxHeader, ReadTimeout: readTimeout,
		WriteTimeout: Timeout}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(sameUser{l}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	return nil
}

// Do sends a request to the daemon that serves the name, whatever host its URL has. The error is ErrNoDaemon
// if none answers. A daemon of another user is refused, who could have taken the name.
func Do(name string, request *http.Request) (*http.Response, error) {
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, name) }}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	return response, nil
}

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

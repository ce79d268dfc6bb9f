package health

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// The health pages are served on all addresses of the node without authentication. These limits bound what
// a client can make nftproxy hold for it.
const (
	// readTimeout is how long a request may take to arrive, from the opening of the connection.
	readTimeout = 10 * time.Second
	// writeTimeout is how long an answer may take. net/http/pprof extends it by the duration of a profile.
	writeTimeout = 10 * time.Second
	// idleTimeout is how long a connection may wait for its next request. Probes and Prometheus usually ask
	// more often.
	idleTimeout = 60 * time.Second
	// maxHeader is the largest header of a request. net/http reads another 4 kB.
	maxHeader = 4 << 10
	// maxConns is the largest number of open connections of a server. Each of them takes up to 40 kB.
	maxConns = 256
	// graceTime is how long a connection stays open in any case. The request of an honest client usually
	// waits in the socket when its connection is accepted; this is time to read it. Meanwhile new connections
	// wait in the kernel.
	graceTime = 5 * time.Millisecond
)

// newHTTPServer returns a server whose connections count towards limit.
func newHTTPServer(handler http.Handler, limit *connLimit) *http.Server {
	return &http.Server{
		Handler:        handler,
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ConnState:      limit.changed,
	}
}

// connLimit keeps at most maxConns connections open. To make room for a new one it closes a connection of the
// client address that has the most: the one that has waited for a request the longest, and one whose request
// is being answered only if no other is left. So other clients are answered while one holds as many
// connections as it can: refusing new connections instead would leave everybody out until those time out. The
// zero connLimit is ready to use; several servers can share it.
type connLimit struct {
	mu    sync.Mutex
	conns map[net.Conn]connState
	count map[netip.Addr]int // of connections, by client address
}

type connState struct {
	client netip.Addr
	since  time.Time // when the connection came into this state
	active bool      // a request is being answered
}

// changed is http.Server.ConnState. The server calls it for a new connection before it accepts another one.
func (l *connLimit) changed(conn net.Conn, state http.ConnState) {
	if state == http.StateNew {
		for !l.add(conn) {
			time.Sleep(graceTime / 4)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now, open := l.conns[conn]
	switch {
	case !open: // closed by this limit
	case state == http.StateClosed || state == http.StateHijacked:
		l.remove(conn)
	default:
		now.since, now.active = time.Now(), state == http.StateActive
		l.conns[conn] = now
	}
}

// add adds a connection, in the place of another one if necessary. It returns false if that other one is
// too young to be closed.
func (l *connLimit) add(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns, l.count = map[net.Conn]connState{}, map[netip.Addr]int{}
	}
	if len(l.conns) >= maxConns {
		first := l.first()
		if time.Since(l.conns[first].since) < graceTime {
			return false
		}
		l.remove(first)
		_ = first.Close()
	}
	client := addrOf(conn)
	l.conns[conn] = connState{client: client, since: time.Now()}
	l.count[client]++
	return true
}

func (l *connLimit) remove(conn net.Conn) {
	client := l.conns[conn].client
	delete(l.conns, conn)
	if l.count[client]--; l.count[client] == 0 {
		delete(l.count, client)
	}
}

// first returns the connection to close. maxConns is so small that a search takes microseconds.
func (l *connLimit) first() (found net.Conn) {
	for conn, state := range l.conns {
		if found == nil || l.before(state, l.conns[found]) {
			found = conn
		}
	}
	return found
}

// before reports whether to close a connection in state a rather than one in state b.
func (l *connLimit) before(a, b connState) bool {
	if na, nb := l.count[a.client], l.count[b.client]; na != nb {
		return na > nb
	}
	if a.active != b.active {
		return b.active
	}
	return a.since.Before(b.since)
}

// addrOf returns the address of the client, or the zero address if the connection is not of TCP.
func addrOf(conn net.Conn) netip.Addr {
	client, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	return client.Addr().Unmap()
}

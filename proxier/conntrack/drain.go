package conntrack

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// An endpoint that terminates keeps its flows while it serves, as in kube-proxy, so that sessions can end in
// their own time. But most entries are not sessions: a client sent a request from a new socket, got the
// answer and closed the socket. The entry stays for nf_conntrack_udp_timeout (30 s), or longer if the port
// was used again. In this time a new socket with the same source port is led to the endpoint that terminates,
// and its datagram is lost when the endpoint has ended and the API does not say so yet. Nothing on the wire
// distinguishes the new socket from the old one. Only time does: idle entries to such endpoints end when a
// session is unlikely to need them.
const (
	// idleExchange is for flows without packets in both directions for more than two seconds. Resolvers send
	// a request again after 5 s, and CoreDNS ends 5 s after the signal.
	idleExchange = 3
	// idleStream is for other flows. It is the default of terminationGracePeriodSeconds, and longer than the
	// usual intervals of keepalives (WireGuard 25 s, QUIC less than 30 s).
	idleStream = 30
)

// timeoutDir has the kernel's timeouts for the network namespace of the reader.
const timeoutDir = "/proc/sys/net/netfilter"

// udpTimeouts are the timeouts of the kernel in seconds.
type udpTimeouts struct{ exchange, stream uint32 }

// readTimeouts returns the timeouts of the network namespace of the calling thread.
func readTimeouts(dir string) udpTimeouts {
	return udpTimeouts{
		exchange: readSeconds(filepath.Join(dir, "nf_conntrack_udp_timeout"), 30),
		stream:   readSeconds(filepath.Join(dir, "nf_conntrack_udp_timeout_stream"), 120),
	}
}

func readSeconds(path string, otherwise uint32) uint32 {
	text, err := os.ReadFile(path)
	if err != nil {
		return otherwise
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return otherwise
	}
	return uint32(n)
}

// leave returns how many seconds are left for a flow to an endpoint that terminates, unless it has a packet:
// 0 if it was idle for too long already, and the flow's own timeout if that is short enough. Thus it can be
// called again for a flow that has the result as timeout.
func (t udpTimeouts) leave(f *flow) uint32 {
	full, limit := t.exchange, uint32(idleExchange)
	if f.status&statusAssured != 0 {
		full, limit = t.stream, idleStream
	}
	if f.timeout <= limit || f.status&statusFixedTimeout != 0 {
		return f.timeout
	}
	idle := full - min(f.timeout, full)
	return limit - min(idle, limit)
}

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/rules/service"
)

// What came back, as Result.Result.
const (
	Connected   = "connected"   // the handshake of TCP is complete
	Answered    = "answered"    // a datagram, or an INIT ACK of SCTP
	Refused     = "refused"     // a reset, an ABORT of SCTP, or ICMP that says that no one listens
	Unreachable = "unreachable" // another ICMP error, or the node has no route
	Nothing     = "nothing"     // came back in time
)

// Wait is how long a probe waits for an answer. TCP sends its SYN again after 1 s, so a lost packet is no
// silence yet.
const Wait = 3 * time.Second

// Result is what came of a probe.
type Result struct {
	Sent   string         `json:"sent"`   // SYN, datagram, DNS query or INIT
	Source netip.AddrPort `json:"source"` // from which it was sent
	Result string         `json:"result"`
	// By says what the answer was: RST, or an ICMP error with its type, code and sender.
	By string `json:"by,omitempty"`
	// Endpoint is where connection tracking sent the packet: the target itself if nothing translated it. It is
	// empty if connection tracking has no such flow: then the packet has not left this network namespace.
	Endpoint string `json:"endpoint,omitempty"`
	Took     string `json:"took"` // until the answer, or for how long none came
	// Again is how often TCP sent its SYN again.
	Again int `json:"again,omitempty"`
	// Unknown says why the endpoint is not known, if connection tracking could not be asked.
	Unknown string `json:"unknown,omitempty"`
}

// attempt is a probe that is under way.
type attempt struct {
	fd     int
	to     service.Frontend
	target netip.AddrPort
	result Result
	tag    uint32 // of SCTP
}

// Send sends a probe from this node, in the network namespace of the calling thread, and waits for what comes
// back, at most Wait. An error means that no probe could be sent.
func Send(ctx context.Context, to service.Frontend) (*Result, error) {
	// The poll of the socket and the question to connection tracking need the thread's namespace only.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a := &attempt{to: to, target: netip.AddrPortFrom(to.Addr, to.Port)}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("probe %s %s: %w", to.Protocol, a.target, err)
	}
	defer unix.Close(a.fd)
	births, unknown := conntrack.WatchBirths()
	if births != nil {
		defer births.Close()
	}
	start := time.Now()
	err := a.exchange(ctx, start.Add(Wait))
	a.result.Took = time.Since(start).Round(10 * time.Microsecond).String()
	if err != nil {
		return nil, fmt.Errorf("probe %s %s: %w", to.Protocol, a.target, err)
	}
	if births != nil && a.result.Source.IsValid() {
		var endpoint netip.AddrPort
		var found bool
		if endpoint, found, unknown = births.Translation(to.Protocol, a.result.Source, a.target); found {
			a.result.Endpoint = endpoint.String()
		}
	}
	if unknown != nil {
		a.result.Unknown = unknown.Error()
	}
	return &a.result, nil
}

// exchange sends the first packet and waits for what comes back.
func (a *attempt) exchange(ctx context.Context, deadline time.Time) error {
	if err := a.send(); err != nil {
		if a.failed(err) {
			return nil
		}
		return err
	}
	source, err := a.source()
	if err != nil {
		return err
	}
	a.result.Source = source
	for {
		left := time.Until(deadline)
		if left <= 0 || ctx.Err() != nil {
			a.result.Result = Nothing
			a.retransmissions()
			return ctx.Err()
		}
		// A short sleep at a time, to notice the end of ctx.
		const slice = 50 * time.Millisecond
		events := []unix.PollFd{{Fd: int32(a.fd), Events: a.events()}}
		n, err := unix.Poll(events, int(min(left, slice).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for an answer: %w", err)
		}
		if n > 0 && a.look() {
			a.retransmissions()
			return nil
		}
	}
}

// events returns for what to wait: a TCP socket becomes writable when it is connected.
func (a *attempt) events() int16 {
	if a.to.Protocol == service.TCP {
		return unix.POLLOUT
	}
	return unix.POLLIN
}

// look looks at what came, and reports whether it is the answer.
func (a *attempt) look() bool {
	a.errorQueue()
	if a.result.Result != "" {
		return true
	}
	pending, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && pending != 0 {
		return a.failed(unix.Errno(pending))
	}
	if a.to.Protocol == service.TCP {
		a.result.Result = Connected
		return true
	}
	return a.receive()
}

// retransmissions asks TCP how often it sent its SYN again.
func (a *attempt) retransmissions() {
	if a.to.Protocol != service.TCP {
		return
	}
	if info, err := unix.GetsockoptTCPInfo(a.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		a.result.Again = int(info.Total_retrans)
	}
}

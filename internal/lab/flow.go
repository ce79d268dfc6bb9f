package lab

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Flow is a client that keeps its source port, over UDP, or its association, over SCTP: connection tracking
// leads it to one server. It needs Close. It is not safe for concurrent use.
type Flow struct {
	conn             net.Conn
	srcPort, dstPort uint16
	ours, theirs     uint32 // verification tags of an association
}

// Open opens a flow of a party. proto is udp or sctp; an association is established when Open returns.
func (l *Lab) Open(from, proto string, to netip.AddrPort) (*Flow, error) {
	p, ok := l.parties[from]
	if !ok {
		return nil, fmt.Errorf("the lab has no party %q", from)
	}
	conn, port, err := l.dial(p, proto, to, time.Now().Add(answerTimeout))
	if err != nil {
		return nil, fmt.Errorf("open %s flow to %s: %w", proto, to, err)
	}
	f := &Flow{conn: conn, srcPort: port, dstPort: to.Port(), ours: sctpTag()}
	if ip, ok := conn.(*net.IPConn); ok {
		if err := f.associate(ip); err != nil {
			conn.Close()
			return nil, fmt.Errorf("associate with %s: %w", to, err)
		}
	}
	if a, ok := conn.(association); ok {
		if _, err := receive(a); err != nil {
			conn.Close()
			return nil, fmt.Errorf("read greeting of %s: %w", to, err)
		}
	}
	return f, nil
}

// associate establishes an association with two requests, see sctp.go.
func (f *Flow) associate(conn *net.IPConn) error {
	in, err := f.exchange(conn, sctpPacket{chunk: sctpInit, initiateTag: f.ours}, sctpInitAck)
	if err != nil {
		return err
	}
	f.theirs = in.initiateTag
	_, err = f.exchange(conn, sctpPacket{chunk: sctpCookieEcho, verificationTag: f.theirs, data: in.data},
		sctpCookieAck)
	return err
}

// Ask sends a packet and waits for the answer, at most 400 ms. Over SCTP it is a HEARTBEAT: a server that
// does not have the association aborts it, so that the outcome is Refused.
func (f *Flow) Ask() Result {
	if err := f.conn.SetDeadline(time.Now().Add(silenceTimeout)); err != nil {
		return Result{Err: err}
	}
	result := Result{Local: localAddr(f.conn)}
	var text []byte
	var err error
	if a, ok := f.conn.(association); ok {
		if _, err = a.Write([]byte("?\n")); err == nil {
			text, err = receive(a)
		}
	} else if ip, ok := f.conn.(*net.IPConn); ok {
		var in sctpPacket
		in, err = f.exchange(ip, sctpPacket{chunk: sctpHeartbeat, verificationTag: f.theirs},
			sctpHeartbeatAck)
		text = in.data
	} else {
		text, err = ask(f.conn, f.srcPort, f.dstPort)
	}
	return result.answered(text, err)
}

// exchange sends a packet and returns the answer with that chunk.
func (f *Flow) exchange(conn *net.IPConn, out sctpPacket, want byte) (sctpPacket, error) {
	out.srcPort, out.dstPort = f.srcPort, f.dstPort
	return exchangeSCTP(conn, out, f.ours, want)
}

// Close closes the socket, without a farewell.
func (f *Flow) Close() error { return f.conn.Close() }

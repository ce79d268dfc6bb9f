package service

import "fmt"

// Protocol is the IANA number of a transport protocol.
type Protocol uint8

const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// Protocols returns the protocols that a Service can have, in a fixed order.
func Protocols() []Protocol { return []Protocol{TCP, UDP, SCTP} }

// String returns nft's name of the protocol: tcp, udp or sctp.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("%d", uint8(p))
}

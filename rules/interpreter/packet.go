package interpreter

import (
	"net/netip"

	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Packet is the first packet of a connection.
type Packet struct {
	Src, Dst netip.Addr
	Protocol service.Protocol
	Port     uint16 // destination
	// Interface is the name of the interface on which the packet arrived. It is empty for a packet of the host
	// itself, which passes the hook output and not prerouting.
	Interface string
	// Socket says that another proxy took the packet for a socket of its own before the nat hooks (TPROXY).
	Socket bool
}

// Tables are nftproxy's tables: those that are desired, or those in the kernel.
type Tables interface {
	// BaseChains returns the base chains of the table of the family.
	BaseChains(service.Family) ([]nftables.Chain, error)
	// Chain returns a chain, and false if the table does not have it.
	Chain(f service.Family, name string) (nftables.Chain, bool, error)
	// Element returns an element, and false if the table does not have it.
	Element(nftables.ElementID) (nftables.Element, bool, error)
}

// Verdict is how the rules leave a connection.
type Verdict int

const (
	Untouched  Verdict = iota // as it is
	Translated                // to an endpoint
	Refused                   // by a reset or an ICMP error
	Dropped                   // without an answer
)

// String returns the verdict in one word.
func (v Verdict) String() string {
	return [...]string{"untouched", "endpoint", "refused", "dropped"}[v]
}

// Outcome is one way in which the connection can go.
type Outcome struct {
	Verdict     Verdict
	Endpoint    service.Backend // of Translated
	Masqueraded bool            // the endpoint sees an address of the host as the client
	Remembered  *Client         // what the map of clients has afterwards; nil: the rules did not write to it
	Steps       *Step           // the last one; those before it are linked
}

// Client is an entry of the map of clients of session affinity.
type Client struct {
	ID     nftables.ElementID
	Number nftables.Class // of the endpoint
	Known  bool           // the map had the entry
}

// Step is a rule that the packet met.
type Step struct {
	Before *Step // nil: this is the first one
	Family service.Family
	Hook   string
	Chain  string
	Rule   nftables.Rule
	// Result says what the rule did, in a few words: "no match: ...", or what its statements did.
	Result string
}

// Text returns the rule in nft's language.
func (s *Step) Text() string { return s.Rule.Text(s.Family) }

// List returns the steps up to this one, the first one first.
func (s *Step) List() []*Step {
	var list []*Step
	for ; s != nil; s = s.Before {
		list = append(list, s)
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list
}

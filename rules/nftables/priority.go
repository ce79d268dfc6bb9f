package nftables

import (
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// SetPriority sets the priority of the packet to the number that the map has for the fields. It does not
// match when the map does not have the fields.
//
// The priority (skb->priority) is the one register that nft can write and read by name within a rule, so that
// a number from one map can be a part of the key of the next one. nft 1.0.6 aborts on nested lookups.
type SetPriority struct {
	Key []Field
	Map string
}

func (s SetPriority) text(f service.Family) string {
	return fmt.Sprintf("meta priority set %s map @%s", keyText(s.Key, f), s.Map)
}

func (s SetPriority) expressions(f service.Family) []expr.Any {
	return append(loadKey(s.Key, f),
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: s.Map,
			IsDestRegSet: true, DestRegister: unix.NFT_REG_1},
		writePriority())
}

func (s SetPriority) requires(service.Family) string { return keyRequires(s.Key) }

// Recall sets the priority of the packet to the number that the map has for the client of the frontend. It
// does not match when the map does not have the client.
type Recall struct{ Map string }

func (s Recall) text(f service.Family) string { return s.set(f).text(f) }

func (s Recall) expressions(f service.Family) []expr.Any { return s.set(f).expressions(f) }

func (s Recall) requires(f service.Family) string { return s.set(f).requires(f) }

func (s Recall) set(f service.Family) SetPriority { return SetPriority{Key: ClientKey(f), Map: s.Map} }

// TakeTurn sets the priority of the packet to the numbers from 1 to N in turn. The kernel counts for each
// rule that has the statement.
type TakeTurn struct{ N int }

func (s TakeTurn) text(service.Family) string {
	return fmt.Sprintf("meta priority set numgen inc mod %d offset 1", s.N)
}

func (s TakeTurn) expressions(service.Family) []expr.Any {
	return []expr.Any{
		&expr.Numgen{Register: unix.NFT_REG_1, Modulus: uint32(s.N), Type: unix.NFT_NG_INCREMENTAL, Offset: 1},
		writePriority(),
	}
}

func (s TakeTurn) requires(service.Family) string { return core + ", " + numgenRequires }

// ClearPriority sets the priority of the packet back to none.
type ClearPriority struct{}

func (ClearPriority) text(service.Family) string { return "meta priority set none" }

func (ClearPriority) expressions(service.Family) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: unix.NFT_REG_1, Data: make([]byte, 4)}, writePriority()}
}

func (ClearPriority) requires(service.Family) string { return core }

func writePriority() expr.Any {
	return &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: unix.NFT_REG_1, SourceRegister: true}
}

// Remember maps the client of the frontend to the number in the priority, for the given time. If the map has
// the client already, it keeps its number and its time starts anew. It does not match when the map is full.
type Remember struct {
	Map     string
	Timeout time.Duration
}

func (s Remember) text(f service.Family) string {
	return fmt.Sprintf("update @%s { %s timeout %ds : meta priority }",
		s.Map, keyText(ClientKey(f), f), int(s.Timeout.Seconds()))
}

func (s Remember) expressions(f service.Family) []expr.Any {
	e := dynset(s.Map, unix.NFT_DYNSET_OP_UPDATE)
	e.Timeout = s.Timeout
	return append(loadClient(f), e)
}

func (Remember) requires(f service.Family) string { return keyRequires(ClientKey(f)) }

// Forget deletes the client of the frontend from the map, if the map has it. It always matches.
type Forget struct{ Map string }

func (s Forget) text(f service.Family) string {
	return fmt.Sprintf("delete @%s { %s : meta priority }", s.Map, keyText(ClientKey(f), f))
}

func (s Forget) expressions(f service.Family) []expr.Any {
	return append(loadClient(f), dynset(s.Map, dynsetDelete))
}

func (Forget) requires(f service.Family) string { return keyRequires(ClientKey(f)) + ", Linux 5.5" }

// dynsetDelete is NFT_DYNSET_OP_DELETE of linux/netfilter/nf_tables.h.
const dynsetDelete = 2

// loadClient loads the key into register 1 and the priority into register 2, where nft puts data.
func loadClient(f service.Family) []expr.Any {
	return append(loadKey(ClientKey(f), f), Priority.loadOne(f, unix.NFT_REG_2))
}

func dynset(set string, operation uint32) *expr.Dynset {
	return &expr.Dynset{
		SrcRegKey: unix.NFT_REG_1, SrcRegData: unix.NFT_REG_2, SetName: set, Operation: operation,
	}
}

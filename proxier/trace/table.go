package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TableName is the name of the table, in the family of the packets.
const TableName = "nftproxy-trace"

// Names of what is in the table.
const (
	targetSet        = "targets"
	chainPrerouting  = "prerouting"
	chainOutput      = "output"
	chainInput       = "input"
	chainPostrouting = "postrouting"
)

// Packets are marked before others look at them, but after IP fragments are put together (-400), and seen
// again behind all others.
const (
	first = -350
	last  = 1 << 30
)

// Packets that get the mark: so many at once, and then so many a second.
const (
	burst = 10
	rate  = 10
)

// tableOwned is NFT_TABLE_F_OWNER (Linux 5.12).
const tableOwned = 2

// Selection says which packets are traced.
type Selection struct {
	To   service.Frontend
	From netip.Addr // not valid: any
	// Local selects packets of this node only.
	Local bool
	// For is how long packets are selected at most.
	For time.Duration
}

func (s Selection) family() service.Family { return service.FamilyOf(s.To.Addr) }

// key returns the fields that select packets.
func (s Selection) key() []nftables.Field {
	if s.From.IsValid() {
		return append([]nftables.Field{nftables.SrcAddr}, nftables.FrontendKey()...)
	}
	return nftables.FrontendKey()
}

// install makes the table. It replaces one that a process left on Linux before 5.12, which refuses the flag.
func (s Selection) install(c *netlink.Conn) error {
	err := c.Commit(s.table(tableOwned))
	if errors.Is(err, unix.EPERM) && !errors.Is(err, netlink.ErrPermission) {
		return fmt.Errorf("add table %s %s: another nftproxy explain --live runs on this node, "+
			"wait for its end: %w", s.family(), TableName, err)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = c.Commit(s.table(0))
	}
	if err != nil {
		return fmt.Errorf("add table %s %s: %w", s.family(), TableName, err)
	}
	return nil
}

// table returns the batch that makes the table:
//
//	table ip nftproxy-trace {
//		set targets { type ipv4_addr . inet_proto . inet_service; flags timeout; elements = { ... } }
//		chain prerouting {
//			type filter hook prerouting priority -350;
//			ip daddr . meta l4proto . th dport @targets limit rate 10/second burst 10 packets meta nftrace set 1
//		}
//		chain output { type filter hook output priority -350; ... the same rule }
//		chain input { type filter hook input priority 1073741824; }
//		chain postrouting { type filter hook postrouting priority 1073741824; }
//	}
func (s Selection) table(flags uint32) *netlink.Batch {
	b := &netlink.Batch{}
	s.message(b, unix.NFT_MSG_NEWTABLE, 0)
	s.message(b, unix.NFT_MSG_DELTABLE, 0)
	s.message(b, unix.NFT_MSG_NEWTABLE, flags)
	s.appendSet(b)
	s.appendTarget(b)
	s.appendChain(b, chainInput, unix.NF_INET_LOCAL_IN, last)
	s.appendChain(b, chainPostrouting, unix.NF_INET_POST_ROUTING, last)
	if !s.Local {
		s.appendChain(b, chainPrerouting, unix.NF_INET_PRE_ROUTING, first)
		s.appendRule(b, chainPrerouting)
	}
	s.appendChain(b, chainOutput, unix.NF_INET_LOCAL_OUT, first)
	s.appendRule(b, chainOutput)
	return b
}

// message appends a message about the table.
func (s Selection) message(b *netlink.Batch, msgType uint16, flags uint32) {
	create := uint16(0)
	if msgType == unix.NFT_MSG_NEWTABLE {
		create = unix.NLM_F_CREATE
	}
	b.Message(msgType, create, s.family().Number())
	b.String(unix.NFTA_TABLE_NAME, TableName)
	if flags != 0 {
		b.U32(unix.NFTA_TABLE_FLAGS, flags)
	}
}

func (s Selection) appendChain(b *netlink.Batch, name string, hook uint32, priority int32) {
	b.Message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, s.family().Number())
	b.String(unix.NFTA_CHAIN_TABLE, TableName)
	b.String(unix.NFTA_CHAIN_NAME, name)
	nest := b.Nest(unix.NFTA_CHAIN_HOOK)
	b.U32(unix.NFTA_HOOK_HOOKNUM, hook)
	b.U32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
	b.EndNest(nest)
	b.String(unix.NFTA_CHAIN_TYPE, "filter")
}

// appendSet appends the set that selects packets. The type is for nft to list it: 6 bits for each field, by
// nftables' enum datatypes (ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13).
func (s Selection) appendSet(b *netlink.Batch) {
	addr, size := uint32(7), s.family().AddrSize()
	if s.family() == service.IPv6 {
		addr = 8
	}
	typ, length := addr<<12|12<<6|13, size+8
	if s.From.IsValid() {
		typ, length = addr<<18|typ, length+size
	}
	b.Message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.family().Number())
	b.String(unix.NFTA_SET_TABLE, TableName)
	b.String(unix.NFTA_SET_NAME, targetSet)
	b.U32(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT)
	b.U32(unix.NFTA_SET_KEY_TYPE, typ)
	b.U32(unix.NFTA_SET_KEY_LEN, uint32(length))
	b.U32(unix.NFTA_SET_ID, 1)
}

// appendTarget appends the element that selects packets, until its timeout.
func (s Selection) appendTarget(b *netlink.Batch) {
	header := nftables.Header{Src: s.From, Dst: s.To.Addr, Protocol: s.To.Protocol, Port: s.To.Port}
	size := 0
	for _, field := range s.key() {
		size += (field.Size(s.family()) + 3) &^ 3
	}
	key := header.Key(s.key())
	b.Message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, s.family().Number())
	b.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	b.String(unix.NFTA_SET_ELEM_LIST_SET, targetSet)
	list := b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	element := b.Nest(unix.NFTA_LIST_ELEM)
	value := b.Nest(unix.NFTA_SET_ELEM_KEY)
	b.Bytes(unix.NFTA_DATA_VALUE, key[:size])
	b.EndNest(value)
	b.U64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(s.For.Milliseconds()))
	b.EndNest(element)
	b.EndNest(list)
}

// appendRule appends the rule that marks packets.
func (s Selection) appendRule(b *netlink.Batch, chain string) {
	selects := nftables.Rule{nftables.InSet{Key: s.key(), Set: targetSet}}
	expressions := append(selects.Expressions(s.family()),
		&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst},
		&expr.Immediate{Register: unix.NFT_REG_1, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: unix.NFT_REG_1})
	b.Message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, s.family().Number())
	b.String(unix.NFTA_RULE_TABLE, TableName)
	b.String(unix.NFTA_RULE_CHAIN, chain)
	list := b.Nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range expressions {
		encoded, err := expr.Marshal(s.family().Number(), e)
		if err != nil {
			panic("a constant expression cannot be encoded: " + err.Error())
		}
		b.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, encoded)
	}
	b.EndNest(list)
}

// Cleanup removes what a trace left on Linux before 5.12. It returns the families that had a table. A table
// with an owner is that of a trace that runs, and stays.
func Cleanup() (found []service.Family, err error) {
	c, err := netlink.Dial()
	if err != nil {
		return nil, fmt.Errorf("remove table %s: %w", TableName, err)
	}
	defer c.Close()
	for _, f := range service.Families() {
		s := Selection{To: service.Frontend{Addr: anyAddr(f)}}
		_, owner, exists, err := c.Table(f.Number(), TableName)
		if err != nil {
			return found, err
		}
		if !exists || owner != 0 {
			continue
		}
		b := &netlink.Batch{}
		s.message(b, unix.NFT_MSG_DELTABLE, 0)
		if err := c.Commit(b); err != nil {
			return found, fmt.Errorf("delete table %s %s: %w", f, TableName, err)
		}
		found = append(found, f)
	}
	return found, nil
}

func anyAddr(f service.Family) netip.Addr {
	if f == service.IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

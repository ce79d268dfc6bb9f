package nft

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
)

const (
	probeTable     = "nftproxy-probe" // never committed
	probeSetConcat = 0x80             // NFT_SET_CONCAT
)

// Missing is something that the kernel does not do and the ruleset needs.
type Missing struct {
	Family  string // ip or ip6
	Feature string
	Needs   string // kernel options, modules or the version that bring it
	Err     error  // what the kernel said
}

func (m Missing) String() string {
	return fmt.Sprintf("%s %s: needs %s (%v)", m.Family, m.Feature, m.Needs, m.Err)
}

// Probe finds out which features of the ruleset the kernel lacks. It asks by checks that are not committed, first for
// all at once and then, if that is refused, one by one: each takes the kernel a while (15 ms on 6.18), for it waits for
// readers of what it drops. It may load modules for them. An error, such as ErrPermission, says that nothing was found out.
func Probe(opts Options) (missing []Missing, err error) {
	c, err := Dial(opts)
	if err != nil {
		return nil, fmt.Errorf("probe nftables: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	families := probeFamilies()
	var all Batch
	for _, family := range families {
		for _, feature := range family.features() {
			if err := family.build(&all, feature); err != nil {
				return nil, fmt.Errorf("probe nftables: %w", err)
			}
		}
	}
	if refused, err := c.probe(&all); refused == nil && err == nil {
		return nil, nil
	}
	for _, family := range families {
		found, err := family.probe(c)
		if err != nil {
			return nil, fmt.Errorf("probe nftables: %w", err)
		}
		missing = append(missing, found...)
	}
	return missing, nil
}

// probe checks a batch and keeps apart what the kernel does not do from what has nothing to do with the batch.
func (c *Conn) probe(b *Batch) (refused *Error, err error) {
	err = c.Check(b)
	if errors.As(err, &refused) && !errors.Is(err, ErrPermission) && refused.Errno != unix.ENOMEM {
		return refused, nil
	}
	return nil, err
}

// probeFamily is what differs between the families.
type probeFamily struct {
	name        string
	options     string // the suffix of kernel options
	number      uint8
	destination uint32 // offset of the destination address in the network header
	address     uint32 // bytes of an address
	ctOriginal  expr.CtKey
}

func probeFamilies() []probeFamily {
	return []probeFamily{
		{"ip", "IPV4", unix.NFPROTO_IPV4, 16, 4, expr.CtKeyDSTIP},
		{"ip6", "IPV6", unix.NFPROTO_IPV6, 24, 16, expr.CtKeyDSTIP6},
	}
}

// probeFeature is a rule with the sets it uses, in a nat chain of a hook or, without one, in a plain chain.
type probeFeature struct {
	name  string
	needs string
	chain *probeHook
	sets  []probeSet
	rule  []expr.Any
}

type probeHook struct {
	number   uint32
	priority int32
}

type probeSet struct {
	name     string
	flags    uint32
	fields   []uint32 // bytes of each part of the key
	dataType uint32
	data     uint32 // bytes
}

func (f probeFamily) probe(c *Conn) ([]Missing, error) {
	var missing []Missing
	for i, feature := range f.features() {
		var b Batch
		if err := f.build(&b, feature); err != nil {
			return nil, err
		}
		refused, err := c.probe(&b)
		if err != nil {
			return nil, err
		}
		if refused == nil {
			continue
		}
		missing = append(missing, Missing{Family: f.name, Feature: feature.name, Needs: feature.needs, Err: refused})
		if i == 0 {
			break // no table, nothing in it
		}
	}
	return missing, nil
}

// features lists everything the ruleset is made of; the first is a table with nothing in it.
func (f probeFamily) features() []probeFeature {
	frontend := []uint32{f.address, 1, 2}
	mark := []byte{0, 0, 0x40, 0}
	all := []probeFeature{
		{name: "table", needs: "CONFIG_NF_TABLES, CONFIG_NF_TABLES_" + f.options + " (module nf_tables)"},
		{name: "fib daddr type", needs: "CONFIG_NFT_FIB_" + f.options + " (module nft_fib)", rule: []expr.Any{
			&expr.Fib{Register: unix.NFT_REG_1, ResultADDRTYPE: true, FlagDADDR: true}}},
		{name: "numgen random", needs: "CONFIG_NFT_NUMGEN (module nft_numgen)", rule: []expr.Any{
			&expr.Numgen{Register: unix.NFT_REG_1, Modulus: 3, Type: unix.NFT_NG_RANDOM}}},
		{name: "ct status, ct original", needs: "CONFIG_NFT_CT (module nft_ct), Linux 4.17", rule: []expr.Any{
			&expr.Ct{Register: unix.NFT_REG_1, Key: expr.CtKeySTATUS},
			&expr.Ct{Register: unix.NFT_REG_1, Key: f.ctOriginal, Direction: expr.CtDirOriginal},
			&expr.Ct{Register: unix.NFT_REG_1, Key: expr.CtKeyPROTODST, Direction: expr.CtDirOriginal}}},
		{name: "mark", needs: "CONFIG_NF_TABLES (module nf_tables)", rule: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
			&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: mark, Xor: mark},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1, SourceRegister: true}}},
		{name: "verdict map with concatenated key", needs: "CONFIG_NF_TABLES (module nf_tables)",
			sets: []probeSet{{name: "services", flags: unix.NFT_SET_MAP, fields: frontend, dataType: unix.NFT_DATA_VERDICT}},
			rule: f.frontend(&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "services", IsDestRegSet: true})},
		{name: "concatenated intervals", needs: "Linux 5.6",
			sets: []probeSet{{name: "allowed", flags: unix.NFT_SET_INTERVAL | probeSetConcat, fields: frontend}},
			rule: f.frontend(&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "allowed", Invert: true})},
		{name: "map updated by a rule", needs: "CONFIG_NF_TABLES (module nf_tables)",
			sets: []probeSet{{name: "affinity", flags: unix.NFT_SET_MAP | unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
				fields: frontend, data: f.address + 4}},
			rule: f.frontend(&expr.Dynset{SrcRegKey: unix.NFT_REG_1, SrcRegData: unix.NFT_REG_1, SetName: "affinity",
				Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: 3 * time.Hour})},
	}
	return append(all, f.hookedFeatures(append(frontend, 4))...)
}

// hookedFeatures are those that depend on the hook their chain is called from; slot is the key of an endpoint.
func (f probeFamily) hookedFeatures(slot []uint32) []probeFeature {
	reject := expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}
	prerouting := &probeHook{unix.NF_INET_PRE_ROUTING, -100}
	input := &probeHook{unix.NF_INET_LOCAL_IN, 99}
	output := &probeHook{unix.NF_INET_LOCAL_OUT, -100}
	postrouting := &probeHook{unix.NF_INET_POST_ROUTING, 100}
	const chains = "CONFIG_NFT_NAT (modules nft_chain_nat, nft_nat)"
	rejects := "CONFIG_NFT_REJECT, CONFIG_NFT_REJECT_" + f.options + " (module nft_reject)"
	return []probeFeature{
		{name: "nat prerouting", needs: chains, chain: prerouting},
		{name: "nat input", needs: chains, chain: input},
		{name: "nat output", needs: chains, chain: output},
		{name: "nat postrouting", needs: chains, chain: postrouting},
		{name: "reject in prerouting", needs: rejects + ", Linux 5.9", chain: prerouting, rule: []expr.Any{&reject}},
		{name: "reject in output", needs: rejects, chain: output, rule: []expr.Any{&reject}},
		{name: "masquerade fully-random", needs: "CONFIG_NFT_MASQ (module nft_masq)", chain: postrouting,
			rule: []expr.Any{&expr.Masq{FullyRandom: true}}},
		{name: "dnat to the data of a map", needs: chains, chain: prerouting,
			sets: []probeSet{{name: "endpoints", flags: unix.NFT_SET_MAP, fields: slot, data: f.address + 4}},
			rule: f.frontend(
				&expr.Numgen{Register: f.after(2), Modulus: 3, Type: unix.NFT_NG_RANDOM},
				&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "endpoints", IsDestRegSet: true, DestRegister: unix.NFT_REG_1},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.number), RegAddrMin: unix.NFT_REG_1,
					RegProtoMin: f.after(0), Specified: true})},
	}
}

// after is the register behind an address in NFT_REG_1 and n registers of four bytes.
func (f probeFamily) after(n uint32) uint32 { return unix.NFT_REG32_00 + f.address/4 + n }

// frontend loads ip daddr . meta l4proto . th dport into NFT_REG_1 and what follows it.
func (f probeFamily) frontend(then ...expr.Any) []expr.Any {
	return append([]expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: f.destination, Len: f.address},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: f.after(0)},
		&expr.Payload{DestRegister: f.after(1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}, then...)
}

func (f probeFamily) build(b *Batch, feature probeFeature) error {
	chain := feature.name // one for each
	b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, f.number)
	b.String(unix.NFTA_TABLE_NAME, probeTable)
	b.U32(unix.NFTA_TABLE_FLAGS, 0)
	for i, s := range feature.sets {
		f.buildSet(b, s, uint32(i+1))
	}
	if feature.chain == nil && feature.rule == nil {
		return nil
	}
	b.Message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, f.number)
	b.String(unix.NFTA_CHAIN_TABLE, probeTable)
	b.String(unix.NFTA_CHAIN_NAME, chain)
	if hook := feature.chain; hook != nil {
		nest := b.Nest(unix.NFTA_CHAIN_HOOK)
		b.U32(unix.NFTA_HOOK_HOOKNUM, hook.number)
		b.U32(unix.NFTA_HOOK_PRIORITY, uint32(hook.priority))
		b.EndNest(nest)
		b.String(unix.NFTA_CHAIN_TYPE, "nat")
	}
	if feature.rule == nil {
		return nil
	}
	b.Message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, f.number)
	b.String(unix.NFTA_RULE_TABLE, probeTable)
	b.String(unix.NFTA_RULE_CHAIN, chain)
	nest := b.Nest(unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range feature.rule {
		encoded, err := expr.Marshal(f.number, e)
		if err != nil {
			return fmt.Errorf("encode %s of %s: %w", feature.name, f.name, err)
		}
		b.Bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, encoded)
	}
	b.EndNest(nest)
	return nil
}

func (f probeFamily) buildSet(b *Batch, s probeSet, id uint32) {
	const (
		descConcat = 2 // NFTA_SET_DESC_CONCAT
		fieldLen   = 1 // NFTA_SET_FIELD_LEN
	)
	var key uint32
	for _, n := range s.fields {
		key += uint32(netfilter.Align(int(n)))
	}
	b.Message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, f.number)
	b.String(unix.NFTA_SET_TABLE, probeTable)
	b.String(unix.NFTA_SET_NAME, s.name)
	b.U32(unix.NFTA_SET_ID, id)
	b.U32(unix.NFTA_SET_FLAGS, s.flags)
	b.U32(unix.NFTA_SET_KEY_TYPE, 0)
	b.U32(unix.NFTA_SET_KEY_LEN, key)
	if s.flags&unix.NFT_SET_MAP != 0 {
		b.U32(unix.NFTA_SET_DATA_TYPE, s.dataType)
		b.U32(unix.NFTA_SET_DATA_LEN, s.data)
	}
	if s.flags&probeSetConcat == 0 {
		return // the kernel refuses a description of the fields without the flag
	}
	description := b.Nest(unix.NFTA_SET_DESC)
	fields := b.Nest(descConcat)
	for _, n := range s.fields {
		field := b.Nest(unix.NFTA_LIST_ELEM)
		b.U32(fieldLen, n)
		b.EndNest(field)
	}
	b.EndNest(fields)
	b.EndNest(description)
}

package fakekernel

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// The Kernel is stricter than Linux where only a mistake in package rules can lead to a change. It also
// refuses
//
//   - a table that exists, and a chain that a transaction adds twice
//   - the deletion of an element with data or a comment that it does not have; Linux compares the key
//   - a set of another layout than the existing one of this name; Linux does since 6.2
//   - a lookup with a key of another length than the set's, or with other data than the map's
//   - the statement that forgets a client, in a map that rules do not fill
//   - a source range that contains one in the set; Linux looks up the ends of the new one
//   - a timeout of less than a second, which the text in nft's language does not show

// maxName is how long names of sets and chains can be: NFT_NAME_MAXLEN of linux/netfilter/nf_tables.h without
// the 0.
const maxName = 255

// refuse returns the kernel's error for a message.
func refuse(errno unix.Errno, format string, args ...any) error {
	return &netlink.Error{Errno: errno, What: fmt.Sprintf(format, args...)}
}

func (ts Tables) refuseSet(s nftables.Set) error {
	t := ts[s.ID.Family]
	switch {
	case len(s.Name) > maxName:
		return refuse(unix.ERANGE, "add set %s %s", s.ID.Family, s.Name)
	case t == nil:
		return refuse(unix.ENOENT, "add set %s %s", s.ID.Family, s.Name)
	}
	if old, found := t.Sets[s.Name]; found && old != s {
		return refuse(unix.EEXIST, "add set %s %s", s.ID.Family, s.Name)
	}
	return nil
}

func (ts Tables) refuseChain(c nftables.Chain) error {
	t := ts[c.Family]
	switch {
	case len(c.Name) > maxName:
		return refuse(unix.ERANGE, "add chain %s %s", c.Family, c.Name)
	case t == nil:
		return refuse(unix.ENOENT, "add chain %s %s", c.Family, c.Name)
	}
	if old, found := t.Chains[c.Name]; found && !sameHook(old, c) {
		return refuse(unix.EOPNOTSUPP, "add chain %s %s on another hook", c.Family, c.Name)
	}
	return nil
}

// refuseRule checks what the statements of a rule refer to.
func (t *Table) refuseRule(c nftables.Chain, rule nftables.Rule) error {
	for _, s := range rule {
		errno := t.refuseChainUse(s)
		if errno == 0 {
			errno = t.refuseSetUse(s, c.Family)
		}
		if errno != 0 {
			return refuse(errno, "add rule %s %s %s", c.Family, c.Name, rule.Text(c.Family))
		}
	}
	return nil
}

func (t *Table) refuseChainUse(s nftables.Statement) unix.Errno {
	_, chain := nftables.Uses(s)
	if chain == "" {
		return 0
	}
	return t.refuseTarget(chain)
}

// refuseTarget checks a chain that a rule or an element leads to.
func (t *Table) refuseTarget(chain string) unix.Errno {
	switch c, found := t.Chains[chain]; {
	case !found:
		return unix.ENOENT
	case c.Hook != nil:
		return unix.EOPNOTSUPP
	}
	return 0
}

func (t *Table) refuseSetUse(s nftables.Statement, f service.Family) unix.Errno {
	name, _ := nftables.Uses(s)
	if name == "" {
		return 0
	}
	set, found := t.Sets[name]
	if !found {
		return unix.ENOENT
	}
	if errno := refuseChange(s, set); errno != 0 {
		return errno
	}
	key, want := lookup(s, f)
	size := 0
	for _, field := range key {
		size += (field.Size(f) + 3) / 4 * 4
		if n := field.Slots(); n > nftables.SlotModulus || n == 0 && field.IsRandom() {
			return unix.ERANGE
		}
	}
	schema := set.ID.Schema()
	if size != set.ID.KeySize() || want.Verdict != schema.Verdict || !slices.Equal(want.Data, schema.Data) {
		return unix.EINVAL
	}
	return 0
}

// refuseChange checks a statement that changes a set.
func refuseChange(s nftables.Statement, set nftables.Set) unix.Errno {
	remember, remembers := s.(nftables.Remember)
	_, forgets := s.(nftables.Forget)
	switch {
	case (remembers || forgets) && !set.ID.Schema().Dynamic:
		return unix.EOPNOTSUPP
	case remembers && remember.Timeout.Seconds() < 1:
		return unix.ERANGE
	}
	return 0
}

// lookup returns the key that a statement looks up in a set, and the data that it expects.
func lookup(s nftables.Statement, f service.Family) (key []nftables.Field, want nftables.Schema) {
	class := nftables.Schema{Data: []nftables.Column{nftables.ColumnClass}}
	switch s := s.(type) {
	case nftables.InSet:
		return s.Key, nftables.Schema{}
	case nftables.Dispatch:
		return s.Key, nftables.Schema{Verdict: true}
	case nftables.DNAT:
		return s.Key, nftables.Schema{Data: []nftables.Column{nftables.ColumnAddr, nftables.ColumnPort}}
	case nftables.SetPriority:
		return s.Key, class
	case nftables.Recall, nftables.Remember, nftables.Forget:
		return nftables.ClientKey(f), class
	}
	panic(fmt.Sprintf("fakekernel does not know the lookup of %T", s))
}

func (ts Tables) refuseElement(e nftables.Element) error {
	add := func(errno unix.Errno) error { return refuse(errno, "add element %s { %s }", e.Set.Kind, e) }
	t := ts[e.Set.Family]
	if t == nil || !has(t.Sets, e.Set.Kind.String()) {
		return add(unix.ENOENT)
	}
	schema := e.Set.Schema()
	if schema.Verdict {
		if errno := t.refuseTarget(e.Chain); errno != 0 {
			return add(errno)
		}
	}
	if _, found := t.Elements[e.ElementID]; found {
		return add(unix.EEXIST)
	}
	if schema.Interval {
		for _, old := range t.Elements {
			if old.Set == e.Set && overlap(old, e) {
				return refuse(unix.EEXIST, "add element %s { %s } next to %s", e.Set.Kind, e, old)
			}
		}
	}
	return nil
}

func overlap(a, b nftables.Element) bool {
	v, w := a.KeyValues(), b.KeyValues()
	last := len(v.Addrs) - 1
	return v.Protocol == w.Protocol && v.Port == w.Port && slices.Equal(v.Addrs[:last], w.Addrs[:last]) &&
		netip.PrefixFrom(v.Addrs[last], int(a.Bits)).Overlaps(netip.PrefixFrom(w.Addrs[last], int(b.Bits)))
}

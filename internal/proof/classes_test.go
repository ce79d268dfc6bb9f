package proof

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
)

// classes has a representative of each class of each field of a packet: the first value of the class. The
// classes of packets are the product.
type classes struct {
	src, dst   []netip.Addr
	protocols  []uint8
	ports      []uint16
	entries    []entry
	marks      []uint32
	priorities []uint32
	frontends  []spec.Packet // where Services are
}

// entry is how a packet comes to the node.
type entry struct {
	iface  string // "": from the node itself
	socket bool
}

// newClasses cuts the packets of a family at the constants of rulesets and of specifications.
func newClasses(family uint8, rulesets []*bytecode.Ruleset, clusters []*spec.Cluster) (*classes, error) {
	cuts := bytecode.NewCuts()
	var frontends []spec.Packet
	for _, r := range rulesets {
		if err := cuts.Add(r, family); err != nil {
			return nil, err
		}
	}
	for _, c := range clusters {
		src, dst, ports := c.Constants()
		cutPrefixes(cuts.Src, src)
		cutPrefixes(cuts.Dst, dst)
		frontends = append(frontends, c.Frontends()...)
		for _, p := range ports {
			cuts.Port[p], cuts.Port[p+1] = true, true // behind the last port is the first one
		}
		if name := c.Config.PodInterface; name != "" {
			cuts.Interfaces[name] = true
		}
	}
	for _, p := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		cuts.Protocol[p], cuts.Protocol[p+1] = true, true
	}
	cuts.Protocol[0], cuts.Port[0], cuts.Marks[0], cuts.Priorities[0] = true, true, true, true
	first := netip.IPv4Unspecified()
	if family == unix.NFPROTO_IPV6 {
		first = netip.IPv6Unspecified()
	}
	cuts.Src[first], cuts.Dst[first] = true, true
	for n := uint32(1); ; n++ {
		if !cuts.Priorities[n] {
			cuts.Priorities[n] = true
			break
		}
	}
	frontends = slices.DeleteFunc(frontends, func(f spec.Packet) bool { return f.Dst.Is4() != first.Is4() })
	return &classes{frontends: frontends, src: ofFamily(cuts.Src, first), dst: ofFamily(cuts.Dst, first),
		protocols: sorted(cuts.Protocol), ports: sorted(cuts.Port), entries: entries(cuts),
		marks: sorted(cuts.Marks), priorities: sorted(cuts.Priorities)}, nil
}

func cutPrefixes(to map[netip.Addr]bool, prefixes []netip.Prefix) {
	for _, p := range prefixes {
		to[p.Masked().Addr()] = true
		bytes := p.Masked().Addr().AsSlice()
		for bit := p.Bits(); bit < len(bytes)*8; bit++ {
			bytes[bit/8] |= 0x80 >> (bit % 8)
		}
		if last, _ := netip.AddrFromSlice(bytes); last.Next().IsValid() {
			to[last.Next()] = true
		}
	}
}

// entries returns the ways in: from the node, and from interfaces with each name that the rules distinguish,
// and with names close to them.
func entries(cuts *bytecode.Cuts) []entry {
	names := map[string]bool{"eth0": true}
	for pattern := range cuts.Interfaces {
		name := strings.TrimSuffix(pattern, "*")
		for _, n := range []string{name, name + "0", name[:len(name)-1]} {
			if n != "" && len(n) < unix.IFNAMSIZ && !strings.ContainsAny(n, ":/ ") {
				names[n] = true
			}
		}
	}
	out := []entry{{}}
	for _, n := range sorted(names) {
		out = append(out, entry{iface: n})
		if cuts.Socket {
			out = append(out, entry{n, true})
		}
	}
	return out
}

func sorted[K cmp.Ordered](set map[K]bool) []K { return slices.Sorted(maps.Keys(set)) }

func ofFamily(set map[netip.Addr]bool, like netip.Addr) []netip.Addr {
	var out []netip.Addr
	for a := range set {
		if a.Is4() == like.Is4() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// count returns the number of classes.
func (c *classes) count() int {
	return len(c.src) * len(c.dst) * len(c.protocols) * len(c.ports) * len(c.entries) * len(c.marks) *
		len(c.priorities)
}

// packet returns the packet of the class i.
func (c *classes) packet(i int) bytecode.Packet {
	next := func(n int) int {
		at := i % n
		i /= n
		return at
	}
	in := c.entries[next(len(c.entries))]
	return bytecode.Packet{
		Interface: in.iface, Socket: in.socket,
		Port: c.ports[next(len(c.ports))], Protocol: c.protocols[next(len(c.protocols))],
		Dst: c.dst[next(len(c.dst))], Src: c.src[next(len(c.src))],
		Mark: c.marks[next(len(c.marks))], Priority: c.priorities[next(len(c.priorities))],
	}
}

// visit calls each with the packets of all classes if there are no more than n, and otherwise with a sample:
// those that go from everywhere to a Service, and n that are spread evenly, as a step without a common
// divisor comes to each class once. It returns how many it visited.
func (c *classes) visit(n int, each func(bytecode.Packet)) int {
	total := c.count()
	if n >= total {
		for i := range total {
			each(c.packet(i))
		}
		return total
	}
	visited := n
	for _, f := range c.frontends {
		for _, src := range c.src {
			for _, in := range c.entries {
				visited++
				each(bytecode.Packet{Src: src, Dst: f.Dst, Protocol: f.Protocol, Port: f.Port,
					Interface: in.iface, Socket: in.socket})
			}
		}
	}
	step := int(float64(total) * 0.618)
	for gcd(step, total) > 1 {
		step++
	}
	for i, at := 0, 0; i < n; i, at = i+1, (at+step)%total {
		each(c.packet(at))
	}
	return visited
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

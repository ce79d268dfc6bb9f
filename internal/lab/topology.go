package lab

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// address is a party of the lab with its machine and addresses.
type address struct {
	name, machine string
	v4, v6        netip.Addr
	bind          bool
}

func addresses() []address {
	ip := netip.MustParseAddr
	return []address{
		{"host-pod", "node", ip("192.0.2.1"), ip("2001:db8::1"), false},
		{"pod-a", "pod-a", ip("10.244.1.11"), ip("fd00:10:244:1::11"), false},
		{"pod-b", "pod-b", ip("10.244.1.12"), ip("fd00:10:244:1::12"), false},
		{"node-b", "node-b", ip("192.0.2.2"), ip("2001:db8::2"), true},
		{"pod-c", "node-b", ip("10.244.2.11"), ip("fd00:10:244:2::11"), true},
		{"pod-d", "node-b", ip("10.244.2.12"), ip("fd00:10:244:2::12"), true},
		{"client", "client", ip("192.0.2.100"), ip("2001:db8::100"), true},
		{"client-2", "client", ip("192.0.2.101"), ip("2001:db8::101"), true},
	}
}

// gateway4 and gateway6 are the router of pods on the node under test.
const gateway4, gateway6 = "10.244.1.1", "fe80::1"

// everyMachine returns settings that make a namespace independent of the host's defaults. They are applied
// before there are devices, which inherit them.
func everyMachine() []setting {
	return []setting{
		{path: "ipv4/conf/*/rp_filter", value: "0"},
		// A pod that learns a shorter way to its peer no longer sends through the node under test.
		{path: "ipv4/conf/*/send_redirects", value: "0"},
		{path: "ipv4/conf/*/accept_redirects", value: "0"},
		{path: "ipv6/conf/*/accept_redirects", value: "0"},
		{path: "ipv6/conf/*/disable_ipv6", value: "0"},
		{path: "ipv6/conf/*/accept_dad", value: "0"},
		{path: "ipv6/conf/*/accept_ra", value: "0"},
		// Every refused request must get its ICMP error, however many there are per second.
		{path: "ipv4/icmp_ratemask", value: "0"},
		{path: "ipv6/icmp/ratemask", value: "0"},
		// Bridges must not call the rules of IP: packets are translated when they are routed.
		{path: "bridge/bridge-nf-call-iptables", value: "0", optional: true},
		{path: "bridge/bridge-nf-call-ip6tables", value: "0", optional: true},
	}
}

func router() []setting {
	return []setting{{path: "ipv4/ip_forward", value: "1"}, {path: "ipv6/conf/all/forwarding", value: "1"}}
}

// externalRanges returns the ranges of load-balancer and external IPs.
func externalRanges() []string {
	return []string{"198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::/64"}
}

// wiring has the netlink connections into the machines while New creates the lab.
type wiring struct {
	machines map[string]*Namespace
	handles  map[string]*netlink.Handle
}

func (l *Lab) wire(opts Options) error {
	w := wiring{l.machines, map[string]*netlink.Handle{}}
	defer w.close()
	// Forwarding comes first: the kernel resets other settings with it.
	if err := l.Node().apply(router()); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	for name, ns := range l.machines {
		if err := ns.apply(everyMachine()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		h, err := ns.handle()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		w.handles[name] = h
	}
	steps := []func() error{
		w.network,
		func() error { return w.localPods(opts) },
		w.addresses,
		w.routes,
		w.waitUp,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	var err error
	l.nodeAddrs, err = w.addressesOf("node")
	return err
}

func (w *wiring) close() {
	for _, h := range w.handles {
		h.Close()
	}
}

// network connects the machines by a bridge.
func (w *wiring) network() error {
	if err := w.bridge("lan", "lan0"); err != nil {
		return err
	}
	for _, machine := range []string{"node", "node-b", "client"} {
		if err := w.cable("lan", machine, machine); err != nil {
			return err
		}
		if err := w.enslave("lan", machine, "lan0"); err != nil {
			return err
		}
	}
	return nil
}

// localPods connects the node under test with its pods.
func (w *wiring) localPods(opts Options) error {
	if opts.Bridge {
		if err := w.bridge("node", "cni0"); err != nil {
			return err
		}
		if err := w.addAddrs("node", "cni0", gateway4+"/32", gateway6+"/64"); err != nil {
			return err
		}
	}
	for _, a := range addresses() {
		if a.name != "pod-a" && a.name != "pod-b" {
			continue
		}
		port := "veth-" + a.name
		if err := w.cable("node", port, a.machine); err != nil {
			return err
		}
		facing := port
		if opts.Bridge {
			facing = "cni0"
			if err := w.enslave("node", port, facing); err != nil {
				return err
			}
		} else if err := w.addAddrs("node", port, gateway4+"/32", gateway6+"/64"); err != nil {
			return err
		}
		for _, ip := range []netip.Addr{a.v4, a.v6} {
			if err := w.route("node", netip.PrefixFrom(ip, ip.BitLen()).String(), "", facing); err != nil {
				return err
			}
		}
	}
	return nil
}

// addresses gives every party its addresses. Pods have an address without a network; those of node-b are on
// its lo.
func (w *wiring) addresses() error {
	for _, a := range addresses() {
		dev, v4, v6 := "eth0", "/24", "/64"
		if a.name[:3] == "pod" {
			v4, v6 = "/32", "/128"
			if a.machine != a.name {
				dev = "lo"
			}
		}
		if err := w.addAddrs(a.machine, dev, a.v4.String()+v4, a.v6.String()+v6); err != nil {
			return err
		}
	}
	return nil
}

func (w *wiring) routes() error {
	type route struct{ machine, to, via string }
	routes := []route{
		{"pod-a", gateway4 + "/32", ""}, {"pod-a", "0.0.0.0/0", gateway4}, {"pod-a", "::/0", gateway6},
		{"pod-b", gateway4 + "/32", ""}, {"pod-b", "0.0.0.0/0", gateway4}, {"pod-b", "::/0", gateway6},
		{"node", "10.244.2.0/24", "192.0.2.2"}, {"node", "fd00:10:244:2::/64", "2001:db8::2"},
		{"node-b", "10.244.1.0/24", "192.0.2.1"}, {"node-b", "fd00:10:244:1::/64", "2001:db8::1"},
		// Requests of the node itself need a route before they are translated. node-b does not forward: it
		// drops packets that arrive untranslated, without an error.
		{"node", "0.0.0.0/0", "192.0.2.2"}, {"node", "::/0", "2001:db8::2"},
		{"client", "10.96.0.0/16", "192.0.2.1"}, {"client", "fd00:10:96::/112", "2001:db8::1"},
	}
	for _, to := range externalRanges() {
		via := "192.0.2.1"
		if netip.MustParsePrefix(to).Addr().Is6() {
			via = "2001:db8::1"
		}
		routes = append(routes, route{"client", to, via}, route{"node-b", to, via})
	}
	for _, r := range routes {
		if err := w.route(r.machine, r.to, r.via, "eth0"); err != nil {
			return err
		}
	}
	return nil
}

func (w *wiring) bridge(machine, name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := w.handles[machine].LinkAdd(bridge); err != nil {
		return fmt.Errorf("%s: add bridge %s: %w", machine, name, err)
	}
	return w.up(machine, name)
}

// cable connects the device dev, on one machine, with eth0 of another.
func (w *wiring) cable(machine, dev, other string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = dev
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerNamespace = netlink.NsFd(w.machines[other].FD())
	if err := w.handles[machine].LinkAdd(veth); err != nil {
		return fmt.Errorf("%s: add %s: %w", machine, dev, err)
	}
	if err := w.up(machine, dev); err != nil {
		return err
	}
	return w.up(other, "eth0")
}

func (w *wiring) up(machine, dev string) error {
	link, err := w.handles[machine].LinkByName(dev)
	if err != nil {
		return fmt.Errorf("%s: find %s: %w", machine, dev, err)
	}
	if err := w.handles[machine].LinkSetUp(link); err != nil {
		return fmt.Errorf("%s: set %s up: %w", machine, dev, err)
	}
	return nil
}

func (w *wiring) enslave(machine, dev, bridge string) error {
	h := w.handles[machine]
	port, err := h.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("%s: find %s: %w", machine, dev, err)
	}
	master, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("%s: find %s: %w", machine, bridge, err)
	}
	if err := h.LinkSetMaster(port, master); err != nil {
		return fmt.Errorf("%s: add %s to %s: %w", machine, dev, bridge, err)
	}
	return nil
}

func (w *wiring) addAddrs(machine, dev string, cidrs ...string) error {
	link, err := w.handles[machine].LinkByName(dev)
	if err != nil {
		return fmt.Errorf("%s: find %s: %w", machine, dev, err)
	}
	for _, cidr := range cidrs {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return fmt.Errorf("%s: %w", machine, err)
		}
		if err := w.handles[machine].AddrAdd(link, addr); err != nil {
			return fmt.Errorf("%s: add %s to %s: %w", machine, cidr, dev, err)
		}
	}
	return nil
}

// route adds a route over dev; with an empty gateway the destination is on the link itself.
func (w *wiring) route(machine, to, via, dev string) error {
	link, err := w.handles[machine].LinkByName(dev)
	if err != nil {
		return fmt.Errorf("%s: find %s: %w", machine, dev, err)
	}
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return fmt.Errorf("%s: %w", machine, err)
	}
	route := netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst}
	switch {
	case via != "":
		route.Gw = net.ParseIP(via)
	case dst.IP.To4() != nil:
		route.Scope = netlink.SCOPE_LINK
	}
	if err := w.handles[machine].RouteAdd(&route); err != nil {
		return fmt.Errorf("%s: add route to %s: %w", machine, to, err)
	}
	return nil
}

// waitUp waits until all devices have a carrier and all IPv6 addresses answer neighbours, which the kernel
// sets up in the background. Packets sent earlier are lost.
func (w *wiring) waitUp() error {
	deadline := time.Now().Add(5 * time.Second)
	for machine, h := range w.handles {
		for {
			waiting, err := notUp(h)
			if err != nil {
				return fmt.Errorf("%s: %w", machine, err)
			}
			if waiting == "" {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %s does not come up", machine, waiting)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// notUp returns a device or an address that is not usable yet, or "".
func notUp(h *netlink.Handle) (string, error) {
	links, err := h.LinkList()
	if err != nil {
		return "", fmt.Errorf("list devices: %w", err)
	}
	for _, link := range links {
		// The kernel may add devices to a namespace by itself; they stay down.
		up := link.Attrs().Flags&net.FlagUp != 0
		if up && link.Attrs().Name != "lo" && link.Attrs().OperState != netlink.OperUp {
			return link.Attrs().Name, nil
		}
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_V6)
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	for _, addr := range addrs {
		// Although addresses are not probed, they stay tentative until their multicast group has been joined.
		if addr.Flags&unix.IFA_F_TENTATIVE != 0 {
			return addr.IPNet.String(), nil
		}
	}
	return "", nil
}

func (w *wiring) addressesOf(machine string) (map[netip.Addr]bool, error) {
	addrs, err := w.handles[machine].AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("%s: list addresses: %w", machine, err)
	}
	set := map[netip.Addr]bool{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			set[ip.Unmap()] = true
		}
	}
	return set, nil
}

// Address returns the address of a party in the family of peer, and false if the lab has no such party.
func Address(name string, peer netip.Addr) (netip.Addr, bool) {
	for _, a := range addresses() {
		if a.name == name || name == "node" && a.name == "host-pod" {
			return party{v4: a.v4, v6: a.v6}.addr(peer), true
		}
	}
	return netip.Addr{}, false
}

// Owner returns the name of the party that has the address, and "" if none has it.
func Owner(addr netip.Addr) string {
	for _, a := range addresses() {
		if a.v4 == addr || a.v6 == addr {
			return a.name
		}
	}
	return ""
}

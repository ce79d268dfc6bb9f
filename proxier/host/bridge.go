package host

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// BridgePort is a port of a bridge of the host, behind which a pod is.
type BridgePort struct {
	Name, Bridge string
	Hairpin      bool           // the bridge sends a packet out of the port on which it came in
	Subnets      []netip.Prefix // of the addresses that the host has on the bridge
}

// BridgePorts returns the ports of bridges by the addresses behind them. It knows an address that has sent
// packets through the bridge in the last minutes: the neighbours of the host have its link-layer address, and
// the bridge has the port of that.
func BridgePorts() (map[netip.Addr]BridgePort, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	learned, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return nil, fmt.Errorf("list what bridges have learned: %w", err)
	}
	type station struct {
		bridge  int
		address string
	}
	ports := map[station]int{}
	for _, n := range learned {
		ports[station{n.MasterIndex, n.HardwareAddr.String()}] = n.LinkIndex
	}
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	subnets, err := subnetsByLink()
	if err != nil {
		return nil, err
	}
	found, hairpin := map[netip.Addr]BridgePort{}, map[int]bool{}
	for _, n := range neighbours {
		port, ok := ports[station{n.LinkIndex, n.HardwareAddr.String()}]
		addr, isIP := netip.AddrFromSlice(n.IP)
		if !ok || !isIP || n.HardwareAddr == nil {
			continue
		}
		if _, known := hairpin[port]; !known {
			if hairpin[port], err = hairpinMode(names[port], port); err != nil {
				return nil, err
			}
		}
		found[addr.Unmap()] = BridgePort{names[port], names[n.LinkIndex], hairpin[port], subnets[n.LinkIndex]}
	}
	return found, nil
}

// subnetsByLink returns the subnets of the addresses of each interface.
func subnetsByLink() (map[int][]netip.Prefix, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	subnets := map[int][]netip.Prefix{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			bits, _ := a.Mask.Size()
			subnets[a.LinkIndex] = append(subnets[a.LinkIndex], netip.PrefixFrom(ip.Unmap(), bits).Masked())
		}
	}
	return subnets, nil
}

func hairpinMode(name string, index int) (bool, error) {
	info, err := netlink.LinkGetProtinfo(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index}})
	if err != nil {
		return false, fmt.Errorf("read bridge port %s: %w", name, err)
	}
	return info.Hairpin, nil
}

// BridgesCallRules reports whether bridges show the packets that they forward to the rules of IP (sysctl
// net.bridge.bridge-nf-call-iptables). Then a packet whose address is translated does not leave the bridge.
func BridgesCallRules(f service.Family) bool {
	name := "bridge-nf-call-iptables"
	if f == service.IPv6 {
		name = "bridge-nf-call-ip6tables"
	}
	value, err := os.ReadFile("/proc/sys/net/bridge/" + name)
	return err == nil && strings.TrimSpace(string(value)) == "1"
}

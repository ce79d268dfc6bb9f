package state

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/nftproxy/nftproxy/proxier/address"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Node contains the fields of our Node that the rules depend on.
type Node struct {
	Zone    string
	Addrs   []netip.Addr // all internal addresses, and then all external addresses
	Primary []netip.Addr // the first one of each family in Addrs
	// Kept is true if the object has no addresses any more: Addrs are the last ones that it had.
	Kept     bool
	PodCIDRs []netip.Prefix
}

func newNode(obj *corev1.Node) Node {
	n := Node{Zone: obj.Labels[corev1.LabelTopologyZone]}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range obj.Status.Addresses {
			addr, err := parseAddr(a.Address)
			if err == nil && a.Type == kind && !slices.Contains(n.Addrs, addr) {
				n.add(addr)
			}
		}
	}
	cidrs := obj.Spec.PodCIDRs
	if len(cidrs) == 0 && obj.Spec.PodCIDR != "" {
		cidrs = []string{obj.Spec.PodCIDR}
	}
	for _, text := range cidrs {
		if p, err := address.ParsePrefix(text); err == nil {
			n.PodCIDRs = append(n.PodCIDRs, p)
		}
	}
	return n
}

// add adds an address. The first one of its family is primary.
func (n *Node) add(addr netip.Addr) {
	n.Addrs = append(n.Addrs, addr)
	family := service.FamilyOf(addr)
	if !slices.ContainsFunc(n.Primary, func(p netip.Addr) bool { return service.FamilyOf(p) == family }) {
		n.Primary = append(n.Primary, addr)
	}
}

// keepAddrs gives a Node without addresses those that it had before. The addresses of an object vanish when a
// node is deleted and registered anew, until its kubelet or cloud provider sets them; the node itself keeps
// them.
func (n *Node) keepAddrs(before Node) {
	if len(n.Addrs) == 0 && len(before.Addrs) > 0 {
		n.Addrs, n.Primary, n.Kept = before.Addrs, before.Primary, true
	}
}

// equal reports whether the rules of both are the same.
func (n Node) equal(m Node) bool {
	return n.Zone == m.Zone && slices.Equal(n.Addrs, m.Addrs) && slices.Equal(n.PodCIDRs, m.PodCIDRs)
}

// serviceCIDRs returns the CIDRs of a ServiceCIDR, without those that are invalid.
func serviceCIDRs(obj *networkingv1.ServiceCIDR) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range obj.Spec.CIDRs {
		if p, err := address.ParsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

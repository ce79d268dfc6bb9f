package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// newNode returns a network namespace whose loopback device has the addresses of the Node and that of a
// gateway of pods as well. kube-proxy looks at the addresses of all devices, and this one every kernel has.
func newNode(objects []unstructured.Unstructured) (*lab.Namespace, error) {
	ns, err := lab.NewNamespace()
	if err != nil {
		return nil, err
	}
	err = ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		addrs, err := nodeAddresses(objects)
		if err != nil {
			return err
		}
		for _, a := range append(addrs, netip.MustParseAddr("10.244.1.1")) {
			addr, _ := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String()) // is valid
			if err := netlink.AddrAdd(lo, addr); err != nil {
				return fmt.Errorf("add %s to lo: %w", a, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// nodeAddresses returns the internal and external addresses of the Node that an interface can have.
func nodeAddresses(objects []unstructured.Unstructured) (out []netip.Addr, err error) {
	for _, o := range objects {
		if o.GetKind() != "Node" || o.GetName() != lab.NodeName {
			continue
		}
		var node corev1.Node
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &node); err != nil {
			return nil, fmt.Errorf("read the Node: %w", err)
		}
		for _, na := range node.Status.Addresses {
			a, err := netip.ParseAddr(na.Address)
			typ := na.Type == corev1.NodeInternalIP || na.Type == corev1.NodeExternalIP
			if err == nil && typ && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// Command kube-proxy writes what kube-proxy 1.37.1 in nftables mode programs for cases of testdata/rules, as
// nft lists it, to CASE.nft in the working directory:
//
//	go run . ../rules/CASE...
//
// It gives the objects to kube-proxy's own code, with the filters and the configuration that the program
// has, in a network namespace with the addresses of the Node. It needs root and nft.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/proxy"
	"k8s.io/kubernetes/pkg/proxy/apis/config"
	configscheme "k8s.io/kubernetes/pkg/proxy/apis/config/scheme"
	"k8s.io/kubernetes/pkg/proxy/nftables"
	proxyutil "k8s.io/kubernetes/pkg/proxy/util"
)

const nodeName = "node-a"

func main() {
	if dir := os.Getenv("CASE"); dir != "" {
		if err := program(dir); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", dir, err)
			os.Exit(1)
		}
		return
	}
	for _, dir := range os.Args[1:] {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CASE="+dir)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.Output()
		if err == nil {
			err = os.WriteFile(filepath.Base(dir)+".nft", out, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// program runs kube-proxy for a case in the network namespace of this process, and prints the ruleset.
func program(dir string) error {
	objects, err := load(filepath.Join(dir, "input.yaml"))
	if err != nil {
		return err
	}
	c, err := configuration(dir)
	if err != nil {
		return err
	}
	node := &v1.Node{}
	for _, o := range objects {
		if n, ok := o.(*v1.Node); ok && n.Name == nodeName {
			node = n
		}
	}
	nodeIPs, err := addresses(node)
	if err != nil {
		return err
	}
	c.NodePortAddresses = nodePorts(c.NodePortAddresses, nodeIPs)
	p, err := nftables.NewDualStackProxier(context.Background(), c, detectors(c, node.Spec.PodCIDRs),
		nodeName, nodeIPs, &events.FakeRecorder{}, nil, false)
	if err != nil {
		return err
	}
	deliver(p, objects, node)
	go p.SyncLoop()
	p.Sync()
	time.Sleep(1500 * time.Millisecond) // Sync only asks for it
	out, err := exec.Command("nft", "-s", "list", "ruleset").Output()
	if err == nil && len(out) == 0 {
		err = errors.New("kube-proxy has programmed nothing")
	}
	fmt.Print(string(out))
	return err
}

// load reads manifests.
func load(file string) (out []runtime.Object, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	reader := yaml.NewYAMLReader(bufio.NewReader(f))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
}

// configuration returns the configuration of the case, or that of a cluster with pods of both families.
func configuration(dir string) (*config.KubeProxyConfiguration, error) {
	text, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"+
			"mode: nftables\nclusterCIDR: 10.244.0.0/16,fd00:10:244::/56\n"), nil
	}
	if err != nil {
		return nil, err
	}
	o, _, err := configscheme.Codecs.UniversalDecoder().Decode(text, nil, nil)
	if err != nil {
		return nil, err
	}
	c := o.(*config.KubeProxyConfiguration)
	return c, utilfeature.DefaultMutableFeatureGate.SetFromMap(c.FeatureGates)
}

// addresses gives the node its addresses, and returns the first of each family.
func addresses(node *v1.Node) (map[v1.IPFamily]net.IP, error) {
	out, internal := map[v1.IPFamily]net.IP{}, map[v1.IPFamily]bool{}
	commands := []string{"link set lo up", "link add eth0 type veth peer name eth1", "link set eth0 up",
		"link set eth1 up"}
	for _, a := range node.Status.Addresses {
		ip := net.ParseIP(a.Address)
		if a.Type != v1.NodeInternalIP && a.Type != v1.NodeExternalIP || ip == nil || ip.IsLoopback() {
			continue
		}
		family, bits := v1.IPv6Protocol, 128
		if ip.To4() != nil {
			family, bits = v1.IPv4Protocol, 32
		}
		if out[family] == nil || a.Type == v1.NodeInternalIP && !internal[family] {
			out[family], internal[family] = ip, a.Type == v1.NodeInternalIP
		}
		commands = append(commands, fmt.Sprintf("addr add %s/%d dev eth0", ip, bits))
	}
	for _, c := range commands {
		if text, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", c, err, text)
		}
	}
	return out, nil
}

// nodePorts is expandNodePortAddressKeywords of cmd/kube-proxy/app, with the default of nftables mode.
func nodePorts(configured []string, nodeIPs map[v1.IPFamily]net.IP) (out []string) {
	if len(configured) == 0 {
		configured = []string{config.NodePortAddressesPrimary}
	}
	for _, text := range configured {
		if text != config.NodePortAddressesPrimary {
			out = append(out, text)
			continue
		}
		for family, bits := range map[v1.IPFamily]int{v1.IPv4Protocol: 32, v1.IPv6Protocol: 128} {
			if ip := nodeIPs[family]; ip != nil {
				out = append(out, fmt.Sprintf("%s/%d", ip, bits))
			}
		}
	}
	return out
}

// detectors is getLocalDetectors of cmd/kube-proxy/app.
func detectors(
	c *config.KubeProxyConfiguration, podCIDRs []string,
) map[v1.IPFamily]proxyutil.LocalTrafficDetector {
	out := map[v1.IPFamily]proxyutil.LocalTrafficDetector{
		v1.IPv4Protocol: proxyutil.NewNoOpLocalDetector(), v1.IPv6Protocol: proxyutil.NewNoOpLocalDetector()}
	var both proxyutil.LocalTrafficDetector
	cidrs := c.DetectLocal.ClusterCIDRs
	switch c.DetectLocalMode {
	case config.LocalModeNodeCIDR:
		cidrs = podCIDRs
	case config.LocalModeBridgeInterface:
		both, cidrs = proxyutil.NewDetectLocalByBridgeInterface(c.DetectLocal.BridgeInterface), nil
	case config.LocalModeInterfaceNamePrefix:
		both, cidrs = proxyutil.NewDetectLocalByInterfaceNamePrefix(c.DetectLocal.InterfaceNamePrefix), nil
	}
	for family := range out {
		if both != nil {
			out[family] = both
		}
	}
	for family, list := range proxyutil.MapCIDRsByIPFamily(cidrs) {
		out[family] = proxyutil.NewDetectLocalByCIDR(list[0].String())
	}
	return out
}

// setFamilies sets ipFamilies, as the API server does.
func setFamilies(s *v1.Service) {
	for _, text := range s.Spec.ClusterIPs {
		family := v1.IPv6Protocol
		if net.ParseIP(text).To4() != nil {
			family = v1.IPv4Protocol
		}
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, family)
	}
}

// deliver gives the objects to kube-proxy that its informers admit.
func deliver(p proxy.Provider, objects []runtime.Object, node *v1.Node) {
	var cidrs []string
	for _, o := range objects {
		switch o := o.(type) {
		case *v1.Service:
			_, other := o.Labels["service.kubernetes.io/service-proxy-name"]
			if !other && o.Spec.ClusterIP != v1.ClusterIPNone {
				setFamilies(o)
				p.OnServiceAdd(o)
			}
		case *discoveryv1.EndpointSlice:
			if _, headless := o.Labels[v1.IsHeadlessService]; !headless {
				p.OnEndpointSliceAdd(o)
			}
		case *networkingv1.ServiceCIDR:
			cidrs = append(cidrs, o.Spec.CIDRs...)
		}
	}
	p.OnServiceCIDRsChanged(cidrs)
	p.OnTopologyChange(node.Labels)
	p.OnServiceSynced()
	p.OnEndpointSlicesSynced()
}

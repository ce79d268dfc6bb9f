package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/proxier/takeover"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// nodeTimeout bounds the question to the API server for the Node object.
const nodeTimeout = 5 * time.Second

// NodeFunc returns the Node object of that name.
type NodeFunc func(ctx context.Context, name string) (*corev1.Node, error)

// Node checks the node, in the network namespace of the calling thread, and judges whether it is fit for nftproxy. It
// changes nothing. The Node object comes from the configured manifests or else from nodes, which may be nil. An error
// says that nothing could be found out.
func Node(ctx context.Context, c *config.Config, nodes NodeFunc) ([]Finding, error) {
	var f Facts
	var err error
	if f.Host, err = ReadHost(); err != nil {
		return nil, err
	}
	if err := checkNFTables(&f); err != nil {
		f.Refused = err.Error()
	}
	if err := checkLegacy(&f); err != nil {
		return nil, err
	}
	if f.KubeProxy.Mode, err = takeover.Running(ctx, takeover.MetricsAddr(c.Kube.MetricsBindAddress)); err != nil {
		f.KubeProxy.Mode = "" // another program uses the port, and is not a web server
	}
	if err := checkConfig(ctx, c, nodes, &f); err != nil {
		return nil, err
	}
	f.Forwarding = host.Forwarding(slices.Contains(f.Families, ipv4), slices.Contains(f.Families, ipv6))
	return Report(&f), nil
}

// checkNFTables fills in what the kernel supports and holds.
func checkNFTables(f *Facts) error {
	missing, err := kernel.Probe()
	if err != nil {
		return err
	}
	for _, m := range missing {
		if m.Family == service.IPv6 && m.WholeFamily() {
			f.NoIPv6 = true
			continue
		}
		f.Missing = append(f.Missing, m)
	}
	conn, err := netlink.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if f.Tables, err = kernel.ListTables(conn); err != nil {
		return err
	}
	f.Programmed = slices.ContainsFunc(f.Tables, func(t kernel.Table) bool { return t.Name == nftables.TableName })
	theirs, err := takeover.Find(conn)
	if err != nil {
		return err
	}
	f.KubeProxy.Rules = theirs.String()
	return nil
}

// checkLegacy fills in what there is outside nftables.
func checkLegacy(f *Facts) error {
	tables, err := takeover.XTables()
	if err != nil && f.Refused == "" { // otherwise both for the same reason
		return err
	}
	for _, t := range tables {
		t.Name += " of iptables-legacy"
		f.Tables = append(f.Tables, t)
	}
	f.KubeProxy.Outside, err = takeover.FindOutside()
	if err != nil && f.Refused == "" {
		return err
	}
	return nil
}

// checkConfig fills in what the configuration makes of this node.
func checkConfig(ctx context.Context, c *config.Config, nodes NodeFunc, f *Facts) error {
	name, err := c.NodeName()
	if err != nil {
		return err
	}
	addrs, err := host.Addrs()
	if err != nil {
		return err
	}
	s := state.New(name)
	node, err := nodeObject(ctx, c, nodes, name)
	if err != nil {
		f.NodePorts.NodeUnknown = err.Error()
	} else {
		s.Apply(node)
	}
	e := desired.NewEnvironment(c, name, s, service.Families(), addrs)
	f.NodePorts.Addrs = e.Node.NodePortAddrs
	f.NodePorts.Primary, _ = c.NodePortAddresses()
	f.NodePorts.Configured = cmp.Or(strings.Join(c.Kube.NodePortAddresses, ","), "none")
	f.PodTraffic = PodTraffic{string(c.Kube.DetectLocalMode), e.Config.PodTraffic}
	f.Families = usedFamilies(e)
	return nil
}

const ipv4, ipv6 = "IPv4", "IPv6"

// usedFamilies returns the families that the cluster has addresses of, as far as the
// node tells; IPv4 where it does not.
func usedFamilies(e desired.Environment) (families []string) {
	used := map[service.Family]bool{}
	for _, a := range e.Node.Addrs {
		used[service.FamilyOf(a)] = true
	}
	for _, p := range e.Config.PodTraffic.CIDRs {
		used[service.FamilyOf(p.Addr())] = true
	}
	if used[service.IPv4] || !used[service.IPv6] {
		families = append(families, ipv4)
	}
	if used[service.IPv6] {
		families = append(families, ipv6)
	}
	return families
}

// nodeObject returns our Node object, from the manifests or the API server.
func nodeObject(ctx context.Context, c *config.Config, nodes NodeFunc, name string) (*corev1.Node, error) {
	if c.Source != "" {
		objects, _, err := source.NewDir(c.Source).Load()
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		for _, obj := range objects {
			if node, ok := obj.(*corev1.Node); ok && node.Name == name {
				return node, nil
			}
		}
		return nil, fmt.Errorf("the manifests have no Node %q", name)
	}
	if nodes == nil {
		return nil, errors.New("no API server is configured")
	}
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	return nodes(ctx, name)
}

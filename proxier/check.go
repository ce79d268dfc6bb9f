package proxier

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
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/legacy"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/proxier/preflight"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules"
)

// nodeTimeout bounds the question to the API server for the Node object.
const nodeTimeout = 5 * time.Second

// NodeFunc returns the Node object of that name.
type NodeFunc func(ctx context.Context, name string) (*corev1.Node, error)

// Check looks at the node, in the network namespace of the calling thread, and judges
// whether it is fit for nftproxy. It changes nothing. The Node object is that of the
// configured manifests or else what nodes returns, which may be nil. An error says that
// nothing could be found out.
func Check(ctx context.Context, c *config.Config, nodes NodeFunc) ([]preflight.Finding, error) {
	var f preflight.Facts
	var err error
	if f.Host, err = preflight.ReadHost(); err != nil {
		return nil, err
	}
	if err := checkNFTables(&f); err != nil {
		f.Refused = err.Error()
	}
	if err := checkLegacy(&f); err != nil {
		return nil, err
	}
	if f.KubeProxy.Mode, err = legacy.Running(ctx, metricsAddr(c)); err != nil {
		f.KubeProxy.Mode = "" // somebody else has the port, and it is no web server
	}
	if err := checkConfig(ctx, c, nodes, &f); err != nil {
		return nil, err
	}
	f.Forwarding = host.Forwarding(slices.Contains(f.Families, ipv4), slices.Contains(f.Families, ipv6))
	return preflight.Report(&f), nil
}

// checkNFTables fills in what the kernel can do and holds.
func checkNFTables(f *preflight.Facts) error {
	missing, err := nft.Probe(nft.Options{})
	if err != nil {
		return err
	}
	for _, m := range missing {
		if m.Family == rules.IPv6.String() && m.Feature == "table" {
			f.NoIPv6 = true
			continue
		}
		f.Missing = append(f.Missing, preflight.Missing{What: m.Family + " " + m.Feature, Needs: fmt.Sprintf("%s (%v)", m.Needs, m.Err)})
	}
	conn, err := nft.Dial(nft.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	tables, err := conn.Tables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		f.Programmed = f.Programmed || t.Name == rules.TableName
		f.Tables = append(f.Tables, table(t))
	}
	theirs, err := conn.KubeProxy()
	if err != nil {
		return err
	}
	f.KubeProxy.Rules = theirs.String()
	return nil
}

func table(t nft.Table) preflight.Table {
	out := preflight.Table{Family: t.Family, Name: t.Name}
	for _, c := range t.Chains {
		out.Chains = append(out.Chains, c.Name)
		out.ForwardDrop = out.ForwardDrop || c.Drop && c.Hook.Name == "forward"
	}
	return out
}

// checkLegacy fills in what there is outside nftables.
func checkLegacy(f *preflight.Facts) error {
	tables, err := legacy.XTables()
	if err != nil && f.Refused == "" { // else both for the same reason
		return err
	}
	for _, t := range tables {
		f.Tables = append(f.Tables, preflight.Table{Family: t.Family, Name: t.Name + " of iptables-legacy", Chains: t.Chains})
	}
	left, err := outsideNFTables()
	if err != nil && f.Refused == "" {
		return err
	}
	for _, l := range left {
		f.KubeProxy.Outside = append(f.KubeProxy.Outside, preflight.Leftover(l))
	}
	return nil
}

// checkConfig fills in what the configuration makes of this node.
func checkConfig(ctx context.Context, c *config.Config, nodes NodeFunc, f *preflight.Facts) error {
	name, err := c.NodeName()
	if err != nil {
		return err
	}
	addrs, err := host.Host{}.Addrs()
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
	g := newGround(c, name, s, rules.Families(), addrs)
	f.NodePorts.Addrs = g.node.NodePortAddrs
	f.NodePorts.Primary, _ = c.NodePortAddresses()
	f.NodePorts.Configured = cmp.Or(strings.Join(c.Kube.NodePortAddresses, ","), "none")
	f.PodTraffic = preflight.PodTraffic{Mode: string(c.Kube.DetectLocalMode),
		CIDRs: g.config.PodTraffic.CIDRs, Interface: g.config.PodTraffic.Interface}
	f.Families = usedFamilies(g)
	return nil
}

const ipv4, ipv6 = "IPv4", "IPv6"

// usedFamilies returns the families that the cluster has addresses of, as far as the
// node tells; IPv4 where it does not.
func usedFamilies(g ground) (families []string) {
	used := map[rules.Family]bool{}
	for _, a := range g.node.Addrs {
		used[rules.FamilyOf(a)] = true
	}
	for _, p := range g.config.PodTraffic.CIDRs {
		used[rules.FamilyOf(p.Addr())] = true
	}
	if used[rules.IPv4] || !used[rules.IPv6] {
		families = append(families, ipv4)
	}
	if used[rules.IPv6] {
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

// Package check reports whether a node is ready for nftproxy: what the kernel lacks, which other programs
// have rules there and whether that matters, and how the configuration applies to the node.
//
// It first collects facts, which needs the kernel and changes nothing, and then judges them, which is a
// function of the facts alone and is tested without a kernel. The facts come from the packages that the
// daemon itself uses, so that the report and the daemon agree.
//
// Start reading at [Node]; report.go has the judgements.
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

// nodeTimeout bounds the request to the API server for the Node object.
const nodeTimeout = 5 * time.Second

// NodeFunc returns the Node object of that name.
type NodeFunc func(ctx context.Context, name string) (*corev1.Node, error)

// Node checks the node, in the network namespace of the calling thread, and returns the findings in a fixed
// order. It changes nothing. It takes the Node object from the state of a running daemon, or, if that is nil,
// from the configured manifests or else from nodes, which may be nil. After an error nothing is known about
// the node.
func Node(ctx context.Context, c *config.Config, daemon *state.State, nodes NodeFunc) ([]Finding, error) {
	var f facts
	var err error
	if f.host, err = readHost(); err != nil {
		return nil, err
	}
	f.refused = f.readNFTables(c.MasqueradeMark())
	if err := f.readLegacy(); err != nil {
		return nil, err
	}
	addr := takeover.MetricsAddr(c.Kube.MetricsBindAddress)
	if f.kubeProxy.mode, err = takeover.Running(ctx, addr); err != nil {
		f.kubeProxy.mode = "" // another program uses the port, one that does not speak HTTP
	}
	if err := f.readConfig(ctx, c, daemon, nodes); err != nil {
		return nil, err
	}
	f.notForwarding = host.NotForwarding(f.families)
	return report(&f), nil
}

// readNFTables adds what the kernel supports and holds.
func (f *facts) readNFTables(mark uint32) error {
	missing, err := kernel.Probe()
	if err != nil {
		return err
	}
	for _, m := range missing {
		if m.Family == service.IPv6 && m.WholeFamily() {
			f.noIPv6 = true
			continue
		}
		f.missing = append(f.missing, m)
	}
	conn, err := netlink.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if f.tables, err = kernel.ListTables(conn); err != nil {
		return err
	}
	if f.marks, err = kernel.MarkRules(conn, f.tables, mark); err != nil {
		return err
	}
	isOurs := func(t kernel.Table) bool { return t.Name == nftables.TableName }
	f.programmed = slices.ContainsFunc(f.tables, isOurs)
	theirs, err := takeover.Find(conn)
	if err != nil {
		return err
	}
	f.kubeProxy.rules = theirs.String()
	return nil
}

// readLegacy adds rules outside nftables. If the kernel did not let us read nftables, it refuses this for the
// same reason, and that is not an error.
func (f *facts) readLegacy() error {
	tables, err := takeover.XTables()
	if err != nil && f.refused == nil {
		return err
	}
	for _, t := range tables {
		t.Name += " of iptables-legacy"
		f.tables = append(f.tables, t)
	}
	f.kubeProxy.outside, err = takeover.FindOutside()
	if err != nil && f.refused == nil {
		return err
	}
	return nil
}

// readConfig adds what the configuration means on this node.
func (f *facts) readConfig(
	ctx context.Context, c *config.Config, s *state.State, nodes NodeFunc) error {
	name, err := c.NodeName()
	if err != nil {
		return err
	}
	addrs, err := host.Addrs()
	if err != nil {
		return err
	}
	if s == nil {
		s = state.New(name)
		node, err := nodeObject(ctx, c, nodes, name)
		if err != nil {
			f.nodePorts.nodeUnknown = err.Error()
		} else {
			s.Apply(node)
		}
	}
	e := desired.NewEnvironment(c, name, s, service.Families(), addrs)
	f.nodePorts.addrs = e.Node.NodePortAddrs
	f.nodePorts.primary, _ = c.NodePortAddresses()
	f.nodePorts.configured = cmp.Or(strings.Join(c.Kube.NodePortAddresses, ","), "none")
	f.localMode, f.podTraffic = string(c.Kube.DetectLocalMode), e.Config.PodTraffic
	f.families = usedFamilies(e)
	return nil
}

// usedFamilies returns the families of the node's addresses and of the pod ranges, and IPv4 if there are
// none.
func usedFamilies(e desired.Environment) (families []service.Family) {
	used := map[service.Family]bool{}
	for _, a := range e.Node.Addrs {
		used[service.FamilyOf(a)] = true
	}
	for _, p := range e.Config.PodTraffic.CIDRs {
		used[service.FamilyOf(p.Addr())] = true
	}
	if used[service.IPv4] || !used[service.IPv6] {
		families = append(families, service.IPv4)
	}
	if used[service.IPv6] {
		families = append(families, service.IPv6)
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

package proof

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
	"github.com/nftproxy/nftproxy/internal/proof/spec"
	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

const (
	rulesDir = "../../testdata/rules"
	nodeName = "node-a"
)

// cases returns the names of the cases in a directory.
func cases(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) == 0 {
		t.Fatalf("%s: no cases", dir)
	}
	return names
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func load(t *testing.T, manifests string) []runtime.Object {
	t.Helper()
	objects, _, err := source.NewDir(manifests).Load()
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// specConfig translates the configuration.
func specConfig(t *testing.T, c *config.Config) spec.Config {
	t.Helper()
	k := &c.Kube
	out := spec.Config{MasqueradeAll: k.NFTables.MasqueradeAll, NodePortAddresses: k.NodePortAddresses,
		ReservedPorts: []uint16{10250}} // the kubelet
	switch k.DetectLocalMode {
	case config.LocalModeNodeCIDR:
		out.NodeCIDR = true
	case config.LocalModeBridgeInterface:
		out.PodInterface = k.DetectLocal.BridgeInterface
	case config.LocalModeInterfaceNamePrefix:
		out.PodInterface = k.DetectLocal.InterfaceNamePrefix + "*"
	default:
		out.ClusterCIDRs = parsePrefixes(strings.FieldsFunc(k.ClusterCIDR, func(r rune) bool { return r == ',' }))
	}
	out.AllowedExternal = parsePrefixes(c.AllowedExternalCIDRs)
	allowed, gate := k.FeatureGates["AllowServiceExternalIPs"]
	out.NoExternalIPs = gate && !allowed
	for _, bind := range []string{k.HealthzBindAddress, k.MetricsBindAddress} {
		_, text, err := net.SplitHostPort(bind)
		number, err2 := strconv.Atoi(text)
		if err != nil || err2 != nil {
			t.Fatalf("the address %q has no port", bind)
		}
		out.ReservedPorts = append(out.ReservedPorts, uint16(number))
	}
	return out
}

func parsePrefixes(texts []string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// cluster returns the specification of a case on a host with these addresses.
func cluster(t *testing.T, c *config.Config, objects []runtime.Object, host []netip.Addr) *spec.Cluster {
	t.Helper()
	out := &spec.Cluster{Config: specConfig(t, c), NodeName: nodeName, HostAddrs: host}
	for _, o := range objects {
		out.Objects = append(out.Objects, o)
	}
	out.Resolve()
	return out
}

// dial opens a Conn in a namespace.
func dial(t *testing.T, ns *lab.Namespace) (conn *kernel.Conn) {
	t.Helper()
	err := ns.Do(func() (err error) {
		conn, err = kernel.Dial(kernel.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// dump reads the tables of a namespace.
func dump(t *testing.T, ns *lab.Namespace) (r *bytecode.Ruleset) {
	t.Helper()
	err := ns.Do(func() error {
		conn, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		r, err = bytecode.Read(conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// proofCase is a case of testdata/rules that the kernel has.
type proofCase struct {
	config  *config.Config
	objects []runtime.Object
	cluster *spec.Cluster
	wanted  *rules.Ruleset
	ruleset *bytecode.Ruleset
	ns      *lab.Namespace
}

// newProofCases programs a case for each of the hosts.
func newProofCases(t *testing.T, name string) (out []*proofCase) {
	t.Helper()
	for _, host := range hosts(load(t, filepath.Join(rulesDir, name, "input.yaml"))) {
		out = append(out, programCase(t, name, lab.TestNamespace(t), host))
	}
	return out
}

// programCase programs a case in a namespace, for a host with these addresses.
func programCase(t *testing.T, name string, ns *lab.Namespace, host []netip.Addr) *proofCase {
	t.Helper()
	dir := filepath.Join(rulesDir, name)
	manifests := filepath.Join(dir, "input.yaml")
	c := &proofCase{config: configtest.Case(t, dir, manifests), objects: load(t, manifests), ns: ns}
	c.cluster = cluster(t, c.config, c.objects, host)
	build, err := desired.FromManifests(c.config, host, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, c.ns)
	delta, err := conn.Diff(service.Families(), func(slots rules.Slots) *rules.Ruleset {
		c.wanted = build(slots)
		return c.wanted
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Apply(delta); err != nil {
		t.Fatal(err)
	}
	c.ruleset = dump(t, c.ns)
	return c
}

// hosts returns the addresses of a node: those of its Node object and a gateway of pods, and these with all
// addresses of Services, which NodeLocal DNSCache, keepalived and others bind on a node.
func hosts(objects []runtime.Object) [][]netip.Addr {
	own := []netip.Addr{netip.MustParseAddr("10.244.1.1")}
	var bound []netip.Addr
	add := func(to *[]netip.Addr, text string) {
		if a, err := netip.ParseAddr(text); err == nil && !a.IsUnspecified() {
			*to = append(*to, a)
		}
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Node:
			for _, a := range o.Status.Addresses {
				add(&own, a.Address)
			}
		case *corev1.Service:
			for _, text := range slices.Concat(o.Spec.ClusterIPs, o.Spec.ExternalIPs) {
				add(&bound, text)
			}
			for _, in := range o.Status.LoadBalancer.Ingress {
				add(&bound, in.IP)
			}
		}
	}
	return [][]netip.Addr{own, slices.Concat(own, bound)}
}

func (c *proofCase) classes(t *testing.T, family uint8, more ...*bytecode.Ruleset) *classes {
	t.Helper()
	out, err := newClasses(family, append(more, c.ruleset), []*spec.Cluster{c.cluster})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

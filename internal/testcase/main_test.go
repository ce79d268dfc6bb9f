package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/proxier/desired"
)

const casesDir = "../../testdata/rules"

// TestKeepsStructure makes a case of each case that exists: its rules are the same up to names and addresses.
func TestKeepsStructure(t *testing.T) {
	entries, err := os.ReadDir(casesDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			before, after := filepath.Join(casesDir, e.Name()), filepath.Join(t.TempDir(), "case")
			o := options{from: filepath.Join(before, "input.yaml"), node: "node-a", about: "x",
				config: filepath.Join(before, "config.yaml")}
			flags, _ := os.ReadFile(filepath.Join(before, "flags"))
			if len(flags) > 0 {
				return // flags are not read from manifests
			}
			if _, err := os.Stat(o.config); err != nil {
				o.config = filepath.Join(t.TempDir(), "config.yaml")
				const text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n" +
					"clusterCIDR: 10.244.0.0/16,fd00:10:244::/56\nmode: nftables\n"
				if err := os.WriteFile(o.config, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := makeCase(o, after); err != nil {
				t.Fatal(err)
			}
			want := rules(t, filepath.Join(before, "input.yaml"), o.config)
			got := rules(t, filepath.Join(after, "input.yaml"), filepath.Join(after, "config.yaml"))
			if diff := cmp.Diff(shape(want), shape(got)); diff != "" {
				t.Errorf("other rules (-case +anonymised):\n%s", diff)
			}
		})
	}
}

// rules returns what --dry-run prints.
func rules(t *testing.T, manifests, file string) string {
	t.Helper()
	c := configtest.Parse(t, "--source="+manifests, "--hostname-override="+ourNode, "--config="+file)
	build, err := desired.FromManifests(c, nil, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := build(nil).WriteText(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

var (
	comment = regexp.MustCompile(`comment "[^"]*"`)
	sticky  = regexp.MustCompile(`((?:tcp|udp|sctp) \. \d+ \. (?:\d+ : )?)[0-9a-f]+:[0-9a-f]+`)
	owner   = regexp.MustCompile(`-[0-9a-f_]+(-(?:tcp|udp|sctp)-\d+)`) // an IPv6 address, in names of chains
	slot    = regexp.MustCompile(` \. \d+ : ADDRESS`)
	word    = regexp.MustCompile(`[0-9a-f:.]+(/[0-9]+)?`)
)

// shape returns the lines of a ruleset, sorted, without names and addresses, and without what follows
// from their order: the slots of endpoints, and the hashes of sticky ones.
func shape(ruleset string) []string {
	ruleset = comment.ReplaceAllString(ruleset, "NAME")
	ruleset = owner.ReplaceAllString(ruleset, "-ADDRESS$1")
	ruleset = word.ReplaceAllStringFunc(ruleset, func(w string) string {
		if _, err := netip.ParseAddr(w); err == nil {
			return "ADDRESS"
		}
		if p, err := netip.ParsePrefix(w); err == nil {
			return "ADDRESS/" + string(rune('0'+p.Bits()/10)) + string(rune('0'+p.Bits()%10))
		}
		return w
	})
	ruleset = slot.ReplaceAllString(ruleset, " . SLOT : ADDRESS")
	ruleset = sticky.ReplaceAllString(ruleset, "${1}HASH")
	lines := strings.Split(ruleset, "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], ",")
	}
	slices.Sort(lines)
	return lines
}

// TestReplaces looks for what identifies a cluster in a case that is made of it.
func TestReplaces(t *testing.T) {
	const secret = `
apiVersion: v1
kind: Node
metadata: {name: worker-17.example.com, labels: {topology.kubernetes.io/zone: acme-north, owner: acme}}
spec: {podCIDRs: [10.99.7.0/24], providerID: "acme://17"}
status: {addresses: [{type: InternalIP, address: 198.51.100.77}, {type: Hostname, address: worker-17}]}
---
apiVersion: v1
kind: Service
metadata:
  {name: billing, namespace: acme-pay, labels: {app: acme}, annotations: {note: "acme",
   nftproxy.io/scheduler: acme, nftproxy.io/weights: "10.99.7.5=3,acme=2,zone:acme-north=acme"}}
spec:
  type: LoadBalancer
  clusterIP: 10.88.1.2
  clusterIPs: [10.88.1.2, "acme"]
  selector: {app: billing}
  loadBalancerSourceRanges: [" 203.0.113.0/24 ", acme]
  ports: [{name: acme-port, port: 8443, targetPort: billing-https, appProtocol: acme}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}, {hostname: lb.acme.example}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: billing-x7, namespace: acme-pay, labels: {kubernetes.io/service-name: billing, app: acme}}
addressType: IPv4
ports: [{name: acme-port, port: 9443}]
endpoints:
- {addresses: [10.99.7.5], nodeName: worker-17.example.com, zone: acme-north, hostname: acme,
   targetRef: {kind: Pod, name: acme-pod},
   hints: {forZones: [{name: acme-north}], forNodes: [{name: other-acme}]}}
`
	dir := t.TempDir()
	from := filepath.Join(dir, "in.yaml")
	if err := os.WriteFile(from, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "case")
	if err := makeCase(options{from: from, node: "worker-17.example.com", about: "A case."}, out); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "input.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{"acme", "billing", "worker", "example", "10.99.7.", "10.88.1.2",
		"198.51.100.77", "203.0.113."} {
		if strings.Contains(string(text), old) {
			t.Errorf("%q is in the case:\n%s", old, text)
		}
	}
	for _, kept := range []string{"name: node-a", "nodeName: node-a", "port: 8443", "port: 9443", "- invalid",
		"kubernetes.io/service-name: service-1", "type: LoadBalancer", "nftproxy.io/scheduler: invalid",
		"=3,invalid=2,zone:zone-1=invalid"} {
		if !strings.Contains(string(text), kept) {
			t.Errorf("%q is not in the case:\n%s", kept, text)
		}
	}
}

// TestAddresses shows that common prefixes stay as long as they were, and that private addresses stay
// private.
func TestAddresses(t *testing.T) {
	m := &addresses{key: [32]byte{1}}
	texts := []string{"10.1.2.3", "10.1.2.4", "10.1.3.4", "10.200.0.1", "172.16.0.1", "172.31.255.9",
		"172.32.0.1", "192.168.1.1", "192.0.2.1", "100.64.0.1", "100.1.2.3", "169.254.1.1", "203.0.113.9", "127.0.0.1",
		"224.0.0.1", "0.0.0.0", "fd00:10:244::1", "fd00:10:244::2", "fd00:10:96::1", "2001:db8::1", "fe80::1",
		"ff02::1", "::1"}
	for _, x := range texts {
		for _, y := range texts {
			a, b := netip.MustParseAddr(x), netip.MustParseAddr(y)
			if a.BitLen() != b.BitLen() {
				continue
			}
			want, got := common(a, b), common(m.addr(a), m.addr(b))
			if want != got {
				t.Errorf("%s and %s have %d common bits, as %s and %s %d", a, b, want, m.addr(a), m.addr(b), got)
			}
		}
		a := netip.MustParseAddr(x)
		b := m.addr(a)
		if a.IsPrivate() != b.IsPrivate() || a.IsLoopback() != b.IsLoopback() ||
			a.IsLinkLocalUnicast() != b.IsLinkLocalUnicast() || a.IsMulticast() != b.IsMulticast() {
			t.Errorf("%s became %s, which is of another kind", a, b)
		}
	}
	a, other := netip.MustParseAddr("10.1.2.3"), &addresses{key: [32]byte{2}}
	if m.addr(a) == other.addr(a) {
		t.Error("the key makes no difference")
	}
}

// common returns how many bits two addresses have in common at their beginning.
func common(a, b netip.Addr) (n int) {
	for n = range a.BitLen() {
		p, _ := a.Prefix(n + 1)
		if !p.Contains(b) {
			return n
		}
	}
	return a.BitLen()
}

// TestOnly keeps one Service of a case.
func TestOnly(t *testing.T) {
	in, err := read(options{from: filepath.Join(casesDir, "conflict-kinds", "input.yaml"), node: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	var name string
	for _, obj := range in.objects {
		if svc, ok := obj.(*corev1.Service); ok {
			name = svc.Namespace + "/" + svc.Name
		}
	}
	services := 0
	for _, obj := range only(in.objects, []string{name}) {
		if _, ok := obj.(*corev1.Service); ok {
			services++
		}
	}
	if services != 1 {
		t.Errorf("%d Services are left, want %s only", services, name)
	}
}

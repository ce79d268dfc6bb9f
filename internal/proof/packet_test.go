package proof

import (
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/internal/proof/bytecode"
)

// TestPackets sends real packets of a random sample of classes through the kernel: what becomes of them is
// what the interpreter of the bytecode says. Without -all it does so for a few cases.
func TestPackets(t *testing.T) {
	names := cases(t, rulesDir)
	if !*all {
		names = []string{"all-kinds-one-service", "external-policy-local", "internal-policy-local-none-here",
			"lb-source-ranges", "masquerade-hairpin", "affinity-external-local", "service-cidr-unallocated"}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newSender(t, name).sample(t)
		})
	}
}

// sender sends packets of a case in a lab.
type sender struct {
	*proofCase
	lab     *lab.Lab
	machine bytecode.Machine
	random  *rand.Rand
	ingress map[string]string // of the node under test, by party
}

func newSender(t *testing.T, name string) *sender {
	t.Helper()
	o := lab.Options{Bridge: exists(filepath.Join(rulesDir, name, "lab.yaml"))}
	l, err := lab.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &sender{lab: l, random: rand.New(rand.NewPCG(1, uint64(len(name)))), ingress: map[string]string{
		"node": "", "pod-a": "veth-pod-a", "pod-b": "veth-pod-b",
		"client": "eth0", "client-2": "eth0", "pod-c": "eth0"}}
	if o.Bridge {
		s.ingress["pod-a"], s.ingress["pod-b"] = "cni0", "cni0"
	}
	host := []netip.Addr{netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("192.0.2.1"),
		netip.MustParseAddr("2001:db8::1")}
	s.proofCase = programCase(t, name, l.Node(), host)
	s.machine = bytecode.Machine{Ruleset: s.ruleset, Local: isNode, Empty: true}
	var endpoints []*discoveryv1.EndpointSlice
	for _, obj := range s.objects {
		if slice, ok := obj.(*discoveryv1.EndpointSlice); ok {
			endpoints = append(endpoints, slice)
		}
	}
	if err := l.ServeEndpoints(endpoints); err != nil {
		t.Fatal(err)
	}
	return s
}

// isNode reports whether the address is one of the node under test.
func isNode(a netip.Addr) bool {
	return a.IsLoopback() || lab.Owner(a) == "host-pod" || a == netip.MustParseAddr("10.244.1.1")
}

// ofEach is how many classes with each verdict are sampled. Most classes are left alone by the rules, and a
// request without an answer takes its time.
const ofEach = 5

// sample sends packets of classes that parties of the lab can send.
func (s *sender) sample(t *testing.T) {
	t.Helper()
	sent := map[bytecode.Verdict]int{}
	for _, family := range families() {
		classes := s.classes(t, family)
		classes.protocols = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}
		for range 3000 {
			p := classes.packet(s.random.IntN(classes.count()))
			p.Mark, p.Priority, p.Socket = 0, 0, false
			row, verdict, ok := s.row(t, p)
			if !ok || sent[verdict] >= ofEach {
				continue
			}
			_, affinity := s.cluster.Allowed(specPacket(p, 0))
			row.Sticky = row.By != nil && affinity > 0
			sent[verdict]++
			if _, err := s.lab.Check(t.Context(), row); err != nil {
				t.Errorf("the bytecode says %s: %v", verdict, err)
			}
		}
	}
	t.Logf("classes sent, by what the bytecode says: %v", sent)
	if len(sent) == 0 && len(s.cluster.Frontends()) > 0 {
		t.Error("no class was sent")
	}
}

// row returns a request of some party to the destination of the packet, and what the interpreter says about
// it; false if the lab cannot show that.
func (s *sender) row(t *testing.T, p bytecode.Packet) (row lab.Row, verdict bytecode.Verdict, ok bool) {
	t.Helper()
	parties := []string{"node", "pod-a", "pod-b", "client", "client-2", "pod-c"}
	row.From = parties[s.random.IntN(len(parties))]
	names := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}
	row.To = lab.Target{Proto: names[p.Protocol], Addr: netip.AddrPortFrom(p.Dst, p.Port)}
	p.Src, _ = lab.Address(row.From, p.Dst)
	p.Interface = s.ingress[row.From]
	if p.Port == 0 || p.Dst.IsUnspecified() || p.Dst.IsMulticast() || p.Dst.IsLoopback() ||
		lab.Owner(p.Dst) != "" && lab.Owner(p.Dst) != "host-pod" || !routed(row.From, p.Dst) {
		return row, 0, false
	}
	if row.From == "node" && isNode(p.Dst) {
		p.Src = p.Dst // the kernel's choice for a connection to itself
	}
	outcomes, err := s.machine.Outcomes(p, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		by := lab.Owner(o.Endpoint.Addr())
		source := map[bool]string{true: "node", false: "unchanged"}[o.Masqueraded]
		switch {
		case o.Verdict == bytecode.Untouched && isNode(p.Dst), o.Verdict == bytecode.Translated && by == "":
			return row, 0, false // what answers is another question
		case o.Verdict != bytecode.Translated:
			row.Refused, row.Dropped = o.Verdict == bytecode.Refused, o.Verdict != bytecode.Refused
			continue
		case !o.Masqueraded && (row.From == "pod-c" || by == row.From):
			return row, 0, false // replies would not pass the node under test
		case i > 0 && row.Source != source, row.From == "node":
			source = ""
		}
		row.Source = source
		if !slices.Contains(row.By, by) {
			row.By = append(row.By, by)
		}
	}
	return row, outcomes[0].Verdict, true
}

// routed reports whether packets of the party to an address pass the node under test: the client and node-b
// have routes for addresses of Services only.
func routed(from string, to netip.Addr) bool {
	if from == "node" || from == "pod-a" || from == "pod-b" || isNode(to) {
		return true
	}
	ranges := []string{"198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::/64"}
	if from != "pod-c" {
		ranges = append(ranges, "10.96.0.0/16", "fd00:10:96::/112")
	}
	return slices.ContainsFunc(ranges, func(r string) bool { return netip.MustParsePrefix(r).Contains(to) })
}

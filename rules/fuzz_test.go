package rules_test

import (
	"encoding/binary"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// source makes values of bytes; when they run out, all are zero.
type source struct{ b []byte }

func (s *source) byte() byte {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

// port is any port but 0.
func (s *source) port() uint16 { return max(1, binary.BigEndian.Uint16([]byte{s.byte(), s.byte()})) }

// addr is any valid address without a zone: a Service has no others.
func (s *source) addr() netip.Addr {
	switch kind := s.byte(); kind % 4 {
	case 0:
		return netip.AddrFrom4([4]byte{s.byte(), s.byte(), s.byte(), s.byte()})
	case 1:
		return netip.AddrFrom16([16]byte{0: s.byte(), 7: s.byte(), 15: s.byte()})
	case 2:
		return netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: s.byte(), 15: s.byte()})
	default:
		return netip.AddrFrom4([4]byte{10, 96, 0, kind / 64})
	}
}

func (s *source) addrs() []netip.Addr {
	var out []netip.Addr
	for range s.byte() % 4 {
		out = append(out, s.addr())
	}
	return out
}

func (s *source) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for range s.byte() % 5 {
		a := s.addr()
		out = append(out, netip.PrefixFrom(a, int(s.byte())%(a.BitLen()+2))) // one in many is invalid
	}
	return out
}

// text is a name that the API admits, or "".
func (s *source) text() string {
	return strings.Repeat(string(rune('a'+s.byte()%3)), int(s.byte()%64))
}

func (s *source) service(name string) *service.Service {
	svc := &service.Service{
		Name: service.Name{Namespace: "ns", Name: name}, Created: time.Unix(int64(s.byte()%2), 0),
		ClusterIPs: s.addrs(), ExternalIPs: s.addrs(), LoadBalancerIPs: s.addrs(), SourceRanges: s.prefixes(),
	}
	flags := s.byte()
	svc.Restricted, svc.InternalLocal, svc.ExternalLocal = flags&1 > 0, flags&2 > 0, flags&4 > 0
	if flags&8 > 0 {
		svc.AffinityTimeout = time.Duration(s.byte()) * time.Second
	}
	for range s.byte() % 4 {
		p := service.Port{Name: s.text(), Protocol: service.Protocols()[s.byte()%3], Port: s.port(),
			NodePort: s.port() - 1}
		for range s.byte() % 16 {
			flags := s.byte()
			p.Endpoints = append(p.Endpoints, service.Endpoint{
				Backend: netip.AddrPortFrom(s.addr(), s.port()), Node: []string{"", "n1"}[flags&1],
				Ready: flags&2 > 0, Serving: flags&4 > 0, Terminating: flags&8 > 0,
				ZoneHints: make([]string, flags>>4&3),
				NodeHints: []string{"", "n1"}[flags>>6&1 : 1+flags>>7&1],
			})
		}
		svc.Ports = append(svc.Ports, p)
	}
	return svc
}

// line matches lines of nft text: only comments and interfaces have quotes.
const line = `^[\t ]*[-_a-z0-9@#./:,;={}()&|^!\[\]<> ]*("[-a-z0-9/:.*]+"[-a-z0-9 /:.@|]*,?)?[ }]*$`

func FuzzCompile(f *testing.F) {
	for seed := range uint64(20) {
		g := newGenerator(seed)
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(g.Uint32())
		}
		f.Add(b)
	}
	f.Add([]byte{})
	legal := regexp.MustCompile(line)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &source{b}
		node := service.Node{Name: "n1", Zone: s.text(), Addrs: s.addrs(), NodePortAddrs: s.addrs()}
		config := rules.Config{
			MasqueradeMark: 1, Families: service.Families(), ServiceCIDRs: s.prefixes(),
			PodTraffic: rules.PodTraffic{CIDRs: s.prefixes()},
		}
		r, kernel := rules.NewRuleset(config), fakekernel.New()
		var texts strings.Builder
		commit := func(d *rules.Delta) {
			texts.WriteString(deltaText(t, d))
			apply(t, kernel, d)
			deleteStale(t, kernel, d)
		}
		commit(rules.Diff(r, rules.Programmed{}))
		for _, name := range []string{"a", "b", "a"} {
			r.Put(rules.Compile(s.service(name), node, r.Slots, rules.MaxShare))
			commit(r.Changes())
			r.Done()
			if d := rules.Diff(r, programmed(kernel, r)); !d.Empty() {
				t.Fatalf("Changes leaves a difference:\n%s", deltaText(t, d))
			}
		}
		texts.WriteString(rulesetText(t, r))
		for _, text := range linesOf(texts.String()) {
			if !legal.MatchString(text) {
				t.Fatalf("a line is not legal: %q", text)
			}
		}
	})
}

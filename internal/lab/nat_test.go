package lab

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const masqueradeMark = 0x4000

// translator programs a few address translations, enough to test that the lab shows their effect.
type translator struct {
	conn   *nftables.Conn
	table  *nftables.Table
	chains []*nftables.Chain // prerouting and output
	post   *nftables.Chain
	family netip.Addr // any address of the family
}

func newTranslator(t *testing.T, conn *nftables.Conn, family netip.Addr) *translator {
	t.Helper()
	tr := &translator{conn: conn, family: family}
	tr.table = &nftables.Table{Name: "lab", Family: nftables.TableFamilyIPv4}
	if family.Is6() {
		tr.table.Family = nftables.TableFamilyIPv6
	}
	conn.AddTable(tr.table)
	chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{
			Name: name, Table: tr.table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority,
		})
	}
	tr.chains = []*nftables.Chain{
		chain("pre", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		chain("out", nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
	}
	tr.post = chain("post", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	tr.rule(tr.post, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(masqueradeMark)},
		&expr.Masq{},
	})
	return tr
}

func (tr *translator) rule(chain *nftables.Chain, exprs []expr.Any) {
	tr.conn.AddRule(&nftables.Rule{Table: tr.table, Chain: chain, Exprs: exprs})
}

// matches returns expressions that match the source or destination address of a packet.
func (tr *translator) matches(source bool, ip netip.Addr) []expr.Any {
	offset, length := uint32(16), uint32(4)
	if tr.family.Is6() {
		offset, length = 24, 16
	}
	if source {
		offset -= length
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ip.AsSlice()},
	}
}

// to applies a verdict to packets for a frontend, in both hooks.
func (tr *translator) to(frontend string, verdict ...expr.Any) {
	for _, chain := range tr.chains {
		tr.rule(chain, slices.Concat(tr.matches(false, netip.MustParseAddr(frontend)), verdict))
	}
}

// tcp returns expressions that match TCP.
func tcp() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
	}
}

func (tr *translator) mark() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(masqueradeMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}
}

func (tr *translator) dnat(backend string) []expr.Any {
	to := netip.MustParseAddrPort(backend)
	family := uint32(unix.NFPROTO_IPV4)
	if tr.family.Is6() {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: 2},
	}
}

func (tr *translator) reject() expr.Any {
	code := uint8(3) // ICMP port unreachable
	if tr.family.Is6() {
		code = 4 // ICMPv6 port unreachable
	}
	return &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}
}

func (tr *translator) hairpin(pod string) {
	ip := netip.MustParseAddr(pod)
	tr.rule(tr.post, slices.Concat(tr.matches(true, ip), tr.matches(false, ip), []expr.Any{&expr.Masq{}}))
}

// translate programs, for each family, frontends .10 to pod-a, .11 and .12 to pod-c with and without
// masquerade, .13 reject, .14 drop and .15 to the host-network pod.
func translate(t *testing.T, l *Lab) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(l.Node().FD()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ services, podA, podC, host string }{
		{"10.96.0.", "10.244.1.11", "10.244.2.11", "192.0.2.1"},
		{"fd00:10:96::", "fd00:10:244:1::11", "fd00:10:244:2::11", "2001:db8::1"},
	} {
		family := netip.MustParseAddr(f.podA)
		port := func(ip string) string { return netip.AddrPortFrom(netip.MustParseAddr(ip), 8080).String() }
		tr := newTranslator(t, conn, family)
		tr.to(f.services+"10", tr.dnat(port(f.podA))...)
		tr.hairpin(f.podA)
		tr.to(f.services+"11", append(tr.mark(), tr.dnat(port(f.podC))...)...)
		tr.to(f.services+"12", tr.dnat(port(f.podC))...)
		tr.to(f.services+"13", append(tcp(), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})...)
		tr.to(f.services+"13", tr.reject())
		tr.to(f.services+"14", &expr.Verdict{Kind: expr.VerdictDrop})
		tr.to(f.services+"15", tr.dnat(port(f.host))...)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckTranslated(t *testing.T) {
	rows, err := LoadTraffic("testdata/nat.yaml")
	if err != nil {
		t.Fatal(err)
	}
	layouts(t, func(t *testing.T, l *Lab) {
		serveAll(t, l, 8080)
		translate(t, l)
		for _, row := range rows {
			report, err := l.Check(t.Context(), row)
			if err != nil {
				t.Errorf("%v\n%s", err, report)
			}
		}
	})
}

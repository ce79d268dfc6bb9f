package nftables

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"

	"github.com/nftproxy/nftproxy/rules/service"
)

// statementCase is a statement with what it becomes in the table of a family.
type statementCase struct {
	statement   Statement
	family      service.Family
	text        string
	expressions string // types of the kernel's expressions
	requires    string
	set, chain  string // that the statement refers to
}

const (
	fib    = "CONFIG_NFT_FIB_IPV4 (module nft_fib_ipv4)"
	reject = "CONFIG_NFT_REJECT, CONFIG_NFT_REJECT_IPV4 (module nft_reject_ipv4), Linux 5.9"
	ct     = core + ", " + ctRequires
	dnat   = "CONFIG_NFT_NAT (module nft_nat), " + core
)

func statementCases() []statementCase {
	return slices.Concat(verdictCases(), matchCases(), lookupCases(), priorityCases())
}

func verdictCases() []statementCase {
	reject6 := strings.NewReplacer("IPV4", "IPV6", "ipv4", "ipv6").Replace(reject)
	const random, masq = "masquerade fully-random", "CONFIG_NFT_MASQ (module nft_masq)"
	const change = "Meta Bitwise Meta"
	return []statementCase{
		{Jump{Chain: "services"}, service.IPv4, "jump services", "Verdict", core, "", "services"},
		{Goto{Chain: "rr-any"}, service.IPv4, "goto rr-any", "Verdict", core, "", "rr-any"},
		{Drop{}, service.IPv4, "drop", "Verdict", core, "", ""},
		{Accept{}, service.IPv4, "accept", "Verdict", core, "", ""},
		{Reject{}, service.IPv4, "reject", "Reject", reject, "", ""},
		{Reject{}, service.IPv6, "reject", "Reject", reject6, "", ""},
		{Reset{}, service.IPv4, "reject with tcp reset", "Reject", reject, "", ""},
		{Masquerade{}, service.IPv4, random, "Masq", masq, "", ""},
		{SetMark{Mask: 0x4000}, service.IPv4, "meta mark set meta mark | 0x00004000", change, core, "", ""},
		{ClearMark{Mask: 0x4000}, service.IPv4, "meta mark set meta mark ^ 0x00004000", change, core, "", ""},
	}
}

func matchCases() []statementCase {
	const mark = "Meta Bitwise Cmp"
	notLocal := AddrLocal{Addr: DstAddr, Not: true}
	return []statementCase{
		{HasMark{Mask: 1}, service.IPv4, "meta mark & 0x00000001 != 0x00000000", mark, core, "", ""},
		{HasSocket{}, service.IPv4, "meta skuid != 4294967295", "Meta Cmp", core, "", ""},
		{Translated{}, service.IPv4, "ct status dnat", "Ct Bitwise Cmp", ctRequires, "", ""},
		{AddrLocal{Addr: SrcAddr}, service.IPv4, "fib saddr type local", "Fib Cmp", fib, "", ""},
		{notLocal, service.IPv4, "fib daddr type != local", "Fib Cmp", fib, "", ""},
		{Interface{Name: "cni0"}, service.IPv4, `iifname "cni0"`, "Meta Cmp", core, "", ""},
		{Interface{Name: "veth*", Not: true}, service.IPv4, `iifname != "veth*"`, "Meta Cmp", core, "", ""},
		{IsProtocol{service.SCTP}, service.IPv4, "meta l4proto sctp", "Meta Cmp", core, "", ""},
	}
}

func lookupCases() []statementCase {
	source := []Field{DstAddr, CtProto, DstPort, SrcAddr}
	return []statementCase{
		{InSet{Key: []Field{SrcAddr}, Set: "pod-cidrs", Not: true}, service.IPv4,
			"ip saddr != @pod-cidrs", "Payload Lookup", core, "pod-cidrs", ""},
		{InSet{Key: source, Set: "s"}, service.IPv6,
			"ip6 daddr . ct protocol . th dport . ip6 saddr @s", "Payload Ct Payload Payload Lookup",
			ct, "s", ""},
		{Dispatch{Key: FrontendKey(), Map: "services"}, service.IPv6,
			"ip6 daddr . meta l4proto . th dport vmap @services", "Payload Meta Payload Lookup",
			core, "services", ""},
		{Dispatch{Key: []Field{Priority}, Map: "shapes"}, service.IPv4,
			"meta priority vmap @shapes", "Meta Lookup", core, "shapes", ""},
		{DNAT{Key: SlotKey(3), Map: "endpoints"}, service.IPv4,
			"dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints",
			"Payload Meta Payload Numgen Lookup NAT",
			dnat + ", CONFIG_NFT_NUMGEN (module nft_numgen)", "endpoints", ""},
		{DNAT{Key: SlotKeyBy(FlowHash(251)), Map: "endpoints"}, service.IPv6,
			"dnat ip6 to ip6 daddr . meta l4proto . th dport . jhash ip6 saddr . th sport mod 251 " +
				"seed 0x6d676c76 map @endpoints", "Payload Meta Payload Payload Payload Hash Lookup NAT",
			dnat + ", CONFIG_NFT_HASH (module nft_hash)", "endpoints", ""},
		{DNAT{Key: SlotKeyBy(SourceHash(251)), Map: "endpoints"}, service.IPv4,
			"dnat ip to ip daddr . meta l4proto . th dport . jhash ip saddr mod 251 seed 0x6d676c76 map @endpoints",
			"Payload Meta Payload Payload Hash Lookup NAT",
			dnat + ", CONFIG_NFT_HASH (module nft_hash)", "endpoints", ""},
		{DNAT{Key: BackendKey(), Map: "sticky-backends"}, service.IPv6,
			"dnat ip6 to ip6 daddr . meta l4proto . th dport . meta priority map @sticky-backends",
			"Payload Meta Payload Meta Lookup NAT", dnat, "sticky-backends", ""},
	}
}

// priorityCases are the statements of session affinity, in both families where their keys differ.
func priorityCases() []statementCase {
	const (
		client  = "ip saddr . ip daddr . meta l4proto . th dport"
		client6 = "jhash ip6 saddr . ip6 daddr . meta l4proto . th dport mod 4294967295 seed 0x6e667470"
		key     = "Payload Payload Meta Payload "
		key6    = key + "Hash "
		hash    = core + ", CONFIG_NFT_HASH (module nft_hash)"
		since   = ", Linux 5.5"
	)
	remember := Remember{Map: "affinity", Timeout: 3 * time.Hour}
	services := SetPriority{Key: FrontendKey(), Map: "services"}
	return []statementCase{
		{services, service.IPv4, "meta priority set ip daddr . meta l4proto . th dport map @services",
			"Payload Meta Payload Lookup Meta", core, "services", ""},
		{services, service.IPv6, "meta priority set ip6 daddr . meta l4proto . th dport map @services",
			"Payload Meta Payload Lookup Meta", core, "services", ""},
		{SetPriority{Key: SlotKey(3), Map: "sticky-slots"}, service.IPv4, "meta priority set " +
			"ip daddr . meta l4proto . th dport . numgen random mod 3 map @sticky-slots",
			"Payload Meta Payload Numgen Lookup Meta", core + ", CONFIG_NFT_NUMGEN (module nft_numgen)",
			"sticky-slots", ""},
		{Recall{Map: "affinity"}, service.IPv4, "meta priority set " + client + " map @affinity",
			key + "Lookup Meta", core, "affinity", ""},
		{Recall{Map: "affinity"}, service.IPv6, "meta priority set " + client6 + " map @affinity",
			key6 + "Lookup Meta", hash, "affinity", ""},
		{remember, service.IPv4, "update @affinity { " + client + " timeout 10800s : meta priority }",
			key + "Meta Dynset", core, "affinity", ""},
		{remember, service.IPv6, "update @affinity { " + client6 + " timeout 10800s : meta priority }",
			key6 + "Meta Dynset", hash, "affinity", ""},
		{Forget{Map: "affinity"}, service.IPv4, "delete @affinity { " + client + " : meta priority }",
			key + "Meta Dynset", core + since, "affinity", ""},
		{Forget{Map: "affinity"}, service.IPv6, "delete @affinity { " + client6 + " : meta priority }",
			key6 + "Meta Dynset", hash + since, "affinity", ""},
		{TakeTurn{N: 3}, service.IPv4, "meta priority set numgen inc mod 3 offset 1", "Numgen Meta",
			core + ", CONFIG_NFT_NUMGEN (module nft_numgen)", "", ""},
		{ClearPriority{}, service.IPv4, "meta priority set none", "Immediate Meta", core, "", ""},
		{ClearPriority{}, service.IPv6, "meta priority set none", "Immediate Meta", core, "", ""},
	}
}

func TestStatements(t *testing.T) {
	for _, tt := range statementCases() {
		t.Run(fmt.Sprintf("%s %s", tt.family, tt.text), func(t *testing.T) {
			rule := Rule{tt.statement}
			if got := rule.Text(tt.family); got != tt.text {
				t.Errorf("text is %q, want %q", got, tt.text)
			}
			if got := expressionTypes(rule.Expressions(tt.family)); got != tt.expressions {
				t.Errorf("expressions are %s, want %s", got, tt.expressions)
			}
			if got := Requires(tt.statement, tt.family); got != tt.requires {
				t.Errorf("requires %q, want %q", got, tt.requires)
			}
			if set, chain := Uses(tt.statement); set != tt.set || chain != tt.chain {
				t.Errorf("uses set %q and chain %q, want %q and %q", set, chain, tt.set, tt.chain)
			}
			for _, e := range rule.Expressions(tt.family) {
				if _, err := expr.Marshal(tt.family.Number(), e); err != nil {
					t.Errorf("encode %T: %v", e, err)
				}
			}
		})
	}
}

// The cases above have every kind of statement, also one that is added later.
func TestStatementsOfEveryKind(t *testing.T) {
	tested := map[string]bool{}
	for _, tt := range statementCases() {
		tested[strings.TrimPrefix(fmt.Sprintf("%T", tt.statement), "nftables.")] = true
	}
	want := declaredKinds(t)
	got := slices.DeleteFunc(slices.Clone(want), func(kind string) bool { return !tested[kind] })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds of statement with a case (-want +got):\n%s", diff)
	}
}

// declaredKinds returns the types of this package that have the method expressions, sorted.
func declaredKinds(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "expressions" {
				kinds = append(kinds, fmt.Sprint(f.Recv.List[0].Type))
			}
		}
	}
	if len(kinds) == 0 {
		t.Fatal("no kind of statement found in this directory")
	}
	slices.Sort(kinds)
	return kinds
}

func expressionTypes(list []expr.Any) string {
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr.")
	}
	return strings.Join(names, " ")
}

// A rule is its statements one after the other, as text and as expressions.
func TestRule(t *testing.T) {
	rule := Rule{HasMark{Mask: 1}, ClearMark{Mask: 1}, Masquerade{}}
	const want = "meta mark & 0x00000001 != 0x00000000 " +
		"meta mark set meta mark ^ 0x00000001 masquerade fully-random"
	if got := rule.Text(service.IPv4); got != want {
		t.Errorf("text is %q, want %q", got, want)
	}
	const types = "Meta Bitwise Cmp Meta Bitwise Meta Masq"
	if got := expressionTypes(rule.Expressions(service.IPv4)); got != types {
		t.Errorf("expressions are %s, want %s", got, types)
	}
}

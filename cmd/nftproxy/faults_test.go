package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	vnetlink "github.com/vishvananda/netlink"

	"github.com/nftproxy/nftproxy/internal/faults"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

const troubleshooting = "../../docs/troubleshooting.md"

// elsewhere are the faults that need an API server: internal/e2e seeds them.
func elsewhere() []string {
	return []string{"nftproxy-does-not-run", "nftproxy-is-behind", "another-program-changed-the-tables"}
}

// seed is how a test makes a fault on the node of a laboratory, and what it does to connections.
type seed struct {
	make  func(*faulty) // nil: the manifests have it
	shows lab.Row       // what a client sees
	also  func(*faulty) // more that a client sees, or that the remedy helps
}

// seeds returns the fault of each section of docs/troubleshooting.md.
func seeds() map[string]seed {
	pod, outside := "pod-b", "client"
	web := lab.Row{From: pod, To: tcpTo("10.96.0.10:80")}
	lost, masked := web, web
	lost.Dropped = true
	masked.By, masked.Source = []string{"pod-c"}, "node"
	return map[string]seed{
		"no-endpoints":       {shows: lab.Row{From: pod, To: tcpTo("10.96.0.20:80"), Refused: true}},
		"wrong-targetport":   {shows: lab.Row{From: pod, To: tcpTo("10.96.0.21:80"), Refused: true}},
		"named-port-missing": {shows: lab.Row{From: pod, To: tcpTo("10.96.0.22:80"), Refused: true}},
		"policy-local-without-a-local-pod": {
			shows: lab.Row{From: outside, To: tcpTo("203.0.113.23:80"), Dropped: true}},
		"source-range":   {shows: lab.Row{From: outside, To: tcpTo("203.0.113.24:80"), Dropped: true}},
		"topology-hints": {shows: lab.Row{From: pod, To: tcpTo("10.96.0.25:80"), By: []string{"pod-a"}}},
		"two-services-with-one-address": {
			shows: lab.Row{From: outside, To: tcpTo("203.0.113.26:80"), By: []string{"pod-a"}}},
		"external-ip-not-allowed": {
			shows: lab.Row{From: outside, To: tcpTo("198.51.100.28:80"), Dropped: true}},
		"dns": {shows: lab.Row{From: pod, To: web.To, By: []string{"pod-c"}}, also: resolvesNothing},
		"hairpin": {make: bridgesCallRules, also: hairpinHelps,
			shows: lab.Row{From: "pod-a", To: tcpTo("10.96.0.29:80"), Dropped: true}},
		"pods-on-one-bridge": {make: oneSubnet, also: callingRulesHelps,
			shows: lab.Row{From: pod, To: tcpTo("10.96.0.29:80"), Dropped: true}},
		"ip-forwarding-off":             {make: forwardsNothing, shows: lost},
		"connection-tracking-full":      {make: fillsConntrack, shows: lost},
		"a-firewall-drops":              {make: firewall, shows: lost},
		"a-networkpolicy-drops":         {make: networkPolicy, shows: lost},
		"another-program-masquerades":   {make: masquerades, shows: masked},
		"another-program-uses-the-mark": {make: usesTheMark, shows: masked},
		"the-kernel-lacks-nftables":     {},
	}
}

func tcpTo(addr string) lab.Target {
	return lab.Target{Proto: "tcp", Addr: netip.MustParseAddrPort(addr)}
}

// TestSeedsAreThePage compares the faults that tests seed with those of the page.
func TestSeedsAreThePage(t *testing.T) {
	all := slices.AppendSeq(elsewhere(), maps.Keys(seeds()))
	for _, name := range faults.Names() {
		if !slices.Contains(all, name) {
			t.Errorf("no test seeds %s", name)
		}
	}
	if len(all) != len(faults.Names()) {
		t.Errorf("%d seeds for %d faults", len(all), len(faults.Names()))
	}
}

// TestFaults seeds the faults of docs/troubleshooting.md one after the other on a node where nftproxy runs.
// Each does to connections what the page says, and the command of the page prints what the page says.
func TestFaults(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	page, err := faults.Read(troubleshooting)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{T: t, lab: newFaultyLab(t)}
	startForFaults(t)
	steps, err := faults.Steps(troubleshooting)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		f.holds(step)
	}
	ok := lab.Row{From: "pod-b", To: tcpTo("10.96.0.10:80"), By: []string{"pod-c"}, Source: "unchanged"}
	for _, name := range faults.Names() {
		s, ours := seeds()[name]
		if !ours || s.shows.From == "" {
			continue
		}
		if _, err := f.lab.Check(t.Context(), ok); err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		f.holds(faults.Fault{Name: "before " + name, Args: []string{"explain", "default/web"},
			Lines: []string{"...", "verdict endpoint: 10.244.2.11:8080"}})
		f.seed(s, page[name])
	}
}

// seed makes a fault, sees what it does to connections, runs the command of the page, and ends the fault.
func (f *faulty) seed(s seed, fault faults.Fault) {
	f.Helper()
	f.undo, f.unable = nil, ""
	defer func() {
		for _, undo := range slices.Backward(f.undo) {
			undo()
		}
	}()
	if s.make != nil {
		s.make(f)
	}
	if f.unable != "" {
		f.Logf("this does not show the fault %s: %s", fault.Name, f.unable)
		return
	}
	if _, err := f.lab.Check(f.Context(), s.shows); err != nil {
		f.Errorf("%s: %v", fault.Name, err)
	}
	f.holdsWhile(s.shows, fault)
	if s.also != nil {
		s.also(f)
	}
}

// TestFaultWithoutNFTables runs nftproxy and the command of the page on a kernel without nftables.
func TestFaultWithoutNFTables(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	page, err := faults.Read(troubleshooting)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{T: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := withoutNetfilter()
		if err == nil {
			if _, err = execute(t, "--source="+demo, "--hostname-override=node-a"); errors.Is(err, netlink.ErrAbsent) {
				err = nil
				f.holds(page["the-kernel-lacks-nftables"])
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// holds runs the command of the page.
func (f *faulty) holds(fault faults.Fault) {
	f.Helper()
	out, err := execute(f.T, fault.Args...)
	if differs := fault.Differs(out); differs != "" {
		f.Errorf("%s: %s%v", fault.Name, differs, err)
	}
	if code := codeOf(err); code != fault.Exit {
		f.Errorf("%s: exit code %d, want %d", fault.Name, code, fault.Exit)
	}
}

// holdsWhile runs the command of the page. If that traces packets, a client makes requests meanwhile. It
// tries again if none was traced, as when this machine is busy.
func (f *faulty) holdsWhile(row lab.Row, fault faults.Fault) {
	f.Helper()
	if !slices.Contains(fault.Args, "--live") {
		f.holds(fault)
		return
	}
	fault.Args[slices.Index(fault.Args, "--live")+1] = "1s" // what the page gives a person is longer
	load := f.lab.Steady(f.Context(), row.From, row.To.Proto, row.To.Addr, 100*time.Millisecond)
	defer load.Stop()
	for range 9 {
		if out, _ := execute(f.T, fault.Args...); fault.Differs(out) == "" {
			return
		}
	}
	f.holds(fault)
}

// faulty is a node with faults.
type faulty struct {
	*testing.T
	lab    *lab.Lab
	undo   []func()
	unable string // why the fault cannot be made here; "": it was made
}

// newFaultyLab makes a node whose pods are on a bridge, and the servers of the pods.
func newFaultyLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.New(lab.Options{Here: true, Bridge: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, pod := range []string{"10.244.1.11", "10.244.1.12", "10.244.2.11", "10.244.2.12"} {
		if err := l.Serve(netip.AddrPortFrom(netip.MustParseAddr(pod), 8080), "tcp"); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// startForFaults runs nftproxy in this process until the test ends, and waits until it has programmed
// everything.
func startForFaults(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd, done := newCommand(), make(chan error, 1)
	cmd.SetArgs([]string{"--source=../../testdata/faults", "--hostname-override=node-a",
		"--cluster-cidr=10.244.0.0/16", "--oom-score-adj=0", "--allowed-external-cidrs=203.0.113.0/24"})
	go func() { done <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("nftproxy ended with %v", err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := http.Get("http://127.0.0.1:10256/healthz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("nftproxy is not ready: %v", err)
		}
	}
}

// sysctl sets a sysctl of the node.
func (f *faulty) sysctl(name, value string) {
	f.Helper()
	file := filepath.Join("/proc/sys/net", name)
	before, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(value), 0)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.undo = append(f.undo, func() {
		if err := os.WriteFile(file, before, 0); err != nil {
			f.Fatal(err)
		}
	})
}

func forwardsNothing(f *faulty) { f.sysctl("ipv4/ip_forward", "0") }

// bridgesCallRules is what Kubernetes asks of nodes whose pods are on a bridge. The ports of the laboratory's
// bridge are not in hairpin mode.
func bridgesCallRules(f *faulty) { f.sysctl("bridge/bridge-nf-call-iptables", "1") }

// oneSubnet makes the pods of the node neighbours, as the CNI plugin bridge does: they answer each other
// without the node. The bridge of the laboratory calls no rules of IP.
func oneSubnet(f *faulty) {
	subnet := &net.IPNet{IP: net.IPv4(10, 244, 1, 0).To4(), Mask: net.CIDRMask(24, 32)}
	onBridge := &vnetlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 244, 1, 254).To4(), Mask: subnet.Mask}}
	bridge, err := vnetlink.LinkByName("cni0")
	if err == nil {
		err = vnetlink.AddrAdd(bridge, onBridge)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.undo = append(f.undo, func() { f.must(vnetlink.AddrDel(bridge, onBridge)) })
	for _, pod := range []string{"pod-a", "pod-b"} {
		route := func(change func(*vnetlink.Route) error) {
			f.must(f.lab.Namespace(pod).Do(func() error {
				link, err := vnetlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return change(&vnetlink.Route{LinkIndex: link.Attrs().Index, Dst: subnet,
					Scope: vnetlink.SCOPE_LINK})
			}))
		}
		route(vnetlink.RouteAdd)
		f.undo = append(f.undo, func() { route(vnetlink.RouteDel) })
	}
}

// callingRulesHelps is what the page says to do.
func callingRulesHelps(f *faulty) {
	bridgesCallRules(f)
	works := lab.Row{From: "pod-b", To: tcpTo("10.96.0.29:80"), By: []string{"pod-a"}, Source: "unchanged"}
	if _, err := f.lab.Check(f.Context(), works); err != nil {
		f.Error(err)
	}
}

func (f *faulty) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// hairpinHelps is what the page says to do.
func hairpinHelps(f *faulty) {
	port, err := vnetlink.LinkByName("veth-pod-a")
	if err == nil {
		err = vnetlink.LinkSetHairpin(port, true)
	}
	if err != nil {
		f.Fatal(err)
	}
	works := lab.Row{From: "pod-a", To: tcpTo("10.96.0.29:80"), By: []string{"pod-a"}}
	if _, err := f.lab.Check(f.Context(), works); err != nil {
		f.Error(err)
	}
	f.holds(faults.Fault{Name: "hairpin on", Args: []string{"explain", "default/self", "--from=10.244.1.11"},
		Lines: []string{"...", "verdict endpoint: 10.244.1.11:8080"}})
}

// program adds a table of another program.
func (f *faulty) program(table, content string) {
	f.Helper()
	if _, err := f.lab.Node().Nft(fmt.Sprintf("table %s {\n%s\n}\n", table, content)); err != nil {
		f.Fatal(err)
	}
	f.undo = append(f.undo, func() {
		if _, err := f.lab.Node().Nft("delete table " + table); err != nil {
			f.Fatal(err)
		}
	})
}

func firewall(f *faulty) {
	f.program("inet firewall", `chain forward { type filter hook forward priority filter; policy drop;
		ct state established,related accept; tcp dport 443 accept;
		}`)
}

func networkPolicy(f *faulty) {
	f.program("inet policies", `chain forward { type filter hook forward priority filter; policy accept;
		ct state established,related accept; ip saddr 10.244.1.12 ip daddr 10.244.2.11 jump default-deny;
		}
		chain default-deny { drop; }`)
}

func masquerades(f *faulty) {
	f.program("ip vpn", `chain postrouting { type nat hook postrouting priority srcnat - 10;
		ip saddr 10.244.0.0/16 masquerade;
		}`)
}

func usesTheMark(f *faulty) {
	f.program("inet vpn", `chain prerouting { type filter hook prerouting priority mangle;
		ip saddr 10.244.0.0/16 meta mark set meta mark | 0x4000;
		}`)
}

// resolvesNothing asks the cluster's DNS for the address of the Service.
func resolvesNothing(f *faulty) {
	dns := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = f.lab.Namespace("pod-b").Do(func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, "udp", "10.96.0.53:53")
			return err
		})
		return conn, err
	}}
	addrs, err := dns.LookupHost(f.Context(), "web.default.svc.cluster.local.")
	if err == nil {
		f.Errorf("DNS answers %v, want no answer", addrs)
	}
}

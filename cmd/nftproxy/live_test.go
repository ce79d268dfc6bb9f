package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rtnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/proxier/trace"
)

// TestLiveProbe traces probes: the line of the packet, and the summary, name what decides.
func TestLiveProbe(t *testing.T) {
	n := newProbedNode(t)
	before := n.ruleset(t)
	const closed = `dropped by rule "tcp dport 1001 drop" with comment "closed by the administrator", ` +
		`handle 3 of chain inet firewalld filter_IN_public; ` +
		`list it with nft -a list chain inet firewalld filter_IN_public`
	for target, want := range map[string][]string{ // parts of the lines, the last one of the last line
		"10.96.0.11:1001": {"10.96.0.11:1001, translated to 10.244.", "packet    dropped", closed},
		"10.96.0.10:80": {"packet    accepted: 192.0.2.1", "translated to 10.244.2.11:8080",
			"it leaves this node by eth0", "goto cluster-1", " packets: "},
		"[fd00:10:96::10]:80": {"translated to [fd00:10:244:2::11]:8080", "packet    accepted: [2001:db8::1]",
			" accepted"},
		"10.96.0.10:53/udp":  {"translated to 10.244.2.11:5353", "1 packet: accepted"},
		"10.96.0.10:80/sctp": {"translated to 10.244.2.11:8080", "1 packet: accepted"},
		"10.96.0.11:1004": {"ip other output handle 2: tcp dport 1004 dnat to 10.244.2.12:8080: accept",
			"packet    accepted", " accepted"},
		"10.96.0.11:1005": {"packet    refused", `refused by rule "tcp dport 1005 reject with tcp reset", handle `,
			"of chain inet firewalld filter_IN_public"},
		"default/empty": {"packet    refused", `refused by rule "meta l4proto tcp reject with tcp reset", handle `,
			"of chain ip nftproxy no-endpoints"},
		"192.0.2.2:9": {"packet    untouched: ", "1 packet: untouched"},
	} {
		out, _ := n.run(t, "explain", "--probe", "--live=5s", target)
		for _, part := range want {
			if !strings.Contains(out, part) {
				t.Errorf("%s:\n%s\nwant %q", target, out, part)
			}
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		last, part := lines[len(lines)-1], want[len(want)-1]
		if !strings.HasPrefix(last, "live ") || !strings.Contains(last, part) {
			t.Errorf("%s: the last line is %q, want the summary with %q", target, last, part)
		}
	}
	if diff := cmp.Diff(before, n.ruleset(t)); diff != "" {
		t.Errorf("the tables changed (-before +after):\n%s", diff)
	}
}

// ruleset returns all tables with the handles of their rules.
func (n *node) ruleset(t *testing.T) string {
	t.Helper()
	out, err := n.lab.Node().Nft("", "--stateless", "--handle", "list", "ruleset")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLive traces packets of a pod that the node forwards, past a chain that drops what it does not know. It
// does not trace those of another pod, and nobody else's.
func TestLive(t *testing.T) {
	n := newProbedNode(t)
	if _, err := n.lab.Node().Nft(`table inet strict { chain forward {
		type filter hook forward priority 5; policy drop
		ip daddr 10.244.2.11 tcp dport 8080 accept
		ip saddr 10.244.2.11 accept
	}; }`); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from   string // the client of the question
		target string
		fate   string
		last   string // a part of the last line
	}{
		{"10.244.1.12", "10.96.0.10:80", trace.Left, "accepted"},
		{"pod", "10.96.0.11:1002", trace.Dropped, "dropped by the policy of chain inet strict forward; " +
			"list it with nft -a list chain inet strict forward"},
		{"10.244.1.11", "10.96.0.11:1002", "", "no packet to 10.96.0.11:1002/tcp was seen"},
	} {
		stop := n.requests(t, "pod-b", netip.MustParseAddrPort(tt.target))
		report, _ := n.explain(t, "--live=2s", "--from="+tt.from, tt.target)
		stop()
		if report.Live == nil || !strings.Contains(report.Live.Summary, tt.last) {
			t.Fatalf("%s from %s: %+v, want a summary with %q", tt.target, tt.from, report.Live, tt.last)
		}
		for _, p := range report.Live.Packets {
			if p.Fate != tt.fate || p.Source.Addr().String() != "10.244.1.12" {
				t.Errorf("%s from %s: %+v, want that it is %s", tt.target, tt.from, p, tt.fate)
			}
		}
	}
}

// requests sends requests from a party again and again, until it is stopped.
func (n *node) requests(t *testing.T, from string, to netip.AddrPort) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
				go n.lab.Request(from, "tcp", to)
			}
		}
	}()
	return func() { close(done); <-stopped }
}

// TestLiveIsKilled kills explain while it traces: the kernel removes the table. Before Linux 5.12 the next
// trace does. Another one ends on SIGTERM, with what it has seen.
func TestLiveIsKilled(t *testing.T) {
	n := newProbedNode(t)
	before := n.ruleset(t)
	cmd, log := n.start(t, "explain", "--live=1m", "10.96.0.10:80")
	n.eventually(t, "the table of the trace", func() bool {
		return strings.Contains(n.ruleset(t), trace.TableName)
	})
	owned := n.traceIsOwned(t)
	if out, code, err := n.try("explain", "--live=1s", "10.96.0.10:80"); owned && (err == nil || code != 3 ||
		!strings.Contains(err.Error(), "another nftproxy explain --live runs on this node")) {
		t.Errorf("two at once: exit code %d, error %v: %s", code, err, out)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !owned {
		n.run(t, "explain", "--live=1ms", "10.96.0.10:80")
	}
	n.eventually(t, "no table of the trace", func() bool { return n.ruleset(t) == before })
	if t.Failed() {
		t.Logf("the killed command: %s", log)
	}
	cmd, log = n.start(t, "explain", "--live=1m", "10.96.0.10:80")
	n.eventually(t, "the table of the trace", func() bool {
		return strings.Contains(n.ruleset(t), trace.TableName)
	})
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if err != nil || !strings.Contains(log.String(), "\nlive      no packet to 10.96.0.10:80/tcp was seen") {
		t.Errorf("SIGTERM: error %v: %s", err, log)
	}
	if after := n.ruleset(t); after != before {
		t.Errorf("SIGTERM leaves %s", after)
	}
}

// traceIsOwned reports whether the table of the trace that runs has an owner, as since Linux 5.12.
func (n *node) traceIsOwned(t *testing.T) bool {
	t.Helper()
	owner := uint32(0)
	err := n.lab.Node().Do(func() error {
		conn, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, owner, _, err = conn.Table(unix.NFPROTO_IPV4, trace.TableName)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return owner != 0
}

// eventually waits until something is so.
func (n *node) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: want %s:\n%s", what, n.ruleset(t))
		}
	}
}

// TestLiveFates traces to a process of the node, and into a hole that no rule made.
func TestLiveFates(t *testing.T) {
	n := newNode(t, fates)
	if err := n.lab.Serve(netip.MustParseAddrPort("192.0.2.1:8080"), "tcp"); err != nil {
		t.Fatal(err)
	}
	n.addRoute(t, "10.244.9.0/24", unix.RTN_BLACKHOLE)
	for target, want := range map[string]string{
		"10.96.0.20:80": trace.Delivered, "10.96.0.21:80": trace.Lost,
	} {
		stop := n.requests(t, "pod-b", netip.MustParseAddrPort(target))
		report, _ := n.explain(t, "--live=2s", "--from=10.244.1.12", target)
		stop()
		if len(report.Live.Packets) == 0 {
			t.Errorf("%s: %s", target, report.Live.Summary)
		}
		for _, p := range report.Live.Packets {
			if p.Fate != want {
				t.Errorf("%s: %+v, want that it is %s", target, p, want)
			}
		}
	}
}

// fates are a Service with an endpoint on the node itself, and one whose endpoint no route leads to.
const fates = `
apiVersion: v1
kind: Service
metadata: {name: here, namespace: default}
spec: {clusterIPs: [10.96.0.20], ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: here-4, namespace: default, labels: {kubernetes.io/service-name: here}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [192.0.2.1], nodeName: node-a}]
---
apiVersion: v1
kind: Service
metadata: {name: nowhere, namespace: default}
spec: {clusterIPs: [10.96.0.21], ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: nowhere-4, namespace: default, labels: {kubernetes.io/service-name: nowhere}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.9.9], nodeName: node-b}]
`

// addRoute adds a route of the node without a next hop.
func (n *node) addRoute(t *testing.T, cidr string, kind int) {
	t.Helper()
	dst, err := rtnetlink.ParseIPNet(cidr)
	if err == nil {
		err = n.lab.Node().Do(func() error { return rtnetlink.RouteAdd(&rtnetlink.Route{Dst: dst, Type: kind}) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

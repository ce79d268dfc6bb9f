package main

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/probe"
)

// probed are a Service with a server of each protocol, one with troubles, and one without endpoints.
const probed = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIPs: [10.96.0.10, "fd00:10:96::10"]
  ports:
  - {name: tcp, port: 80}
  - {name: dns, protocol: UDP, port: 53}
  - {name: udp, protocol: UDP, port: 81}
  - {name: sctp, protocol: SCTP, port: 80}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-4, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports:
- {name: tcp, port: 8080}
- {name: dns, protocol: UDP, port: 5353}
- {name: udp, protocol: UDP, port: 8081}
- {name: sctp, protocol: SCTP, port: 8080}
endpoints:
- {addresses: [10.244.2.11], nodeName: node-b}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports:
- {name: tcp, port: 8080}
- {name: dns, protocol: UDP, port: 5353}
- {name: udp, protocol: UDP, port: 8081}
- {name: sctp, protocol: SCTP, port: 8080}
endpoints:
- {addresses: ["fd00:10:244:2::11"], nodeName: node-b}
---
apiVersion: v1
kind: Service
metadata: {name: trouble, namespace: default}
spec:
  clusterIPs: [10.96.0.11]
  ports:
  - {name: closed, port: 1000}
  - {name: drop-here, port: 1001}
  - {name: drop-there, port: 1002}
  - {name: prohibited, port: 1003}
  - {name: elsewhere, port: 1004}
  - {name: reset-here, port: 1005}
  - {name: closed-udp, protocol: UDP, port: 1000}
  - {name: silent-udp, protocol: UDP, port: 1002}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: trouble-4, namespace: default, labels: {kubernetes.io/service-name: trouble}}
addressType: IPv4
ports:
- {name: closed, port: 1000}
- {name: drop-here, port: 1001}
- {name: drop-there, port: 1002}
- {name: prohibited, port: 1003}
- {name: elsewhere, port: 1004}
- {name: reset-here, port: 1005}
- {name: closed-udp, protocol: UDP, port: 1000}
- {name: silent-udp, protocol: UDP, port: 1002}
endpoints: [{addresses: [10.244.1.11], nodeName: node-a}, {addresses: [10.244.2.11], nodeName: node-b}]
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: default}
spec: {clusterIPs: [10.96.0.12], ports: [{port: 80}]}
`

// here are rules of other programs on the node, and there at the endpoints.
const (
	here = `
table inet firewalld {
	chain filter_IN_public {
		tcp dport 1001 drop comment "closed by the administrator"
		tcp dport 1005 reject with tcp reset
	}
	chain filter_OUTPUT { type filter hook output priority filter + 10; jump filter_IN_public; }
}
table ip other {
	chain output { type nat hook output priority -150; tcp dport 1004 dnat to 10.244.2.12:8080; }
}`
	there = `
table inet networkpolicy {
	chain input {
		type filter hook input priority 0;
		tcp dport 1002 drop
		udp dport 1002 drop
		tcp dport 1003 reject with icmpx type admin-prohibited
	}
}`
)

// newProbedNode starts nftproxy with the Services above, servers at the endpoints, and the rules above.
func newProbedNode(t *testing.T) *node {
	t.Helper()
	n := newNode(t, probed)
	for _, s := range [][2]string{
		{"tcp", "10.244.2.11:8080"}, {"udp", "10.244.2.11:5353"}, {"sctp", "10.244.2.11:8080"},
		{"tcp", "[fd00:10:244:2::11]:8080"}, {"udp", "[fd00:10:244:2::11]:5353"},
		{"sctp", "[fd00:10:244:2::11]:8080"}, {"tcp", "10.244.2.12:8080"},
	} {
		if err := n.lab.Serve(netip.MustParseAddrPort(s[1]), s[0]); err != nil {
			t.Fatal(err)
		}
	}
	for party, rules := range map[string]string{"node": here, "pod-a": there, "pod-c": there} {
		if _, err := n.lab.Namespace(party).Nft(rules); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// probeCase is a probe with what came of it, a part of the line, and the exit code.
type probeCase struct {
	target string
	want   probe.Result // the endpoint "any" is any of the Service
	line   string
	code   int
}

// probeCases have what answers, refuses, drops and is not there.
func probeCases() map[string]probeCase {
	const left, stayed = "it left this node", "did not leave this node"
	return map[string]probeCase{
		"tcp": {"default/web:tcp", probe.Result{Sent: "SYN", Result: probe.Connected,
			Endpoint: "10.244.2.11:8080"}, "connected in", 0},
		"tcp6": {"[fd00:10:96::10]:80", probe.Result{Sent: "SYN", Result: probe.Connected,
			Endpoint: "[fd00:10:244:2::11]:8080"}, "connected in", 0},
		"dns": {"default/web:dns", probe.Result{Sent: "DNS query", Result: probe.Answered,
			Endpoint: "10.244.2.11:5353"}, "DNS query from 192.0.2.1:", 0},
		"dns6": {"[fd00:10:96::10]:53/udp", probe.Result{Sent: "DNS query", Result: probe.Answered,
			Endpoint: "[fd00:10:244:2::11]:5353"}, "answered in", 0},
		"sctp": {"default/web:sctp", probe.Result{Sent: "INIT", Result: probe.Answered, By: "INIT ACK",
			Endpoint: "10.244.2.11:8080"}, "answered by INIT ACK", 0},
		"sctp6": {"[fd00:10:96::10]:80/sctp", probe.Result{Sent: "INIT", Result: probe.Answered, By: "INIT ACK",
			Endpoint: "[fd00:10:244:2::11]:8080"}, "answered by INIT ACK", 0},
		"closed": {"10.96.0.11:1000", probe.Result{Sent: "SYN", Result: probe.Refused, By: "RST",
			Endpoint: "any"}, left, 0},
		"closed udp": {"10.96.0.11:1000/udp", probe.Result{Sent: "datagram", Result: probe.Refused,
			By: "ICMP type 3 code 3 (port unreachable) from the target itself", Endpoint: "any"}, left, 0},
		"prohibited": {"10.96.0.11:1003", probe.Result{Sent: "SYN", Result: probe.Unreachable,
			By: "ICMP type 3 code 13 (administratively prohibited) from the target itself", Endpoint: "any"}, left, 0},
		"dropped there": {"10.96.0.11:1002", probe.Result{Sent: "SYN", Result: probe.Nothing, Endpoint: "any"},
			"the rules say endpoint, nothing came back: something else drops it, try --live 10s", 0},
		"silent udp": {"10.96.0.11:1002/udp", probe.Result{Sent: "datagram", Result: probe.Nothing,
			Endpoint: "any"}, "normal for UDP", 0},
		"dropped here": {"10.96.0.11:1001", probe.Result{Sent: "SYN", Result: probe.Nothing}, stayed, 0},
		"elsewhere": {"10.96.0.11:1004", probe.Result{Sent: "SYN", Result: probe.Connected,
			Endpoint: "10.244.2.12:8080"}, "another program translates it, try --live 10s", 0},
		"reset here": {"10.96.0.11:1005", probe.Result{Sent: "SYN", Result: probe.Refused, By: "RST"},
			"the rules say endpoint, this node itself answers: a rule of another program", 0},
		"no endpoints": {"default/empty", probe.Result{Sent: "SYN", Result: probe.Refused, By: "RST"}, stayed, 1},
		"no such Service": {"192.0.2.2:9", probe.Result{Sent: "SYN", Result: probe.Refused, By: "RST",
			Endpoint: "192.0.2.2:9"}, "went to 192.0.2.2:9", 3},
	}
}

// TestProbe sends the probes of all cases at once.
func TestProbe(t *testing.T) {
	n := newProbedNode(t)
	for name, tt := range probeCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report, code := n.explain(t, "--probe", tt.target)
			if report.Probe == nil || code != tt.code {
				t.Fatalf("exit code %d, want %d: %+v", code, tt.code, report)
			}
			got, want := *report.Probe, tt.want
			if want.Endpoint == "any" && isEndpoint(report, got.Endpoint) {
				want.Endpoint = got.Endpoint
			}
			if !got.Source.IsValid() || got.Took == "" {
				t.Errorf("source %s, took %q", got.Source, got.Took)
			}
			ignored := cmpopts.IgnoreFields(probe.Result{}, "Source", "Took", "Again")
			if diff := cmp.Diff(want, got, ignored); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			last := report.Decisions[len(report.Decisions)-2:]
			if line := last[0].Subject + last[0].Result + last[0].Reason; !strings.Contains(line, tt.line) ||
				last[0].Subject != "probe" || last[1].Subject != "verdict" {
				t.Errorf("the last lines are %q, want a probe with %q and the verdict", last, tt.line)
			}
		})
	}
}

func isEndpoint(r explain.Report, to string) bool {
	return slices.ContainsFunc(r.Endpoints, func(e explain.Endpoint) bool {
		return fmt.Sprintf("%s:%d", e.Address, e.Port) == to
	})
}

// TestProbeSource asks about the node, which has several addresses: the answer is about the one from which
// the probe is sent.
func TestProbeSource(t *testing.T) {
	n := newProbedNode(t)
	for target, want := range map[string]string{
		"default/web:tcp": "192.0.2.1", "[fd00:10:96::10]:80": "2001:db8::1",
	} {
		report, _ := n.explain(t, "--probe", target)
		if p := report.Probe; p == nil || report.Client != want || p.Source.Addr().String() != want {
			t.Errorf("%s: the answer is about %s, the probe is %+v; want %s", target, report.Client, p, want)
		}
	}
}

// TestProbeForOthers asks about a client that is not the node.
func TestProbeForOthers(t *testing.T) {
	n := newProbedNode(t)
	out, _ := n.run(t, "explain", "--probe", "--from=10.244.1.12", "default/web:tcp")
	if want := "it is from this node, and may differ for 10.244.1.12"; !strings.Contains(out, want) {
		t.Errorf("%s\nwant %q", out, want)
	}
	for cidr, kind := range map[string]int{
		"198.18.0.1/32": unix.RTN_UNREACHABLE, "198.18.0.2/32": unix.RTN_BLACKHOLE,
	} {
		n.addRoute(t, cidr, kind)
		for _, port := range []string{":80/tcp", ":80/udp", ":80/sctp"} {
			out, _ := n.run(t, "explain", "--probe", strings.TrimSuffix(cidr, "/32")+port)
			if want := "unreachable by the network stack of this node ("; !strings.Contains(out, want) ||
				strings.Contains(out, "invalid AddrPort") {
				t.Errorf("%s%s: %s\nwant %q", cidr, port, out, want)
			}
		}
	}
	out, _ = n.run(t, "explain", "--probe", "default/nonesuch")
	if want := "probe    not sent: there is no address to send it to\nverdict"; !strings.Contains(out, want) {
		t.Errorf("%s\nwant %q", out, want)
	}
}

// TestProbeLoopback probes a nodePort on a loopback address, which nftproxy itself serves.
func TestProbeLoopback(t *testing.T) {
	const clusterIPs = "  clusterIPs: [10.96.0.10,"
	manifests := strings.Replace(probed, clusterIPs, "  type: NodePort\n"+clusterIPs, 1)
	manifests = strings.Replace(manifests, "{name: tcp, port: 80}", "{name: tcp, port: 80, nodePort: 30080}", 1)
	n := newNode(t, manifests, "--nodeport-addresses=localhost")
	if err := n.lab.Serve(netip.MustParseAddrPort("10.244.2.11:8080"), "tcp"); err != nil {
		t.Fatal(err)
	}
	report, code := n.explain(t, "--probe", "127.0.0.1:30080")
	if p := report.Probe; code != 0 || p == nil || p.Result != probe.Connected ||
		p.Endpoint != "127.0.0.1:30080" ||
		strings.Contains(report.Decisions[len(report.Decisions)-2].Reason, "another program") {
		t.Errorf("exit code %d, probe %+v in %+v", code, p, report)
	}
}

// TestProbeInPod probes and traces with the only capability that the pod of nftproxy has.
func TestProbeInPod(t *testing.T) {
	n := newProbedNode(t)
	for target, want := range map[string]string{
		"10.96.0.10:80":      "went to 10.244.2.11:8080",
		"10.96.0.10:53/udp":  "went to 10.244.2.11:5353",
		"10.96.0.10:80/sctp": "not sent: probe sctp 10.96.0.10:80: a raw socket sends it, which needs CAP_NET_RAW",
	} {
		var out []byte
		ran := make(chan error)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
			for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
				if c != unix.CAP_NET_ADMIN {
					_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) // fails for those that the kernel lacks
				}
			}
			ran <- n.lab.Node().Do(func() (err error) {
				out, err = process("explain", "--probe", "--live=5s", target).CombinedOutput()
				return err
			})
		}()
		if err := <-ran; err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: error %v\n%s\nwant %q", target, err, out, want)
		}
	}
}

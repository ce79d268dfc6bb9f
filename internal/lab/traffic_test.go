package lab

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeTraffic(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "traffic.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadTraffic(t *testing.T) {
	got, err := LoadTraffic(writeTraffic(t, `
- from: client
  to: tcp 203.0.113.10:80
  by: [pod-a, pod-c]
  source: node
  requests: 24
- from: node
  to: udp [fd00:10:96::a]:53
  refused: true
- {from: pod-d, to: "sctp 10.96.0.20:80", by: [host-pod, node-b], sticky: true}
- {from: client-2, to: "tcp 10.96.0.20:80", dropped: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	to := func(proto, addr string) Target { return Target{proto, netip.MustParseAddrPort(addr)} }
	want := []Row{
		{From: "client", To: to("tcp", "203.0.113.10:80"), By: []string{"pod-a", "pod-c"}, Source: "node",
			Requests: 24},
		{From: "node", To: to("udp", "[fd00:10:96::a]:53"), Refused: true},
		{From: "pod-d", To: to("sctp", "10.96.0.20:80"), By: []string{"host-pod", "node-b"}, Sticky: true},
		{From: "client-2", To: to("tcp", "10.96.0.20:80"), Dropped: true},
	}
	sameAddr := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff(want, got, sameAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var requests []int
	for _, row := range got {
		requests = append(requests, row.count())
	}
	if diff := cmp.Diff([]int{24, 4, 32, 2}, requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestLoadTrafficRejects(t *testing.T) {
	tests := []struct{ row, want string }{
		{`{from: client, to: "tcp 10.96.0.1:80", by: [pod-a], sources: node}`, `unknown field "sources"`},
		{`{from: client, from: node, to: "tcp 10.96.0.1:80", by: [pod-a]}`, `"from" already set`},
		{`{from: clown, to: "tcp 10.96.0.1:80", by: [pod-a]}`, `the lab has no party "clown"`},
		{`{from: client, by: [pod-a]}`, `to is missing`},
		{`{from: client, to: "10.96.0.1:80", by: [pod-a]}`, `want tcp, udp or sctp`},
		{`{from: client, to: "icmp 10.96.0.1:80", by: [pod-a]}`, `want tcp, udp or sctp`},
		{`{from: client, to: "tcp 10.96.0.1", by: [pod-a]}`, `target "tcp 10.96.0.1"`},
		{`{from: client, to: "tcp 10.96.0.1:80", by: [node]}`, `the lab has no server "node"`},
		{`{from: client, to: "tcp 10.96.0.1:80"}`, `exactly one of by, refused and dropped`},
		{`{from: client, to: "tcp 10.96.0.1:80", refused: true, dropped: true}`,
			`exactly one of by, refused and dropped`},
		{`{from: client, to: "tcp 10.96.0.1:80", by: [pod-a], refused: true}`,
			`exactly one of by, refused and dropped`},
		{`{from: client, to: "tcp 10.96.0.1:80", refused: true, source: node}`, `sticky and source need by`},
		{`{from: client, to: "tcp 10.96.0.1:80", by: [pod-a], source: pod-a}`,
			`want unchanged, node or an address`},
		{`{from: client, to: "tcp 10.96.0.1:80", by: [pod-a, pod-b], requests: 1}`,
			`1 requests are not enough`},
		{`{from: client, to: "tcp 10.96.0.1:80", by: [pod-a], requests: -1}`, `-1 requests are not enough`},
	}
	for _, tt := range tests {
		_, err := LoadTraffic(writeTraffic(t, "- "+tt.row))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\n%v\ndoes not say: %s", tt.row, err, tt.want)
		}
	}
}

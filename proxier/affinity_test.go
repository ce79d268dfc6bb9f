package proxier

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestAffinityFollowsEndpoints removes and adds endpoints. Clients of endpoints that stay keep them; clients
// of a removed one choose anew and keep that.
func TestAffinityFollowsEndpoints(t *testing.T) {
	for _, f := range []struct {
		name, to string
		first    netip.Addr
	}{{"ipv4", stickyAddr, firstClient}, {"ipv6", stickyAddr6, firstClient6}} {
		t.Run(f.name, func(t *testing.T) {
			w := newStickyWorld(t, stickyManifest, podA, podB, podC)
			before := w.askAll(t, w.clients(t, 40, f.first), f.to)
			w.scale(t, podA, podC, podD)
			after := w.askAll(t, slices.Collect(maps.Keys(before)), f.to)
			moved := 0
			for c, pod := range before {
				switch {
				case pod == "pod-b":
					moved++
					if after[c] == "pod-b" {
						t.Errorf("client %s reaches pod-b, which was removed", c)
					}
				case after[c] != pod:
					t.Errorf("client %s moved from %s, which stays, to %s", c, pod, after[c])
				}
			}
			if moved == 0 || moved == len(before) {
				t.Errorf("%d of %d clients were on pod-b: the test shows nothing", moved, len(before))
			}
			w.expectSame(t, after, f.to)
		})
	}
}

// TestAffinityRemovalIsImmediate removes an endpoint under load: no connection that begins after the commit
// reaches it.
func TestAffinityRemovalIsImmediate(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	clients := w.clients(t, 30, firstClient)
	w.askAll(t, clients, stickyAddr)
	type answer struct {
		begin time.Time
		pod   string
		err   error
	}
	var mu sync.Mutex
	var answers []answer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for i := range 4 {
		load.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				a := answer{begin: time.Now()}
				a.pod, a.err = w.ask(clients[n%len(clients)], stickyAddr)
				mu.Lock()
				answers = append(answers, a)
				mu.Unlock()
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	w.scale(t, podA, podC)
	committed := time.Now()
	time.Sleep(200 * time.Millisecond)
	stop()
	load.Wait()
	before, after := 0, 0
	for _, a := range answers {
		switch {
		case a.err != nil:
			t.Errorf("a connection failed: %v", a.err)
		case a.begin.After(committed):
			after++
			if a.pod == "pod-b" {
				t.Errorf("a connection that began %v after the commit reached pod-b", a.begin.Sub(committed))
			}
		case a.pod == "pod-b":
			before++
		}
	}
	if before == 0 || after < 10 {
		t.Errorf("%d connections to pod-b before, %d after: the test shows nothing", before, after)
	}
}

// TestAffinityBesideMasquerade lets another program masquerade everything before nftproxy's chain, as kindnet
// does. A client keeps its endpoint, because nftproxy remembers clients when it translates.
func TestAffinityBesideMasquerade(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	nftIn(t, w.Node(),
		"table ip other { chain p { type nat hook postrouting priority 95; masquerade; }; }\n", "-f", "-")
	first := w.askAll(t, w.clients(t, 20, firstClient), stickyAddr)
	for range 3 {
		w.expectSame(t, first, stickyAddr)
	}
}

// TestAffinityLocalTerminating has a pod with session affinity to a local endpoint, under policy Local. When
// that endpoint terminates and another node has a ready one, the pod goes there.
func TestAffinityLocalTerminating(t *testing.T) {
	w := newStickyWorld(t, strings.Replace(stickyManifest,
		"  sessionAffinity:", "  externalTrafficPolicy: Local\n  sessionAffinity:", 1), podA)
	row := lab.Row{From: "pod-b", To: target(t, "tcp "+stickyAddr), By: []string{"pod-a"}}
	checkRows(t, w.Lab, row)
	w.scale(t, "-"+podA, podC)
	row.By = []string{"pod-c"}
	// Traffic from outside goes to endpoints on this node only, and to terminating ones if there are no
	// others.
	checkRows(t, w.Lab, row, lab.Row{From: "client", To: target(t, "tcp "+stickyAddr), By: []string{"pod-a"}})
}

// TestAffinityLeavesNothing removes the session affinity of the last Service that has it: a full sync finds
// nothing to do.
func TestAffinityLeavesNothing(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB)
	w.askAll(t, w.clients(t, 5, firstClient), stickyAddr)
	w.dir.write(t, "sticky.yaml",
		strings.Replace(stickyManifest, "sessionAffinity: ClientIP", "sessionAffinity: None", 1))
	w.sync(t)
	if d := w.node.diff(t); !d.Empty() {
		t.Errorf("a full sync would change\n%s", deltaText(d))
	}
}

// TestAffinityTimeoutChanges gives the Service another timeout: clients keep their endpoints.
func TestAffinityTimeoutChanges(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	first := w.askAll(t, w.clients(t, 20, firstClient), stickyAddr)
	w.dir.write(t, "sticky.yaml", strings.Replace(stickyManifest, "  ports:",
		"  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}\n  ports:", 1))
	w.sync(t)
	w.expectSame(t, first, stickyAddr)
	text := nftIn(t, w.Node(), "", "list", "map", "ip", "nftproxy", "affinity")
	if !strings.Contains(text, "expires 9m") {
		t.Errorf("no client is remembered for 10 minutes:\n%s", text)
	}
}

// TestAffinityExpires waits longer than the timeout: the client is forgotten.
func TestAffinityExpires(t *testing.T) {
	w := newStickyWorld(t, strings.Replace(stickyManifest, "  ports:",
		"  sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}\n  ports:", 1), podA, podB, podC)
	client, seen := w.clients(t, 1, firstClient)[0], map[string]bool{}
	for range 20 {
		pod, err := w.ask(client, stickyAddr)
		if err != nil {
			t.Fatal(err)
		}
		if seen[pod] = true; len(seen) > 1 {
			return
		}
		time.Sleep(1100 * time.Millisecond)
	}
	t.Errorf("a client reached %v only, with pauses longer than the timeout", slices.Collect(maps.Keys(seen)))
}

// TestAffinityRestart starts a new process with clients remembered: it writes nothing, and the clients keep
// their endpoints.
func TestAffinityRestart(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	w.scale(t, podB, podC, podD) // slots are not in the order of addresses
	first := w.askAll(t, w.clients(t, 20, firstClient), stickyAddr)
	generation := w.node.generation(t)
	w.node = newNode(t, w.dir.dir, w.dir.dir, w.Node())
	w.sync(t)
	if now := w.node.generation(t); now != generation {
		t.Errorf("the restart moved the generation from %d to %d", generation, now)
	}
	w.expectSame(t, first, stickyAddr)
}

// TestAffinityMapIsFull fills the map of clients. A new client is served and not remembered; clients that are
// remembered keep their endpoints.
func TestAffinityMapIsFull(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	first := w.askAll(t, w.clients(t, 20, firstClient), stickyAddr)
	fillAffinity(t, w.Node(), service.Frontend{
		Addr: netip.MustParseAddr("198.51.100.20"), Protocol: service.TCP, Port: 80})
	w.expectSame(t, first, stickyAddr)
	fresh, seen := w.clients(t, 1, netip.MustParseAddr("192.0.2.190"))[0], map[string]bool{}
	for range 60 {
		pod, err := w.ask(fresh, stickyAddr)
		if err != nil {
			t.Fatalf("a new client is not served: %v", err)
		}
		seen[pod] = true
	}
	if len(seen) != 3 {
		t.Errorf("a client that is not remembered reached %v, want all three pods", slices.Collect(maps.Keys(seen)))
	}
}

// TestAffinityCollisions lets clients collide in the hash by which IPv6 clients are remembered: with a client
// of another Service, a connection goes to an endpoint of its own Service all the same; two clients of one
// frontend share what is remembered.
func TestAffinityCollisions(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB)
	w.dir.write(t, "web.yaml", stickyWeb)
	w.dir.write(t, "web-endpoints.yaml", stickyEndpoints("web", podC))
	w.sync(t)
	a, b := collision(t, netip.MustParseAddrPort(stickyAddr6), netip.MustParseAddrPort(webAddr6))
	w.addAddrs(t, a, b)
	for range 5 {
		if pod, err := w.ask(a, stickyAddr6); err != nil || pod != "pod-a" && pod != "pod-b" {
			t.Errorf("sticky: reached %q, %v", pod, err)
		}
		if pod, err := w.ask(b, webAddr6); err != nil || pod != "pod-c" {
			t.Errorf("web: reached %q, %v", pod, err)
		}
		text := nftIn(t, w.Node(), "", "list", "map", "ip6", "nftproxy", "affinity")
		if strings.Count(text, "expires") != 1 {
			t.Fatalf("%s and %s do not collide:\n%s", a, b, text)
		}
	}
	a, b = collision(t, netip.MustParseAddrPort(stickyAddr6), netip.MustParseAddrPort(stickyAddr6))
	w.addAddrs(t, a, b)
	first := w.askAll(t, []netip.Addr{a}, stickyAddr6)
	for range 10 {
		if pod, err := w.ask(b, stickyAddr6); err != nil || pod != first[a] {
			t.Errorf("reached %q, %v, want %s as the client that collides", pod, err, first[a])
		}
	}
}

// TestPriorityLeavesNoTrace counts packets that leave the node with a priority: forwarded or its own, with
// session affinity or without.
func TestPriorityLeavesNoTrace(t *testing.T) {
	w := newStickyWorld(t, stickyManifest, podA, podB, podC)
	w.dir.write(t, "web.yaml",
		strings.Replace(stickyWeb, "sessionAffinity: ClientIP", "sessionAffinity: None", 1))
	w.dir.write(t, "web-endpoints.yaml", stickyEndpoints("web", podA, podC))
	w.sync(t)
	nftIn(t, w.Node(), `table inet watch {
	chain p {
		type filter hook postrouting priority 300
		meta l4proto tcp counter
		meta l4proto tcp meta priority != none counter
	}
}
`, "-f", "-")
	for _, to := range []string{stickyAddr, stickyAddr6, "10.96.0.20:80", "[fd00:10:96::20]:80",
		webAddr6, "10.96.0.30:80", "[fd00:10:96::30]:80"} {
		for _, from := range []string{"client", "pod-b", "node"} {
			for range 5 {
				if r := w.Request(from, "tcp", netip.MustParseAddrPort(to)); r.Outcome != lab.Answered {
					t.Fatalf("%s to %s: %v, %v", from, to, r.Outcome, r.Err)
				}
			}
		}
	}
	var packets []int
	listing := nftIn(t, w.Node(), "", "list", "chain", "inet", "watch", "p")
	for _, text := range strings.Split(listing, "packets ")[1:] {
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatal(err)
		}
		packets = append(packets, n)
	}
	if len(packets) != 2 || packets[0] < 100 || packets[1] != 0 {
		t.Errorf("packets, and those of them with a priority: %d, want many and none", packets)
	}
}

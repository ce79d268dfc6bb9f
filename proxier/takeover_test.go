package proxier

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// migrationFile returns one of kube-proxy's rulesets, or their objects.
func migrationFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../testdata/migration", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestTakeOver starts the daemon on a node with kube-proxy's rules, under load, and goes back to them: no
// request is lost and a connection goes on.
func TestTakeOver(t *testing.T) {
	for name, test := range map[string]struct{ file, theirs, stays string }{
		"nftables mode": {"nftables.nft", "kube-proxy", "table ip nftproxy"},
		"iptables mode": {"iptables.nft", "KUBE-SERVICES", "jump KUBE-FIREWALL"},
	} {
		t.Run(name, func(t *testing.T) {
			if !lab.Alone(t) {
				return
			}
			l := newLab(t, lab.Options{Here: true})
			serve(t, l, podA, podC, "fd00:10:244:1::11", "fd00:10:244:2::11")
			theirs := migrationFile(t, test.file)
			nftIn(t, l.Node(), theirs, "-f", "-")
			echo := echoThroughService(t)
			loads := migrationLoads(t, l)
			dir := t.TempDir()
			d := &daemon{dir: dir}
			d.write(t, "objects.yaml", migrationFile(t, "objects.yaml"))
			release := ownTable(t)
			running := startDaemon(t, dir, "--take-over")
			time.Sleep(300 * time.Millisecond) // their rules must serve while nftproxy cannot program
			release()
			eventually(t, l.Node(), false, test.theirs)
			eventually(t, l.Node(), true, test.stays)
			echo()
			// kube-proxy's rules refused connections to this Service.
			d.write(t, "late.yaml", strings.ReplaceAll(endpointsManifest("empty", podA), "empty-1", "empty-4"))
			eventually(t, l.Node(), true, `10.96.0.20 . tcp . 80 comment "default/empty" : 4c00:1`)
			checkRows(t, l,
				lab.Row{From: "pod-b", To: target(t, "tcp 10.96.0.20:80"), By: []string{"pod-a"}},
				lab.Row{From: "client", To: target(t, "tcp 192.0.2.1:30080"), By: []string{"pod-a", "pod-c"}},
				lab.Row{From: "client", To: target(t, "tcp 198.51.100.10:80"), By: []string{"pod-a", "pod-c"}})
			running.stop()
			nftIn(t, l.Node(), theirs, "-f", "-")
			removeTables(t)
			echo()
			for _, load := range loads {
				if r := load.Stop(); r.Lost() > 0 || r.Sent < 10 {
					t.Errorf("%d of %d requests were lost: %v", r.Lost(), r.Sent, r.Err)
				}
			}
		})
	}
}

// ownTable creates a table with nftproxy's name that no other process can change, until release closes its
// owner.
func ownTable(t *testing.T) (release func()) {
	t.Helper()
	conn, err := netlink.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var b netlink.Batch
	b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFPROTO_IPV4)
	b.String(unix.NFTA_TABLE_NAME, nftables.TableName)
	b.U32(unix.NFTA_TABLE_FLAGS, 2) // NFT_TABLE_F_OWNER, Linux 5.12
	if err := conn.Commit(&b); err != nil {
		t.Fatal(err)
	}
	return func() { conn.Close() }
}

// migrationLoads starts steady requests to every kind of address of the Service.
func migrationLoads(t *testing.T, l *lab.Lab) (loads []*lab.Load) {
	t.Helper()
	for _, way := range []struct{ from, to string }{
		{"pod-b", "10.96.0.10:80"}, {"pod-b", "[fd00:10:96::a]:80"}, {"client", "192.0.2.1:30080"},
		{"client", "[2001:db8::1]:30080"}, {"client", "198.51.100.10:80"}, {"node", "10.96.0.10:80"},
	} {
		to := netip.MustParseAddrPort(way.to)
		loads = append(loads, l.Steady(t.Context(), way.from, "tcp", to, 5*time.Millisecond))
	}
	return loads
}

// echoThroughService opens a connection through the Service echo, and returns a function that checks that the
// connection still works in both directions.
func echoThroughService(t *testing.T) func() {
	t.Helper()
	listener, err := net.Listen("tcp", "192.0.2.1:7007")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	conn, err := net.DialTimeout("tcp", "10.96.0.30:7", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	fromClient, fromServer := bufio.NewReader(server), bufio.NewReader(conn)
	return func() {
		t.Helper()
		for _, way := range []struct {
			to   net.Conn
			from *bufio.Reader
		}{{conn, fromClient}, {server, fromServer}} {
			deadline := time.Now().Add(5 * time.Second)
			conn.SetDeadline(deadline)
			server.SetDeadline(deadline)
			if _, err := fmt.Fprintln(way.to, "hello"); err != nil {
				t.Fatalf("the connection ended: %v", err)
			}
			if _, err := way.from.ReadString('\n'); err != nil {
				t.Fatalf("the connection ended: %v", err)
			}
		}
	}
}

// removeTables does what `nftproxy cleanup` does.
func removeTables(t *testing.T) {
	t.Helper()
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if found, err := conn.Cleanup(service.Families()); err != nil || len(found) != 2 {
		t.Fatalf("cleanup: %v, %v", found, err)
	}
}

// TestTakeOverAsksKubeProxy takes over from a kube-proxy that serves its metrics at the address that is
// configured for nftproxy's: only after it has ended.
func TestTakeOverAsksKubeProxy(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l := newLab(t, lab.Options{Here: true})
	nftIn(t, l.Node(), migrationFile(t, "nftables.nft"), "-f", "-")
	asked := make(chan struct{}, 100)
	kubeProxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/proxyMode" {
			fmt.Fprint(w, "nftables")
			signal(asked)
		}
	}))
	defer kubeProxy.Close()
	addr := strings.TrimPrefix(kubeProxy.URL, "http://")
	startDaemon(t, webManifests(t, podA), "--take-over", "--metrics-bind-address="+addr)
	<-asked
	eventually(t, l.Node(), true, "goto cluster-1")
	eventually(t, l.Node(), true, "table ip kube-proxy")
	noted := func(want bool) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for {
			p, found := about(statusBySocket(t), "kube-proxy runs on this node, in mode nftables")
			if found == want && (!found || !p.Since.IsZero() && p.Todo != "") {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("after 10 s the status has the problem: %v, want %v", found, want)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	noted(true)
	kubeProxy.Close()
	eventually(t, l.Node(), false, "table ip kube-proxy")
	noted(false)
}

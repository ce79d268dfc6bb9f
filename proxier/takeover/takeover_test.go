package takeover

import (
	"bufio"
	"context"
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

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

const migrationDir = "../testdata/migration"

// migrationFile returns one of kube-proxy's rulesets.
func migrationFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(migrationDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestTakeOver starts the daemon on a node with kube-proxy's rules, under load, and
// goes back to them: no request is lost and a connection goes on.
func TestTakeOver(t *testing.T) {
	for name, test := range map[string]struct{ file, theirs, stays string }{
		"nftables mode": {"nftables.nft", "kube-proxy", "table ip nftproxy"},
		"iptables mode": {"iptables.nft", "KUBE-SERVICES", "jump KUBE-FIREWALL"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Options{})
			serve(t, l, podA, podC, "fd00:10:244:1::11", "fd00:10:244:2::11")
			theirs := migrationFile(t, test.file)
			nftIn(t, l.Node(), theirs, "-f", "-")
			echo := echoThroughService(t, l.Node())
			loads := migrationLoads(t, l)
			dir := t.TempDir()
			d := &daemon{dir: dir}
			d.write(t, "objects.yaml", migrationFile(t, "objects.yaml"))
			release := ownTable(t, l.Node())
			running := startDaemon(t, l.Node(), dir, "--take-over")
			time.Sleep(300 * time.Millisecond) // while nothing can be programmed, theirs must serve
			release()
			eventually(t, l.Node(), false, test.theirs)
			eventually(t, l.Node(), true, test.stays)
			echo()
			// kube-proxy's rules refused connections to this Service.
			d.write(t, "late.yaml", strings.ReplaceAll(endpointsManifest("empty", podA), "empty-1", "empty-4"))
			eventually(t, l.Node(), true, `10.96.0.20 . tcp . 80 comment "default/empty" : goto cluster-1`)
			checkRows(t, l,
				lab.Row{From: "pod-b", To: target(t, "tcp 10.96.0.20:80"), By: []string{"pod-a"}},
				lab.Row{From: "client", To: target(t, "tcp 192.0.2.1:30080"), By: []string{"pod-a", "pod-c"}},
				lab.Row{From: "client", To: target(t, "tcp 198.51.100.10:80"), By: []string{"pod-a", "pod-c"}})
			running.stop()
			nftIn(t, l.Node(), theirs, "-f", "-")
			cleanUp(t, l.Node())
			echo()
			for _, load := range loads {
				if r := load.Stop(); r.Lost() > 0 || r.Sent < 10 {
					t.Errorf("%d of %d requests were lost: %v", r.Lost(), r.Sent, r.Err)
				}
			}
		})
	}
}

// ownTable makes a table of nftproxy's name that nobody else can change, until it is
// released and gone.
func ownTable(t *testing.T, ns *lab.Namespace) (release func()) {
	t.Helper()
	conn, err := nft.Dial(nft.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	var b nft.Batch
	b.Message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFPROTO_IPV4)
	b.String(unix.NFTA_TABLE_NAME, nftables.TableName)
	b.U32(unix.NFTA_TABLE_FLAGS, 2) // NFT_TABLE_F_OWNER, Linux 5.12
	if err := conn.Commit(&b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return func() { conn.Close() }
}

// migrationLoads starts steady requests by every way to the Service.
func migrationLoads(t *testing.T, l *lab.Lab) (loads []*lab.Load) {
	t.Helper()
	for _, way := range []struct{ from, to string }{
		{"pod-b", "10.96.0.10:80"}, {"pod-b", "[fd00:10:96::a]:80"}, {"client", "192.0.2.1:30080"},
		{"client", "[2001:db8::1]:30080"}, {"client", "198.51.100.10:80"}, {"node", "10.96.0.10:80"},
	} {
		loads = append(loads, l.Steady(t.Context(), way.from, "tcp", netip.MustParseAddrPort(way.to), 5*time.Millisecond))
	}
	return loads
}

// echoThroughService opens a connection through the Service echo, and returns what
// proves that it still goes on.
func echoThroughService(t *testing.T, ns *lab.Namespace) func() {
	t.Helper()
	var listener net.Listener
	var conn net.Conn
	err := ns.Do(func() (err error) {
		if listener, err = net.Listen("tcp", "192.0.2.1:7007"); err != nil {
			return err
		}
		// The address in words would be looked up on another thread.
		conn, err = net.DialTimeout("tcp4", "10.96.0.30:7", 5*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); listener.Close() })
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

func cleanUp(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	conn, err := nft.Dial(nft.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if found, err := conn.Cleanup(service.Families()); err != nil || len(found) != 2 {
		t.Fatalf("cleanup: %v, %v", found, err)
	}
}

// watcher is a takeOver whose steps a test makes, and what it tells.
func newWatcher(t *testing.T, ns *lab.Namespace, remove bool, mode *string) (w *takeOver, told *[]string) {
	t.Helper()
	conn, err := nft.Dial(nft.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	told = &[]string{}
	return &takeOver{
		conn: conn, remove: remove, told: map[string]string{},
		running: func(context.Context) (string, error) { return *mode, nil },
		outside: func() ([]leftover, error) { return []leftover{{"interface kube-ipvs0", "delete it"}}, nil },
		note:    func(_, reason, note string) { *told = append(*told, reason+": "+note) },
	}, told
}

// TestTakeOverWaits has a kube-proxy that runs, ends, and comes back.
func TestTakeOverWaits(t *testing.T) {
	ns := newNamespace(t)
	theirs := migrationFile(t, "nftables.nft")
	nftIn(t, ns, theirs, "-f", "-")
	mode := "nftables"
	w, told := newWatcher(t, ns, true, &mode)
	step := func(wantPending, wantTheirs bool) {
		t.Helper()
		for range 2 { // the second time there is nothing new
			pending, err := w.step(t.Context())
			if err != nil || pending != wantPending {
				t.Errorf("pending %v, %v, want %v", pending, err, wantPending)
			}
		}
		if got := strings.Contains(nftIn(t, ns, "", "list", "ruleset"), "table ip kube-proxy"); got != wantTheirs {
			t.Errorf("kube-proxy's table is there: %v, want %v", got, wantTheirs)
		}
	}
	step(true, true)
	mode = ""
	step(false, false)
	nftIn(t, ns, theirs, "-f", "-")
	step(false, true)
	want := []string{
		"KubeProxyRuns: kube-proxy runs on this node, in mode nftables: a connection is translated by the rules that came first; when it has ended, what it leaves is removed",
		"TookOver: took over from kube-proxy: removed table ip kube-proxy, table ip6 kube-proxy",
		"KubeProxyRules: kube-proxy has left interface kube-ipvs0, which nftproxy does not remove: delete it",
		"KubeProxyRuns: what was taken over from kube-proxy is back, table ip kube-proxy, table ip6 kube-proxy: it runs on this node, and should not",
	}
	if diff := cmp.Diff(want, *told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// Without --take-over kube-proxy's rules are told of, once, and left alone.
func TestNoTakeOver(t *testing.T) {
	ns := newNamespace(t)
	nftIn(t, ns, migrationFile(t, "iptables.nft"), "-f", "-")
	mode := ""
	w, told := newWatcher(t, ns, false, &mode)
	before := nftIn(t, ns, "", "-s", "list", "ruleset")
	for range 2 {
		if pending, err := w.step(t.Context()); pending || err != nil {
			t.Errorf("pending %v, %v", pending, err)
		}
	}
	if diff := cmp.Diff(before, nftIn(t, ns, "", "-s", "list", "ruleset")); diff != "" {
		t.Errorf("the ruleset changed (-want +got):\n%s", diff)
	}
	if len(*told) != 2 || !strings.Contains((*told)[0], "--take-over removes them") {
		t.Errorf("told: %q", *told)
	}
}

// TestTakeOverAsksKubeProxy takes over from a kube-proxy that serves its metrics
// where ours are configured to be: only after it has ended.
func TestTakeOverAsksKubeProxy(t *testing.T) {
	ns := newNamespace(t)
	nftIn(t, ns, migrationFile(t, "nftables.nft"), "-f", "-")
	asked := make(chan struct{}, 100)
	kubeProxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/proxyMode" {
			fmt.Fprint(w, "nftables")
			signal(asked)
		}
	}))
	defer kubeProxy.Close()
	startDaemon(t, ns, webManifests(t, podA), "--take-over", "--metrics-bind-address="+strings.TrimPrefix(kubeProxy.URL, "http://"))
	<-asked
	eventually(t, ns, true, "goto cluster-1")
	eventually(t, ns, true, "table ip kube-proxy")
	kubeProxy.Close()
	eventually(t, ns, false, "table ip kube-proxy")
}

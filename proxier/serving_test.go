package proxier

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// listenIn listens on addresses in a network namespace and serves what kube-proxy does there. It returns a
// function that stops this.
func listenIn(t *testing.T, ns *lab.Namespace, addrs ...string) (stop func()) {
	t.Helper()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/proxyMode" {
			fmt.Fprint(w, "iptables")
		}
	})}
	for _, addr := range addrs {
		err := ns.Do(func() error {
			l, err := net.Listen("tcp", addr)
			if err == nil {
				go func() { _ = server.Serve(l) }() // ends when the server is closed
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = server.Close() })
	return func() { _ = server.Close() }
}

// connectIn connects to an address in a network namespace.
func connectIn(ns *lab.Namespace, addr string) error {
	return ns.Do(func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// TestListenFailed starts the program while others have its addresses. The log has one line for each server:
// for those of kube-proxy it is not an error.
func TestListenFailed(t *testing.T) {
	root := scratch(t)
	d := &daemon{dir: filepath.Join(root, "manifests")}
	d.write(t, "node.yaml", nodeManifest)
	const ofKubeProxy = `"kube-proxy runs on this node and has the address`
	const failed = `"Failed to listen, retrying"`
	for _, test := range []struct {
		name  string
		addrs []string
		want  map[string]int // lines in the log
	}{
		{"kube-proxy", []string{"127.0.0.1:10249", "0.0.0.0:10256"}, map[string]int{ofKubeProxy: 2, "\nE": 0}},
		{"another program", []string{"0.0.0.0:10256"}, map[string]int{failed: 1, "\nE": 1, ofKubeProxy: 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ns := lab.TestNamespace(t)
			stop := listenIn(t, ns, test.addrs...)
			c := confinement{caps: []uintptr{unix.CAP_NET_ADMIN}, ns: ns, root: root}
			p := c.start(t, "--source=/manifests", "--hostname-override=node-a", "--conntrack-max-per-core=0",
				"--cluster-cidr=10.244.0.0/16,fd00:10:244::/56")
			p.untilProgrammed(t, ns, d.dir)
			time.Sleep(4 * time.Second) // it tries three more times
			for text, want := range test.want {
				if got := strings.Count(p.log(), text); got != want {
					t.Errorf("%q is %d times in the log, want %d:\n%s", text, got, want, p.log())
				}
			}
			stop()
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				err := connectIn(ns, "127.0.0.1:10256")
				if err == nil {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("nftproxy does not listen on the address that is free now: %v", err)
				}
			}
		})
	}
}

package browser

import (
	"context"
	"flag"
	"math"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

const statusURL = "http://127.0.0.1:10249/status"

// Options of the test.
var (
	load     = flag.Duration("load", 2*time.Second, "how long to make connections before the test")
	pictures = flag.String("pictures", "", "the directory for pictures of the page")
)

// startNode starts nftproxy on a node of a lab, which is this process's network namespace, and returns the
// directory of its manifests.
func startNode(t *testing.T) (l *lab.Lab, manifests string) {
	t.Helper()
	l, err := lab.New(lab.Options{Here: true})
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	for _, port := range []uint16{8081, 8082, 8083, 8084, 8085, 9090} {
		for _, pod := range []string{"10.244.1.11", "10.244.1.12", "10.244.2.11", "10.244.2.12", "fd00:10:244:1::11"} {
			must(t, l.Serve(netip.AddrPortFrom(netip.MustParseAddr(pod), port), "tcp"))
		}
	}
	for _, pod := range []string{"10.244.1.11", "10.244.2.11"} {
		must(t, l.Serve(netip.AddrPortFrom(netip.MustParseAddr(pod), 8085), "udp"))
	}
	dir := t.TempDir()
	cluster, err := os.ReadFile("testdata/cluster.yaml")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "cluster.yaml"), cluster, 0o644))
	program := filepath.Join(t.TempDir(), "nftproxy")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "./cmd/nftproxy")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	daemon := exec.Command(program, "--source="+dir, "--hostname-override=node-a", "--oom-score-adj=0",
		"--cluster-cidr=10.244.0.0/16,fd00:10:244::/56")
	daemon.Stderr = t.Output()
	must(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Signal(os.Interrupt)
		_ = daemon.Wait()
	})
	deadline := time.Now().Add(10 * time.Second)
	for {
		resp, err := http.Get(statusURL)
		if err == nil {
			resp.Body.Close()
			return l, dir
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// connect makes connections to the Services until the end of the test, more and less of them like waves, and
// returns after some time.
func connect(t *testing.T, l *lab.Lab, manifests string, d time.Duration) {
	t.Helper()
	ctx := t.Context()
	for i, s := range []struct {
		from, proto, to string
		every           time.Duration
	}{
		{"pod-a", "tcp", "10.96.0.21:80", 90 * time.Millisecond},
		{"pod-b", "tcp", "[fd00:10:96::21]:80", 400 * time.Millisecond},
		{"pod-b", "tcp", "10.96.0.22:80", 60 * time.Millisecond},
		{"host-pod", "tcp", "10.96.0.22:9090", 5 * time.Second},
		{"pod-a", "tcp", "10.96.0.23:443", 250 * time.Millisecond},
		{"pod-b", "tcp", "10.96.0.23:443", 700 * time.Millisecond},
		{"client", "tcp", "203.0.113.10:443", 120 * time.Millisecond},
		{"client-2", "tcp", "192.0.2.1:30443", 900 * time.Millisecond},
		{"pod-a", "udp", "10.96.0.10:53", 35 * time.Millisecond},
		{"pod-b", "tcp", "10.96.0.10:53", 3 * time.Second},
	} {
		go func() {
			for begin := time.Now(); ctx.Err() == nil; {
				at := time.Since(begin).Seconds()
				wave := 1 + 0.6*math.Sin(at/70+float64(i)) + 0.25*math.Sin(at/17+3*float64(i))
				steady := l.Steady(ctx, s.from, s.proto, netip.MustParseAddrPort(s.to),
					time.Duration(float64(s.every)*max(wave, 0.2)))
				wait(ctx, 5*time.Second)
				steady.Stop()
			}
		}()
	}
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		scale(t, manifests, i%2 == 0)
		wait(ctx, min(7*time.Second, time.Until(end)))
	}
	for to, n := range map[string]int{"10.96.0.21:80": 41, "10.96.0.22:80": 12, "10.96.0.23:443": 7,
		"203.0.113.10:443": 28} {
		for range n {
			flow, err := l.Open("pod-b", "tcp", netip.MustParseAddrPort(to))
			must(t, err)
			t.Cleanup(func() { _ = flow.Close() })
		}
	}
}

// scale gives the cart one more endpoint, or takes it away.
func scale(t *testing.T, manifests string, more bool) {
	t.Helper()
	slice := "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: cart-3\n" +
		"  namespace: shop\n  labels: {kubernetes.io/service-name: cart}\naddressType: IPv4\n" +
		"ports: [{name: http, port: 8081}]\n"
	if more {
		slice += "endpoints: [{addresses: [10.244.2.12], nodeName: node-b}]\n"
	}
	file := filepath.Join(manifests, "cart-3.yaml")
	must(t, os.WriteFile(file+".new", []byte(slice), 0o644))
	must(t, os.Rename(file+".new", file))
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

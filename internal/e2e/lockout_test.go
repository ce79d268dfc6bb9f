//go:build e2e

package e2e

import (
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// front is an address of the node that leads to the API server, as that of a load balancer does.
type front struct {
	addr   string
	mu     sync.Mutex
	active []net.Conn
}

// newFront relays connections to an address of the node to the API server.
func newFront(t *testing.T, c *cluster, addr string) *front {
	t.Helper()
	admin, err := clientcmd.BuildConfigFromFlags("", c.plane.AdminKubeconfig)
	must(t, err)
	server, err := url.Parse(admin.Host)
	must(t, err)
	var listener net.Listener
	must(t, c.lab.Node().Do(func() (err error) {
		listener, err = net.Listen("tcp", addr)
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	f := &front{addr: addr}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			f.relay(t, c, client, server.Host)
		}
	}()
	return f
}

func (f *front) relay(t *testing.T, c *cluster, client net.Conn, to string) {
	server, err := c.dial(t.Context(), "tcp", to)
	if err != nil {
		client.Close()
		return
	}
	f.mu.Lock()
	f.active = append(f.active, client, server)
	f.mu.Unlock()
	go io.Copy(client, server)
	go io.Copy(server, client)
}

// cut closes all connections, so that nftproxy has to connect anew.
func (f *front) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.active {
		c.Close()
	}
	f.active = nil
}

// use makes the next nftproxy dial the API server there.
func (f *front) use(t *testing.T) {
	t.Helper()
	kubeconfig := filepath.Join(kubeProxyDir, "kubeconfig.conf")
	config, err := clientcmd.LoadFromFile(kubeconfig)
	must(t, err)
	for _, server := range config.Clusters {
		server.Server, server.TLSServerName = "https://"+f.addr, "127.0.0.1"
	}
	must(t, clientcmd.WriteToFile(*config, kubeconfig))
}

// TestNoLockOut lets a Service claim the address and port at which nftproxy dials the API server, first while
// nftproxy runs, and then before: an earlier process, which dialed another address, left rules that take the
// connections. nftproxy follows the API server all the same, and an Event says what the Service does not get.
func TestNoLockOut(t *testing.T) {
	c := newCluster(t)
	api, other := newFront(t, c, "192.0.2.1:6443"), newFront(t, c, "192.0.2.1:8443")
	follows := func(name string) {
		t.Helper()
		spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("", 80, 8080)}}
		svc := c.service(t, newService(name, spec), "pod-a")
		// The client dials again at intervals that grow to 20 s.
		c.checkWithin(t, 40*time.Second,
			lab.Row{From: "pod-b", To: target("tcp", svc.Spec.ClusterIP, 80), By: []string{"pod-a"}})
	}
	claim := corev1.ServiceSpec{ExternalIPs: []string{"192.0.2.1"},
		Ports: []corev1.ServicePort{tcp("a", 6443, 8080), tcp("b", 7443, 8080)}}
	const refused = "192.0.2.1 . tcp . 6443: is not programmed, because the node needs it for the API server"

	api.use(t)
	p := c.startProxy(t)
	follows("before")
	c.service(t, newService("thief", claim), "pod-a")
	c.check(t, lab.Row{From: "client", To: target("tcp", "192.0.2.1", 7443), By: []string{"pod-a"}})
	api.cut()
	follows("after")
	c.reported(t, "NotProgrammed", "thief", refused)

	p.stop(t)
	other.use(t)
	p = c.startProxy(t)
	c.check(t, lab.Row{From: "client", To: target("tcp", "192.0.2.1", 6443), By: []string{"pod-a"}})
	p.stop(t)
	api.use(t)
	c.startProxy(t)
	follows("moved")
	c.check(t, lab.Row{From: "client", To: target("tcp", "192.0.2.1", 7443), By: []string{"pod-a"}})
}

// reported waits for an Event about a Service.
func (c *cluster) reported(t *testing.T, reason, service, text string) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list, err := c.client.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
		must(t, err)
		for _, e := range list.Items {
			if e.Reason == reason && e.Regarding.Name == service && strings.Contains(e.Note, text) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no Event %s about %s with %q among %d", reason, service, text, len(list.Items))
		}
	}
}

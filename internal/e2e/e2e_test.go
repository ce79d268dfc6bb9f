//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestCluster runs nftproxy with the configuration file of a kubeadm cluster and the rights of the manifests,
// through the events in the life of a cluster.
func TestCluster(t *testing.T) {
	c := newCluster(t)
	p := c.startProxy(t)
	t.Run("serves kube-proxy's ports", func(t *testing.T) { servesPorts(t, c) })
	t.Run("replaces pods under load", func(t *testing.T) { replacesPods(t, c) })
	t.Run("moves UDP flows", func(t *testing.T) { movesFlows(t, c) })
	t.Run("explains", func(t *testing.T) { explains(t, c) })
	t.Run("follows annotations", func(t *testing.T) { followsAnnotations(t, c) })
	t.Run("tops", func(t *testing.T) { tops(t, c) })
	t.Run("answers health checks", func(t *testing.T) { answersHealthChecks(t, c) })
	t.Run("reports conflicts", func(t *testing.T) { reportsConflicts(t, c) })
	t.Run("survives the API server", func(t *testing.T) { survivesAPIServer(t, c) })
	t.Run("restarts under load", func(sub *testing.T) { p = restartsUnderLoad(t, sub, c, p) })
	t.Run("follows its Node", func(t *testing.T) { followsNode(t, c) })
	t.Run("keeps its configuration", func(t *testing.T) { keepsConfig(t, c) })
	t.Run("restarts for its configuration", func(t *testing.T) { restartsForConfig(t, c, p) })
}

func tcp(name string, port, targetPort int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: corev1.ProtocolTCP, Port: port,
		TargetPort: intstr.FromInt32(targetPort)}
}

func udp(name string, port, targetPort int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: corev1.ProtocolUDP, Port: port,
		TargetPort: intstr.FromInt32(targetPort)}
}

func newService(name string, spec corev1.ServiceSpec) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
}

func servesPorts(t *testing.T, c *cluster) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if status, _, _ := c.get(t, "http://127.0.0.1:10256/healthz"); status == 200 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("/healthz answers %d after 30 s", status)
		}
	}
	for url, want := range map[string]string{
		"http://127.0.0.1:10256/livez":     `"lastUpdated"`,
		"http://127.0.0.1:10249/healthz":   "ok",
		"http://127.0.0.1:10249/statusz":   "Paths: /configz /flagz /healthz /metrics /proxyMode",
		"http://127.0.0.1:10249/flagz":     "hostname-override=" + lab.NodeName + "\n",
		"http://127.0.0.1:10249/proxyMode": "nftables",
		"http://127.0.0.1:10249/configz":   `"clusterCIDR":"10.244.0.0/16,fd00:10:244::/56"`,
		"http://127.0.0.1:10249/metrics":   "kubeproxy_sync_proxy_rules_duration_seconds_count",
	} {
		if status, _, body := c.get(t, url); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %q: %.300s", url, status, want, body)
		}
	}
}

// replacesPods creates, scales, rolls and deletes a Service under steady load.
func replacesPods(t *testing.T, c *cluster) {
	svc := c.service(t, newService("web", corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort,
		Ports: []corev1.ServicePort{tcp("http", 80, 8080), udp("dns", 53, 5353)}}), "pod-a", "pod-b")
	web, dns := target("tcp", svc.Spec.ClusterIP, 80), target("udp", svc.Spec.ClusterIP, 53)
	nodePort := target("tcp", "192.0.2.1", svc.Spec.Ports[0].NodePort)
	c.check(t, lab.Row{From: "pod-b", To: web, By: []string{"pod-a", "pod-b"}})
	loads := []*lab.Load{
		c.lab.Steady(t.Context(), "pod-b", "tcp", web.Addr, 2*time.Millisecond),
		c.lab.Steady(t.Context(), "pod-b", "udp", dns.Addr, 2*time.Millisecond),
		c.lab.Steady(t.Context(), "client", "tcp", nodePort.Addr, 2*time.Millisecond),
	}
	yes, no := true, false
	all := []string{"pod-a", "pod-b", "pod-c", "pod-d"}
	terminating := func(pods ...string) []discoveryv1.Endpoint {
		list := endpoints(pods...)
		for i := range list {
			list[i].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
		}
		return list
	}
	c.setEndpoints(t, "web", endpoints(all...))
	c.check(t, lab.Row{From: "client", To: nodePort, By: all})
	for i := range 2 {
		// A pod terminates before it is gone, and answers requests that are on their way.
		c.setEndpoints(t, "web", append(terminating(all[i]), endpoints(all[i+1:]...)...))
		c.check(t, lab.Row{From: "client", To: nodePort, By: all[i+1:]})
		c.setEndpoints(t, "web", endpoints(all[i+1:]...))
	}
	// The last ones terminate while they still serve, and there are no others.
	draining := terminating("pod-c", "pod-d")
	c.setEndpoints(t, "web", draining)
	c.setEndpoints(t, "web", append(draining, endpoints("pod-a")...))
	c.check(t, lab.Row{From: "client", To: nodePort, By: []string{"pod-a"}})
	for _, load := range loads {
		if r := load.Stop(); r.Lost() > 0 || r.Sent < 20 {
			t.Errorf("%d of %d requests were lost: %v", r.Lost(), r.Sent, r.Err)
		}
	}
	const measured = "kubeproxy_network_programming_duration_seconds_count"
	if _, _, body := c.get(t, "http://127.0.0.1:10249/metrics"); !strings.Contains(body, measured) {
		t.Errorf("%s is not in the metrics", measured)
	}
	must(t, c.client.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	c.check(t, lab.Row{From: "pod-b", To: web, Dropped: true})
}

// movesFlows uses one UDP socket while its endpoints change.
func movesFlows(t *testing.T, c *cluster) {
	spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{udp("dns", 53, 5353)}}
	svc := c.service(t, newService("dns", spec), "pod-a")
	conn, err := c.dial(t.Context(), "udp", net.JoinHostPort(svc.Spec.ClusterIP, "53"))
	must(t, err)
	defer conn.Close()
	ask := func(want string) {
		t.Helper()
		var last string
		for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
			buf := make([]byte, 200)
			must(t, conn.SetDeadline(time.Now().Add(200*time.Millisecond)))
			_, _ = conn.Write([]byte("?"))
			n, err := conn.Read(buf)
			if last = string(buf[:n]); err == nil && strings.HasPrefix(last, want+" ") {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("the flow is answered by %q, want %s", last, want)
	}
	ask("pod-a")
	c.setEndpoints(t, "dns", endpoints("pod-b"))
	ask("pod-b")
	c.setEndpoints(t, "dns", endpoints())
	c.check(t, lab.Row{From: "pod-b", To: target("udp", svc.Spec.ClusterIP, 53), Refused: true})
	c.setEndpoints(t, "dns", endpoints("pod-c"))
	ask("pod-c")
}

func answersHealthChecks(t *testing.T, c *cluster) {
	svc := c.service(t, newService("lb", corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer,
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
		Ports:                 []corev1.ServicePort{tcp("http", 80, 8080)}}), "pod-a", "pod-c")
	url := fmt.Sprintf("http://192.0.2.1:%d/", svc.Spec.HealthCheckNodePort)
	answers := func(status int, weight string) {
		t.Helper()
		var got int
		var header string
		deadline := time.Now().Add(15 * time.Second)
		for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			s, h, body := c.get(t, url)
			got, header = s, h.Get("X-Load-Balancing-Endpoint-Weight")
			if got == status && header == weight && strings.Contains(body, `"localEndpoints"`) {
				return
			}
		}
		t.Errorf("%s: status %d, weight %q, want %d, %q", url, got, header, status, weight)
	}
	answers(200, "1")
	c.setEndpoints(t, "lb", endpoints("pod-c"))
	answers(503, "0")
}

// reportsConflicts creates two Services with the same external IP: the younger one gets an Event.
func reportsConflicts(t *testing.T, c *cluster) {
	for _, name := range []string{"older", "younger"} {
		c.service(t, newService(name, corev1.ServiceSpec{ExternalIPs: []string{"198.51.100.7"},
			Ports: []corev1.ServicePort{tcp("", 80, 8080)}}), "pod-a")
		time.Sleep(1100 * time.Millisecond) // the API server's time stamps have seconds
	}
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list, err := c.client.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
		must(t, err)
		for _, e := range list.Items {
			if e.Reason == "FrontendConflict" && e.Regarding.Name == "younger" &&
				strings.Contains(e.Note, "default/older") {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no Event about the conflict among %d", len(list.Items))
		}
	}
}

// survivesAPIServer kills the API server twice: the rules stay, and afterwards changes arrive again.
func survivesAPIServer(t *testing.T, c *cluster) {
	spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("", 80, 8080)}}
	svc := c.service(t, newService("steady", spec), "pod-a", "pod-c")
	to := target("tcp", svc.Spec.ClusterIP, 80)
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-a", "pod-c"}})
	before := c.generation(t)
	load := c.lab.Steady(t.Context(), "pod-b", "tcp", to.Addr, 5*time.Millisecond)
	start := func() {
		t.Helper()
		must(t, c.lab.Node().Do(func() error { return c.plane.APIServer.Start(t.Context()) }))
	}
	for range 2 {
		c.plane.APIServer.Kill()
		start()
	}
	if r := load.Stop(); r.Lost() > 0 {
		t.Errorf("%d of %d requests were lost: %v", r.Lost(), r.Sent, r.Err)
	}
	if after := c.generation(t); after != before {
		t.Errorf("%d transactions while the API server was away", after-before)
	}
	c.setEndpoints(t, "steady", endpoints("pod-c"))
	back := time.Now()
	for c.generation(t) == before && time.Since(back) < time.Minute {
		time.Sleep(50 * time.Millisecond) // the client retries watches at growing intervals
	}
	t.Logf("the first change after the API server was back arrived after %v",
		time.Since(back).Round(time.Millisecond))
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-c"}})
}

// restartsUnderLoad returns the new nftproxy, which runs until the end of the whole test.
func restartsUnderLoad(all, t *testing.T, c *cluster, p *proxy) *proxy {
	spec := corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("", 80, 8080)}}
	svc := c.service(t, newService("kept", spec), "pod-a", "pod-c")
	to := target("tcp", svc.Spec.ClusterIP, 80)
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-a", "pod-c"}})
	load := c.lab.Steady(t.Context(), "pod-b", "tcp", to.Addr, 2*time.Millisecond)
	before := c.generation(t)
	p.stop(t)
	next := c.startProxy(all)
	servesPorts(t, c)
	if r := load.Stop(); r.Lost() > 0 {
		t.Errorf("%d of %d requests were lost: %v", r.Lost(), r.Sent, r.Err)
	}
	if after := c.generation(t); after != before {
		t.Errorf("the restart made %d transactions", after-before)
	}
	return next
}

// followsNode changes and taints the Node.
func followsNode(t *testing.T, c *cluster) {
	svc := c.service(t, newService("np", corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort,
		Ports: []corev1.ServicePort{tcp("", 80, 8080)}}), "pod-a")
	node, err := c.client.CoreV1().Nodes().Get(t.Context(), lab.NodeName, metav1.GetOptions{})
	must(t, err)
	node.Status.Addresses[0].Address = "192.0.2.77" // not an address of the node, but the first of its object
	_, err = c.client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	must(t, err)
	c.check(t, lab.Row{From: "node", To: target("tcp", "192.0.2.77", svc.Spec.Ports[0].NodePort),
		By: []string{"pod-a"}})
	node, err = c.client.CoreV1().Nodes().Get(t.Context(), lab.NodeName, metav1.GetOptions{})
	must(t, err)
	node.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler",
		Effect: corev1.TaintEffectNoSchedule}}
	_, err = c.client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{})
	must(t, err)
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		healthz, _, _ := c.get(t, "http://127.0.0.1:10256/healthz")
		livez, _, _ := c.get(t, "http://127.0.0.1:10256/livez")
		if healthz == 503 && livez == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("with the taint: /healthz %d, /livez %d, want 503, 200", healthz, livez)
		}
	}
}

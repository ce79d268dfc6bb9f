//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/internal/controlplane"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

const root = "../.."

// TestMain builds the programs before it enters namespaces, which have no network.
func TestMain(m *testing.M) {
	if _, err := controlplane.Build(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", binary(), "./cmd/nftproxy")
	build.Dir, build.Stderr, build.Env = root, os.Stderr, append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build nftproxy:", err)
		os.Exit(1)
	}
	lab.Main(m)
}

// binary returns the path of the nftproxy under test.
func binary() string {
	path, err := filepath.Abs(filepath.Join(root, ".cache", "e2e", "nftproxy"))
	if err != nil {
		panic(err) // there is no working directory
	}
	return path
}

// cluster is a lab whose node runs a control plane and nftproxy.
type cluster struct {
	lab    *lab.Lab
	plane  *controlplane.ControlPlane
	client kubernetes.Interface
	config string // path of the configuration file
	conn   *netlink.Conn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kubeProxyDir is where a kubeadm cluster has the files of kube-proxy.
const kubeProxyDir = "/var/lib/kube-proxy"

// newCluster starts a control plane on the lab's node and creates what kubeadm creates: the Node, the account
// with the rights of manifests/base, and kube-proxy's files.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	l, err := lab.New(lab.Options{})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	c := &cluster{lab: l, config: filepath.Join(kubeProxyDir, "config.conf")}
	built, err := controlplane.Build(t.Context())
	must(t, err)
	dir := t.TempDir()
	must(t, l.Node().Do(func() (err error) {
		c.plane, err = controlplane.Start(t.Context(), controlplane.Options{Binary: built, Dir: dir})
		return err
	}))
	t.Cleanup(c.plane.Close)
	c.client = c.admin(t)
	must(t, l.Node().Do(func() (err error) {
		c.conn, err = netlink.Dial()
		return err
	}))
	t.Cleanup(func() { c.conn.Close() })
	c.grant(t)
	c.kubeadmFiles(t)
	c.createNode(t)
	return c
}

// admin returns a client with all rights, which connects from the node.
func (c *cluster) admin(t *testing.T) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", c.plane.AdminKubeconfig)
	must(t, err)
	config.QPS, config.Dial = -1, c.dial
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	return client
}

// dial connects from the node.
func (c *cluster) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = c.lab.Node().Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// get sends a request from the node and returns status, header and body.
func (c *cluster) get(t *testing.T, url string) (int, http.Header, string) {
	t.Helper()
	transport := &http.Transport{DialContext: c.dial, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	must(t, err)
	return resp.StatusCode, resp.Header, body.String()
}

// grant gives nftproxy's account exactly the rights of the manifests.
func (c *cluster) grant(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "manifests", "base", "clusterrole.yaml"))
	must(t, err)
	var role rbacv1.ClusterRole
	must(t, yaml.UnmarshalStrict(data, &role))
	_, err = c.client.RbacV1().ClusterRoles().Create(t.Context(), &role, metav1.CreateOptions{})
	must(t, err)
	_, err = c.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "nftproxy"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{
			{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: "nftproxy"},
		},
	}, metav1.CreateOptions{})
	must(t, err)
}

// kubeadmFiles puts the unchanged configuration of a kubeadm cluster and a kubeconfig where kube-proxy has
// them.
func (c *cluster) kubeadmFiles(t *testing.T) {
	t.Helper()
	must(t, unix.Mount("tmpfs", "/var/lib", "tmpfs", 0, "")) // in our mount namespace only
	t.Cleanup(func() { _ = unix.Unmount("/var/lib", unix.MNT_DETACH) })
	must(t, os.MkdirAll(kubeProxyDir, 0o755))
	for from, to := range map[string]string{
		filepath.Join(root, "proxier", "config", "testdata", "kubeadm.yaml"): c.config,
		c.plane.ProxyKubeconfig: filepath.Join(kubeProxyDir, "kubeconfig.conf"),
	} {
		data, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(to, data, 0o644))
	}
}

func (c *cluster) createNode(t *testing.T) {
	t.Helper()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: lab.NodeName},
		Spec: corev1.NodeSpec{
			PodCIDR:  "10.244.1.0/24",
			PodCIDRs: []string{"10.244.1.0/24", "fd00:10:244:1::/64"},
		},
	}
	node, err := c.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	must(t, err)
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
		{Type: corev1.NodeInternalIP, Address: "2001:db8::1"},
	}
	_, err = c.client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	must(t, err)
}

// proxy is a running nftproxy.
type proxy struct {
	cmd *exec.Cmd
	log string
}

// startProxy runs nftproxy on the node as a kubeadm cluster runs kube-proxy, with more variables of the
// environment.
func (c *cluster) startProxy(t *testing.T, environment ...string) *proxy {
	t.Helper()
	cmd := exec.Command(binary(), "--config="+c.config, "--hostname-override="+lab.NodeName)
	cmd.Env = append(os.Environ(), environment...)
	return c.start(t, cmd)
}

// start runs a command on the node that is or becomes nftproxy.
func (c *cluster) start(t *testing.T, cmd *exec.Cmd) *proxy {
	t.Helper()
	p := &proxy{log: filepath.Join(t.TempDir(), "nftproxy.log")}
	log, err := os.Create(p.log)
	must(t, err)
	defer log.Close()
	must(t, c.lab.Node().Do(func() error {
		p.cmd = cmd
		p.cmd.Stdout, p.cmd.Stderr = log, log
		return p.cmd.Start()
	}))
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// stop stops nftproxy as a kubelet does; its exit code must be 0.
func (p *proxy) stop(t *testing.T) {
	t.Helper()
	must(t, p.cmd.Process.Signal(unix.SIGTERM))
	if err := p.cmd.Wait(); err != nil {
		text, _ := os.ReadFile(p.log)
		t.Fatalf("nftproxy ended with %v:\n%s", err, text)
	}
}

// pod returns the address of a pod of the lab, and the node that it runs on.
func pod(name string) (addr, node string) {
	pods := map[string][2]string{
		"pod-a": {"10.244.1.11", "node-a"}, "pod-b": {"10.244.1.12", "node-a"},
		"pod-c": {"10.244.2.11", "node-b"}, "pod-d": {"10.244.2.12", "node-b"},
	}
	return pods[name][0], pods[name][1]
}

// service creates a Service with these ports, and its endpoints.
func (c *cluster) service(t *testing.T, svc *corev1.Service, pods ...string) *corev1.Service {
	t.Helper()
	svc, err := c.client.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{})
	must(t, err)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   svc.Name + "-1",
			Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range svc.Spec.Ports {
		target := p.TargetPort.IntVal
		port := discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &target}
		slice.Ports = append(slice.Ports, port)
	}
	slice.Endpoints = endpoints(pods...)
	_, err = c.client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), slice,
		metav1.CreateOptions{})
	must(t, err)
	must(t, c.lab.ServeEndpoints([]*discoveryv1.EndpointSlice{slice}))
	return svc
}

func endpoints(pods ...string) []discoveryv1.Endpoint {
	list := []discoveryv1.Endpoint{}
	for _, name := range pods {
		addr, node := pod(name)
		list = append(list, discoveryv1.Endpoint{Addresses: []string{addr}, NodeName: &node})
	}
	return list
}

// setEndpoints replaces the endpoints of a Service; servers for new ones run first.
func (c *cluster) setEndpoints(t *testing.T, service string, list []discoveryv1.Endpoint) {
	t.Helper()
	slice, err := c.client.DiscoveryV1().EndpointSlices("default").Get(t.Context(), service+"-1",
		metav1.GetOptions{})
	must(t, err)
	slice.Endpoints = list
	must(t, c.lab.ServeEndpoints([]*discoveryv1.EndpointSlice{slice}))
	now := time.Now().UTC().Format(time.RFC3339Nano)
	slice.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: now}
	_, err = c.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice,
		metav1.UpdateOptions{})
	must(t, err)
}

// check makes the requests of a row until they have the expected outcome, for as long as a change may take to
// arrive.
func (c *cluster) check(t *testing.T, row lab.Row) {
	t.Helper()
	c.checkWithin(t, 15*time.Second, row)
}

// checkWithin makes the requests of a row until they have the expected outcome, for that long.
func (c *cluster) checkWithin(t *testing.T, limit time.Duration, row lab.Row) {
	t.Helper()
	var err error
	deadline := time.Now().Add(limit)
	for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err = c.lab.Check(t.Context(), row); err == nil {
			return
		}
	}
	t.Error(err)
}

func target(proto, addr string, port int32) lab.Target {
	return lab.Target{Proto: proto, Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))}
}

func (c *cluster) generation(t *testing.T) uint32 {
	t.Helper()
	g, err := c.conn.Generation()
	must(t, err)
	return g
}

//go:build e2e

package controlplane

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/source"
)

func TestMain(m *testing.M) {
	// The build may download modules, which is not possible in the network namespace of the lab.
	if _, err := Build(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lab.Main(m)
}

// TestSource checks that the API source delivers changes after any restart of the control plane, and after
// the loss of its data.
func TestSource(t *testing.T) {
	c := start(t)
	admin := c.admin(t)
	f := follow(t, c)

	f.await(t, "! services", "! endpointslices", "! nodes", "! servicecidrs") // forbidden
	f.mustNot(t, "synced")
	grant(t, admin)
	create(t, admin, "web", "here", "there")
	f.await(t, "synced", "+ Service shop/web", "+ EndpointSlice shop/web-a", "+ Node here",
		"+ ServiceCIDR kubernetes", "+ Service default/kubernetes")
	f.mustNot(t, "+ Node there", "+ Service shop/web-headless", "+ Service shop/web-foreign",
		"+ EndpointSlice shop/web-headless-a")
	f.take()

	for i, step := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"API server restarted", func(t *testing.T) { restart(t, (*Process).stop, c.APIServer) }},
		{"API server killed", func(t *testing.T) { restart(t, (*Process).kill, c.APIServer) }},
		{"etcd restarted", func(t *testing.T) { restart(t, (*Process).stop, c.Etcd) }},
		{"both restarted", func(t *testing.T) { restart(t, (*Process).stop, c.APIServer, c.Etcd) }},
		{"both killed", func(t *testing.T) { restart(t, (*Process).kill, c.APIServer, c.Etcd) }},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.f(t)
			name := fmt.Sprintf("after-%d", i)
			create(t, admin, name)
			touchNode(t, admin, name)
			createCIDR(t, admin, i)
			f.await(t, "+ Service shop/"+name, "+ EndpointSlice shop/"+name+"-a", "+ Node here",
				fmt.Sprintf("+ ServiceCIDR extra-%d", i))
			for _, call := range f.take() {
				if !strings.HasPrefix(call, "! ") && !strings.Contains(call, name) &&
					!strings.HasPrefix(call, "+ ServiceCIDR extra") && call != "+ Node here" {
					t.Errorf("unexpected call %q", call)
				}
			}
		})
	}
	t.Run("data lost", func(t *testing.T) { loseData(t, c, admin, f) })
}

// loseData checks that the follower gets the objects of a new etcd, and the deletion of those of the old one.
func loseData(t *testing.T, c *ControlPlane, admin kubernetes.Interface, f *follower) {
	t.Helper()
	// The resource versions that the source has seen must be higher than the first ones of a new etcd.
	for i := range 200 {
		touchNode(t, admin, fmt.Sprint(i))
	}
	create(t, admin, "late")
	createCIDR(t, admin, 99)
	f.await(t, "+ Service shop/late", "+ EndpointSlice shop/late-a", "+ ServiceCIDR extra-99")
	restart(t, func(p *Process) error {
		if err := p.Stop(); err != nil || p != c.Etcd {
			return err
		}
		return c.DeleteData()
	}, c.APIServer, c.Etcd)
	grant(t, admin)
	f.await(t, "- Service shop/web", "- EndpointSlice shop/web-a", "- Node here", "- ServiceCIDR extra-0",
		"+ Service default/kubernetes")
	create(t, admin, "new", "here")
	f.await(t, "+ Service shop/new", "+ EndpointSlice shop/new-a", "+ Node here")
}

func (p *Process) stop() error { return p.Stop() }
func (p *Process) kill() error { p.Kill(); return nil }

// restart ends processes in this order and starts them in the reverse order.
func restart(t *testing.T, end func(*Process) error, processes ...*Process) {
	t.Helper()
	for _, p := range processes {
		must(t, end(p))
	}
	time.Sleep(3 * time.Second) // long enough for clients to notice
	for _, p := range slices.Backward(processes) {
		must(t, p.Start(t.Context()))
	}
}

func start(t *testing.T) *ControlPlane {
	t.Helper()
	binary, err := Build(t.Context())
	must(t, err)
	before := time.Now()
	c, err := Start(t.Context(), Options{Binary: binary, Dir: t.TempDir()})
	must(t, err)
	t.Logf("ready after %v; resident: etcd %s, kube-apiserver %s",
		time.Since(before).Round(time.Millisecond), resident(c.Etcd), resident(c.APIServer))
	t.Cleanup(c.Close)
	return c
}

// resident returns the resident memory of a process, in the format of the kernel.
func resident(p *Process) string {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	rss, _, _ = strings.Cut(rss, "\n")
	return strings.TrimSpace(rss)
}

func (c *ControlPlane) admin(t *testing.T) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", c.AdminKubeconfig)
	must(t, err)
	config.RateLimiter = nil
	config.QPS = -1
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(config, "test"))
	must(t, err)
	return client
}

// follower is a sink that records its calls: "+ Service shop/web", "- Node here", "synced", and errors as "!
// services".
type follower struct {
	mu    sync.Mutex
	calls []string
	moved chan struct{} // gets a value after a new call
}

// follow runs the API source with the ServiceAccount of nftproxy, for the node here, until the test ends.
func follow(t *testing.T, c *ControlPlane) *follower {
	t.Helper()
	client, err := source.NewClient(source.ClientConfig{Kubeconfig: c.ProxyKubeconfig, QPS: 5, Burst: 10})
	must(t, err)
	f := &follower{moved: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- source.NewAPI(client, "here").Run(ctx, f, source.Reporter{Failed: func(err error) {
			verb, what, _ := strings.Cut(err.Error(), " ")
			resource, why, _ := strings.Cut(what, ":")
			f.note("! %s", resource)
			t.Logf("%s %s:%s", verb, resource, why)
		}})
	}()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return f
}

func (f *follower) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

func title(obj runtime.Object) string {
	o := obj.(metav1.Object)
	kind := strings.TrimPrefix(fmt.Sprintf("%T ", obj), "*v1.")
	return kind + strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
}

func (f *follower) Apply(obj runtime.Object)  { f.note("+ %s", title(obj)) }
func (f *follower) Delete(obj runtime.Object) { f.note("- %s", title(obj)) }
func (f *follower) Synced()                   { f.note("synced") }

// await waits until the follower has recorded all of want.
func (f *follower) await(t *testing.T, want ...string) {
	t.Helper()
	timeout := time.After(2 * time.Minute)
	for {
		f.mu.Lock()
		calls := slices.Clone(f.calls)
		f.mu.Unlock()
		missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(calls, w) })
		if len(missing) == 0 {
			return
		}
		select {
		case <-f.moved:
		case <-timeout:
			t.Fatalf("missing calls %q; got %q", missing, calls)
		}
	}
}

func (f *follower) mustNot(t *testing.T, unwanted ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range unwanted {
		if slices.Contains(f.calls, u) {
			t.Errorf("unexpected call %q", u)
		}
	}
}

// take returns the recorded calls and clears the record.
func (f *follower) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// grant gives nftproxy its permissions to read, and creates the namespace of the test.
func grant(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	name := metav1.ObjectMeta{Name: "nftproxy"}
	read := []string{"list", "watch"}
	role := &rbacv1.ClusterRole{ObjectMeta: name, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services", "nodes"}, Verbs: read},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: read},
	}}
	_, err := client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
	must(t, err)
	_, err = client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: name,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: "nftproxy"}},
	}, metav1.CreateOptions{})
	must(t, err)
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	_, err = client.CoreV1().Namespaces().Create(t.Context(), shop, metav1.CreateOptions{})
	must(t, err)
}

// create creates a Service with an EndpointSlice, headless and foreign variants of both that the source must
// ignore, and nodes.
func create(t *testing.T, client kubernetes.Interface, name string, nodes ...string) {
	t.Helper()
	for _, variant := range []struct{ suffix, clusterIP, label string }{
		{"-headless", "None", corev1.IsHeadlessService},
		{"-foreign", "", "service.kubernetes.io/service-proxy-name"},
		{},
	} {
		meta := metav1.ObjectMeta{Name: name + variant.suffix, Labels: map[string]string{variant.label: "x"}}
		if variant.label == "" {
			meta.Labels = nil
		}
		ports := []corev1.ServicePort{{Port: 80}}
		_, err := client.CoreV1().Services("shop").Create(t.Context(), &corev1.Service{
			ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: variant.clusterIP, Ports: ports},
		}, metav1.CreateOptions{})
		must(t, err)
		meta.Name += "-a"
		_, err = client.DiscoveryV1().EndpointSlices("shop").Create(t.Context(), &discoveryv1.EndpointSlice{
			ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.11"}}},
		}, metav1.CreateOptions{})
		must(t, err)
	}
	for _, node := range nodes {
		created := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
		_, err := client.CoreV1().Nodes().Create(t.Context(), created, metav1.CreateOptions{})
		must(t, err)
	}
}

func touchNode(t *testing.T, client kubernetes.Interface, value string) {
	t.Helper()
	node, err := client.CoreV1().Nodes().Get(t.Context(), "here", metav1.GetOptions{})
	must(t, err)
	node.Labels = map[string]string{"touched": value}
	_, err = client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{})
	must(t, err)
}

func createCIDR(t *testing.T, client kubernetes.Interface, i int) {
	t.Helper()
	_, err := client.NetworkingV1().ServiceCIDRs().Create(t.Context(), &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("extra-%d", i)},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{fmt.Sprintf("10.%d.0.0/24", 100+i)}},
	}, metav1.CreateOptions{})
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestCredentials runs nftproxy with each way in which a kubeconfig reaches the API server and authenticates,
// and replaces what the kubeconfig names while nftproxy runs. TestCredentialFiles of proxier/source replaces
// the files that client-go reads at intervals of minutes.
func TestCredentials(t *testing.T) {
	c := &accounts{cluster: newCluster(t), dir: t.TempDir()}
	t.Run("client certificate", c.clientCertificate)
	t.Run("exec plugin", c.execPlugin)
	t.Run("exec plugin that does not exist", c.noPlugin)
	t.Run("exec plugin that hangs", c.hangingPlugin)
	t.Run("impersonation", c.impersonation)
	t.Run("HTTPS_PROXY", c.proxyOfEnvironment)
	t.Run("proxy-url", c.proxyOfKubeconfig)
	t.Run("kubeconfig replaced", c.kubeconfigReplaced)
}

// accounts is a cluster with several users and ServiceAccounts, all of which may have the rights of nftproxy.
type accounts struct {
	*cluster
	dir string // of credentials
	n   int    // how many Services were created
}

func (c *accounts) path(name string) string { return filepath.Join(c.dir, name) }

// write replaces a file of credentials, as programs that rotate them do.
func (c *accounts) write(t *testing.T, name string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(c.path(name+".new"), content, 0o700))
	must(t, os.Rename(c.path(name+".new"), c.path(name)))
}

// kubeconfig replaces nftproxy's kubeconfig: by one that authenticates as user says and reaches the API
// server as edit says.
func (c *accounts) kubeconfig(
	t *testing.T, user *clientcmdapi.AuthInfo, edit ...func(*clientcmdapi.Cluster)) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(c.plane.AdminKubeconfig)
	must(t, err)
	for _, cluster := range config.Clusters {
		for _, f := range edit {
			f(cluster)
		}
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = user
	}
	must(t, clientcmd.WriteToFile(*config, c.path("kubeconfig")))
	text, err := os.ReadFile(c.path("kubeconfig"))
	must(t, err)
	path := filepath.Join(kubeProxyDir, "kubeconfig.conf")
	must(t, os.WriteFile(path+".new", text, 0o600))
	must(t, os.Rename(path+".new", path))
}

// allow gives a user or ServiceAccount the rights of nftproxy until disallow is called.
func (c *accounts) allow(t *testing.T, user string) (disallow func()) {
	t.Helper()
	bindings := c.client.RbacV1().ClusterRoleBindings()
	binding, err := bindings.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "nftproxy"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	must(t, err)
	return func() { must(t, bindings.Delete(t.Context(), binding.Name, metav1.DeleteOptions{})) }
}

// certificate makes a user and writes a client certificate for it, with its key.
func (c *accounts) certificate(t *testing.T, user string) (disallow func()) {
	t.Helper()
	certificate, key, err := c.plane.ClientCertificate(user, time.Hour)
	must(t, err)
	c.write(t, "client.crt", certificate)
	c.write(t, "client.key", key)
	return c.allow(t, user)
}

// token makes a ServiceAccount and writes a token for it. The token is valid until remove is called.
func (c *accounts) token(t *testing.T, name string) (remove func()) {
	t.Helper()
	all := c.client.CoreV1().ServiceAccounts("kube-system")
	_, err := all.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}},
		metav1.CreateOptions{})
	must(t, err)
	request, err := all.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	c.write(t, "token", []byte(request.Status.Token))
	c.allow(t, "system:serviceaccount:kube-system:"+name)
	return func() { must(t, all.Delete(t.Context(), name, metav1.DeleteOptions{})) }
}

// follows fails unless a new Service is programmed, also after the API server has restarted.
func (c *accounts) follows(t *testing.T) {
	t.Helper()
	name := c.programs(t)
	c.restartAPIServer(t)
	c.moves(t, name)
}

// programs fails unless a new Service is programmed, and returns its name.
func (c *accounts) programs(t *testing.T) string {
	t.Helper()
	c.n++
	spec := corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.1.%d", c.n),
		Ports: []corev1.ServicePort{tcp("", 80, 8080)}}
	svc := c.service(t, newService(fmt.Sprintf("credentials-%d", c.n), spec), "pod-a")
	c.check(t, lab.Row{From: "pod-b", To: target("tcp", svc.Spec.ClusterIP, 80), By: []string{"pod-a"}})
	return svc.Name
}

// moves fails unless the endpoint of the last Service can be replaced. It waits for a client that retries at
// growing intervals.
func (c *accounts) moves(t *testing.T, name string) {
	t.Helper()
	before := c.generation(t)
	c.setEndpoints(t, name, endpoints("pod-c"))
	for start := time.Now(); c.generation(t) == before && time.Since(start) < time.Minute; {
		time.Sleep(50 * time.Millisecond)
	}
	to := target("tcp", fmt.Sprintf("10.96.1.%d", c.n), 80)
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-c"}})
}

// restartAPIServer breaks all connections, so that nftproxy has to authenticate again.
func (c *accounts) restartAPIServer(t *testing.T) {
	t.Helper()
	c.plane.APIServer.Kill()
	must(t, c.lab.Node().Do(func() error { return c.plane.APIServer.Start(t.Context()) }))
}

// logs waits until nftproxy has logged a text.
func (p *proxy) logs(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		log, err := os.ReadFile(p.log)
		must(t, err)
		if strings.Contains(string(log), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nftproxy did not log %q:\n%s", text, log)
		}
	}
}

func (c *accounts) clientCertificate(t *testing.T) {
	disallow := c.certificate(t, "first-user")
	c.kubeconfig(t, &clientcmdapi.AuthInfo{
		ClientCertificate: c.path("client.crt"), ClientKey: c.path("client.key")})
	p := c.startProxy(t)
	name := c.programs(t)
	c.certificate(t, "second-user")
	disallow()
	c.restartAPIServer(t)
	c.moves(t, name)
	p.stop(t)
}

// execPlugin has a plugin that prints the token of a file. nftproxy runs it again when the API server no
// longer accepts the token.
func (c *accounts) execPlugin(t *testing.T) {
	const script = `#!/bin/sh
echo called >> "$LOG"
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}' \
  "$(cat "$1")"
`
	c.write(t, "plugin", []byte(script))
	remove := c.token(t, "first-exec")
	c.kubeconfig(t, c.plugin("plugin"))
	p := c.startProxy(t)
	name := c.programs(t)
	c.token(t, "second-exec")
	remove()
	c.restartAPIServer(t)
	c.moves(t, name)
	p.stop(t)
	calls, err := os.ReadFile(c.path("calls"))
	must(t, err)
	if n := strings.Count(string(calls), "called"); n < 2 || n > 20 {
		t.Errorf("the plugin was called %d times, want once for each token and retry", n)
	}
}

func (c *accounts) plugin(name string) *clientcmdapi.AuthInfo {
	return &clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
		Command: c.path(name), Args: []string{c.path("token")},
		Env:        []clientcmdapi.ExecEnvVar{{Name: "LOG", Value: c.path("calls")}},
		APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode}}
}

// noPlugin is what happens with a plugin in the minimal image, which has no other program.
func (c *accounts) noPlugin(t *testing.T) {
	c.kubeconfig(t, c.plugin("missing"))
	p := c.startProxy(t)
	p.logs(t, c.path("missing"))
	p.stop(t)
}

// hangingPlugin is a plugin that does not end: nftproxy ends all the same when it is told to.
func (c *accounts) hangingPlugin(t *testing.T) {
	c.write(t, "hanging", []byte("#!/bin/sh\necho called >> \"$LOG\"\nexec sleep 60\n"))
	_ = os.Remove(c.path("calls"))
	c.kubeconfig(t, c.plugin("hanging"))
	p := c.startProxy(t)
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(c.path("calls")); err == nil {
			break
		} else if time.Since(start) > 30*time.Second {
			t.Fatal("the plugin was not called")
		}
	}
	kill := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() }) // as the kubelet does
	defer kill.Stop()
	p.stop(t)
}

// impersonation has a user that may do nothing but act as another one.
func (c *accounts) impersonation(t *testing.T) {
	certificate, key, err := c.plane.ClientCertificate("helper", time.Hour)
	must(t, err)
	c.write(t, "client.crt", certificate)
	c.write(t, "client.key", key)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "impersonator"},
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"impersonate"}, APIGroups: []string{""},
			Resources: []string{"users"}, ResourceNames: []string{"acted"}}}}
	_, err = c.client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
	must(t, err)
	_, err = c.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "impersonator"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "helper"}},
	}, metav1.CreateOptions{})
	must(t, err)
	c.allow(t, "acted")
	c.kubeconfig(t, &clientcmdapi.AuthInfo{ClientCertificate: c.path("client.crt"),
		ClientKey: c.path("client.key"), Impersonate: "acted"})
	p := c.startProxy(t)
	c.follows(t)
	p.stop(t)
}

// throughProxy starts nftproxy with a name of the API server that only an HTTP proxy knows.
func (c *accounts) throughProxy(
	t *testing.T, set func(cluster *clientcmdapi.Cluster, proxy string) []string) {
	config, err := clientcmd.LoadFromFile(c.plane.ProxyKubeconfig)
	must(t, err)
	user := slices.Collect(maps.Values(config.AuthInfos))[0]
	relay := c.startTunnels(t)
	var environment []string
	c.kubeconfig(t, user, func(cluster *clientcmdapi.Cluster) {
		relay.to = strings.TrimPrefix(cluster.Server, "https://")
		cluster.Server, cluster.TLSServerName = "https://api.example.test:6443", "kubernetes"
		environment = set(cluster, "http://"+relay.addr)
	})
	p := c.startProxy(t, environment...)
	c.follows(t)
	p.stop(t)
	if n := relay.count.Load(); n < 2 {
		t.Errorf("%d connections through the proxy, want one before and one after the API server restarted", n)
	}
}

func (c *accounts) proxyOfEnvironment(t *testing.T) {
	c.throughProxy(t, func(_ *clientcmdapi.Cluster, proxy string) []string {
		return []string{"HTTPS_PROXY=" + proxy}
	})
}

func (c *accounts) proxyOfKubeconfig(t *testing.T) {
	c.throughProxy(t, func(cluster *clientcmdapi.Cluster, proxy string) []string {
		cluster.ProxyURL = proxy
		return nil
	})
}

// kubeconfigReplaced writes half a kubeconfig, with which nothing happens, and then one with another user:
// nftproxy exits with code 0, and the next one uses it.
func (c *accounts) kubeconfigReplaced(t *testing.T) {
	use := func(user string) {
		t.Helper()
		certificate, key, err := c.plane.ClientCertificate(user, time.Hour)
		must(t, err)
		c.kubeconfig(t, &clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key})
	}
	disallow := c.allow(t, "before")
	use("before")
	p := c.startProxy(t)
	c.programs(t)
	file := filepath.Join(kubeProxyDir, "kubeconfig.conf")
	complete, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, complete[:len(complete)/2], 0o600))
	p.logs(t, "Kubeconfig cannot be used, continuing with the one from the start")
	c.programs(t)
	c.allow(t, "after")
	disallow()
	use("after")
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("nftproxy ended with %v, want exit code 0", err)
	}
	p.logs(t, "Kubeconfig changed, exiting to be restarted with it")
	p = c.startProxy(t)
	c.programs(t)
	p.stop(t)
}

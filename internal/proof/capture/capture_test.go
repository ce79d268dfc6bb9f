package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

const manifests = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00:10:96::10"]
  sessionAffinity: ClientIP
  ports: [{port: 70000}]
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec: {clusterIP: None}
---
apiVersion: v1
kind: Node
metadata: {name: other}
`

// TestAPIServer checks that an informer of kube-proxy's kind gets the objects that it selects, also invalid
// ones, with what kube-proxy relies on.
func TestAPIServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "input.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	objects, err := load(file)
	if err != nil {
		t.Fatal(err)
	}
	ns := lab.TestNamespace(t)
	server, err := serve(ns, objects)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = ns.Do(func() error { conn, err = (&net.Dialer{}).DialContext(ctx, network, addr); return err })
		return conn, err
	}
	config := &rest.Config{Host: "http://" + server.Addr, Dial: dial}
	config.ContentType = runtime.ContentTypeProtobuf // kube-proxy's default
	factory := informers.NewSharedInformerFactoryWithOptions(kubernetes.NewForConfigOrDie(config), 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.LabelSelector = "!service.kubernetes.io/service-proxy-name"
			o.FieldSelector = fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone).String()
		}))
	lister := factory.Core().V1().Services().Lister()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	web, err := lister.Services("default").Get("web")
	if err != nil {
		t.Fatal(err)
	}
	families := []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	if web.Spec.Ports[0].Port != 70000 || !slices.Equal(web.Spec.IPFamilies, families) ||
		*web.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds != 10800 {
		t.Errorf("the informer has %+v", web.Spec)
	}
	if _, err := lister.Services("default").Get("headless"); err == nil {
		t.Error("the informer has a Service that it does not select")
	}
}

// TestConfig checks that a case's configuration is kept, and what the capture needs is added.
func TestConfig(t *testing.T) {
	for name, want := range map[string]map[string]any{
		"masquerade-bit": {
			"nftables": map[string]any{"masqueradeBit": 31.0, "minSyncPeriod": "10ms"}, "hostnameOverride": "node-a"},
		"reserved-node-ports-configured": {
			"healthzBindAddress": "0.0.0.0:20256", "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56"},
	} {
		file, err := writeConfig(t.TempDir(), filepath.Join("../../../testdata/rules", name), "127.0.0.1:1")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := yaml.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		for field, value := range want {
			if diff := cmp.Diff(value, got[field]); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", name, field, diff)
			}
		}
	}
}

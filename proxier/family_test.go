package proxier

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/fakekernel"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestPagesShowProgrammedFamilies programs dual-stack objects for a kernel with both families and for one
// without IPv6: the pages of the latter do not mention IPv6.
func TestPagesShowProgrammedFamilies(t *testing.T) {
	for _, families := range [][]service.Family{service.Families(), {service.IPv4}} {
		p, err := New(Options{Config: configtest.Case(t, "", t.TempDir())})
		if err != nil {
			t.Fatal(err)
		}
		p.setFamilies(families)
		r := p.newReconciler(fakekernel.New())
		r.deleteFlows = noFlows
		r.env = p.nodeEnvironment
		changeNode(p)
		p.Apply(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ServiceSpec{
				ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1", "fd00:10:96::1"},
				Ports: []corev1.ServicePort{{Port: 80}}}})
		for _, family := range []discoveryv1.AddressType{"IPv4", "IPv6"} {
			p.Apply(&discoveryv1.EndpointSlice{AddressType: family, ObjectMeta: metav1.ObjectMeta{
				Namespace: "default", Name: "web-" + strings.ToLower(string(family)),
				Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
				Annotations: map[string]string{
					corev1.EndpointsLastChangeTriggerTime: time.Now().Format(time.RFC3339Nano)}}})
		}
		if err := syncWhole(t, r); err != nil {
			t.Fatal(err)
		}
		for path, handler := range map[string]http.Handler{
			"/healthz": p.health.Handler(), "/livez": p.health.Handler(), "/metrics": p.metrics.Handler(),
		} {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			for _, f := range service.Families() {
				n := strings.Count(w.Body.String(), `"`+f.APIName()+`"`)
				if programmed := f == service.IPv4 || len(families) == 2; programmed != (n > 0) {
					t.Errorf("families %v: %s shows %s %d times", families, path, f.APIName(), n)
				}
			}
		}
	}
}

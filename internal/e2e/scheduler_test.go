//go:build e2e

package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// followsAnnotations annotates a Service in the API: with a scheduler that there is not, which is reported,
// and then with weights.
func followsAnnotations(t *testing.T, c *cluster) {
	svc := newService("annotated", corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("", 80, 8080)}})
	svc.Annotations = map[string]string{"nftproxy.io/scheduler": "lc", "example.com/other": "x"}
	svc = c.service(t, svc, "pod-a", "pod-c")
	to := target("tcp", svc.Spec.ClusterIP, 80)
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-a", "pod-c"}})
	c.reported(t, "NotProgrammed", "annotated", "scheduler lc is not available")

	svc.Annotations = map[string]string{"nftproxy.io/weights": "10.244.1.11=0"}
	_, err := c.client.CoreV1().Services("default").Update(t.Context(), svc, metav1.UpdateOptions{})
	must(t, err)
	c.check(t, lab.Row{From: "pod-b", To: to, By: []string{"pod-c"}})
}

package desired

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/rules/service"
)

// claimant returns a Service with an external IP that was created at a second.
func claimant(name string, created int64, externalIP string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name,
			CreationTimestamp: metav1.NewTime(time.Unix(created, 0))},
		Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprint("10.96.0.", created), ExternalIPs: []string{externalIP},
			Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

// once is a Builder whose reports a test compares, step by step.
type once struct {
	*Builder
	e    Environment
	full bool // each step is programmed together with everything, not by itself
	got  []string
}

func newOnce(t *testing.T, full bool) *once {
	t.Helper()
	s, o := newState(), &once{full: full}
	o.Builder = NewBuilder(s, func(p Problem) { o.got = append(o.got, p.Error()) })
	o.e = NewEnvironment(configtest.Parse(t), "node-a", s, service.Families(), nil)
	o.Rebuild(o.e, nil)
	return o
}

// step adds and removes Services, and returns what was reported.
func (o *once) step(put, remove []*corev1.Service) []string {
	for _, svc := range put {
		o.state.Apply(svc)
	}
	for _, svc := range remove {
		o.state.Delete(svc)
	}
	o.got = nil
	if changed := o.state.Take().Services; o.full {
		o.Rebuild(o.e, nil)
	} else {
		o.Update(slices.Collect(maps.Keys(changed))...)
	}
	return o.got
}

// TestProblemsAreReportedOnce changes Services in steps: a problem is reported when it appears, comes back or
// changes, and is forgotten when it ends.
func TestProblemsAreReportedOnce(t *testing.T) {
	const ip = "198.51.100.7"
	old, middle, young := claimant("old", 1, ip), claimant("middle", 2, ip), claimant("young", 3, ip)
	faulty, good := claimant("young", 3, "nonsense"), claimant("young", 3, "198.51.100.8")
	const lost = "Service default/%s: 198.51.100.7 . tcp . 80 is taken by Service default/%s, which is older"
	const invalid = `Service default/young: spec.externalIPs[0]: "nonsense" is not an IP address`
	type services = []*corev1.Service
	for _, full := range []bool{false, true} {
		o := newOnce(t, full)
		for i, step := range []struct {
			put, remove services
			want        []string
			faulty      int // Services afterwards
		}{
			{put: services{young}},
			{put: services{old}, want: []string{fmt.Sprintf(lost, "young", "old")}, faulty: 1},
			{put: services{young}, faulty: 1},
			{put: services{old}, faulty: 1},
			{remove: services{old}},
			{put: services{old}, want: []string{fmt.Sprintf(lost, "young", "old")}, faulty: 1},
			{put: services{middle}, want: []string{fmt.Sprintf(lost, "middle", "old")}, faulty: 2},
			{remove: services{old}, want: []string{fmt.Sprintf(lost, "young", "middle")}, faulty: 1},
			{put: services{faulty}, want: []string{invalid}, faulty: 1},
			{put: services{faulty}, faulty: 1},
			{put: services{good}},
			{put: services{faulty}, want: []string{invalid}, faulty: 1},
			{put: services{old}, want: []string{fmt.Sprintf(lost, "middle", "old")}, faulty: 2},
			{remove: services{old, middle, young}},
		} {
			got := o.step(step.put, step.remove)
			if diff := cmp.Diff(step.want, got); diff != "" {
				t.Errorf("full %t, step %d: reported (-want +got):\n%s", full, i, diff)
			}
			if n := o.Problems(); n != step.faulty {
				t.Errorf("full %t, step %d: %d Services have problems, want %d", full, i, n, step.faulty)
			}
		}
		if k := o.known; len(k.invalid)+len(k.contests)+len(k.claims) > 0 {
			t.Errorf("full %t: not forgotten: %+v", full, k)
		}
	}
}

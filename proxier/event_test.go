package proxier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// TestEvents reports while the API server is away, is back, and refuses: reporting never blocks, and no Event
// is retried for ever.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stored []*eventsv1.Event
		tries, answer := 0, errors.New("connection refused")
		ctx, cancel := context.WithCancel(t.Context())
		e := newEventer("node-a")
		go func() {
			_ = e.run(ctx, func(_ context.Context, ev *eventsv1.Event) error {
				if tries++; answer == nil {
					stored = append(stored, ev)
				}
				return answer
			}) // it has no errors
		}()
		web := service.Name{Namespace: "shop", Name: "web"}
		e.reportService(web, "FrontendConflict", "10.96.0.1 is taken")
		time.Sleep(25 * time.Second)
		if tries != 3 {
			t.Errorf("tried %d times in 25 s, want 3", tries)
		}
		answer = nil
		time.Sleep(10 * time.Second)
		e.reportNode(corev1.EventTypeNormal, "Starting", strings.Repeat("x", 2000))
		synctest.Wait()
		if len(stored) != 2 {
			t.Fatalf("%d Events are stored, want 2", len(stored))
		}
		svc, node := stored[0], stored[1]
		if svc.Namespace != "shop" || svc.Regarding.Name != "web" || svc.Reason != "FrontendConflict" ||
			svc.Type != "Warning" || svc.EventTime.IsZero() {
			t.Errorf("Event of a Service: %+v", svc)
		}
		if node.Namespace != "default" || node.Regarding.Name != "node-a" || len(node.Note) != maxNote ||
			node.ReportingInstance != "nftproxy-node-a" {
			t.Errorf("Event of the Node: %+v", node)
		}

		tries, answer = 0, apierrors.NewBadRequest("no")
		e.reportNode(corev1.EventTypeNormal, "Refused", "")
		time.Sleep(time.Hour)
		if tries != 1 {
			t.Errorf("tried a refused Event %d times, want once", tries)
		}
		tries, answer = 0, errors.New("connection refused")
		e.reportNode(corev1.EventTypeNormal, "Away", "")
		for range 100 { // more than fit into the queue: it must not block
			e.reportNode(corev1.EventTypeNormal, "Away", "")
		}
		time.Sleep(115 * time.Second)
		if tries != eventTries+1 {
			t.Errorf("tried %d times, want %d for the first and once for the next", tries, eventTries)
		}
		cancel()
		synctest.Wait()
	})
}

// TestNodeWithoutAddressesIsReported takes the addresses from the Node, twice: one Event each time.
func TestNodeWithoutAddressesIsReported(t *testing.T) {
	r, _ := newScripted(t)
	node := func(addresses ...corev1.NodeAddress) {
		r.Apply(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"},
			Status: corev1.NodeStatus{Addresses: addresses}})
	}
	reports := func() (n int) {
		for _, ev := range queued(r.events) {
			if ev.Reason == reasonAddressesMissing && ev.Regarding.Kind == "Node" && ev.Type == "Warning" &&
				strings.Contains(ev.Note, "192.0.2.1, 2001:db8::1") {
				n++
			}
		}
		return n
	}
	known := []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
		{Type: corev1.NodeInternalIP, Address: "2001:db8::1"}}
	for i, step := range []struct {
		addresses []corev1.NodeAddress
		want      int
	}{
		{nil, 0}, // there never were any
		{known, 0},
		{nil, 1},
		{nil, 1},
		{known, 1},
		{known[:1], 1}, // a change, not a loss
		{known, 1},
		{nil, 2},
	} {
		node(step.addresses...)
		if got := reports(); got != step.want {
			t.Errorf("step %d: %d Events, want %d", i, got, step.want)
		}
	}
}

// TestReplacedServiceIsNoConflict replaces an older Service by a newer one on the same nodePort between two
// syncs, by deletion or by another port: that is not a conflict. A Service that still has the port is, and
// the Event names the one that has it in the end.
func TestReplacedServiceIsNoConflict(t *testing.T) {
	svc := func(name string, created int64, nodePort int32) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name,
				CreationTimestamp: metav1.NewTime(time.Unix(created, 0))},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeNodePort, ClusterIP: fmt.Sprint("10.96.0.", created),
				Ports: []corev1.ServicePort{{Port: 80, NodePort: nodePort}}},
		}
	}
	const taken = "default/a-new: 192.0.2.1 . tcp . 30080 is taken by Service default/"
	for _, test := range []struct {
		name string
		do   func(r *reconciler)
		want []string
	}{
		{"the older one is deleted", func(r *reconciler) { r.Delete(svc("z-old", 1, 30080)) }, nil},
		{"the older one moves", func(r *reconciler) { r.Apply(svc("z-old", 1, 30081)) }, nil},
		{"the older one stays", func(r *reconciler) { r.Apply(svc("z-old", 1, 30080)) },
			[]string{taken + "z-old, which is older"}},
		{"a third one takes it over", func(r *reconciler) {
			r.Delete(svc("z-old", 1, 30080))
			r.Apply(svc("m-middle", 5, 30080))
		}, []string{taken + "m-middle, which is older"}},
	} {
		for _, full := range []bool{false, true} {
			r, s := newScripted(t)
			changeNode(r.Proxier)
			r.Apply(svc("z-old", 1, 30080))
			mustSync(t, r, s, true)
			r.Apply(svc("a-new", 9, 30080))
			test.do(r)
			if full {
				r.require(suspicion)
			}
			mustSync(t, r, s, full)
			var got []string
			for _, ev := range queued(r.events) {
				if ev.Reason == "FrontendConflict" {
					got = append(got, ev.Regarding.Namespace+"/"+ev.Regarding.Name+": "+ev.Note)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s, full sync %t: conflicts (-want +got):\n%s", test.name, full, diff)
			}
			checkMetric(t, r.Proxier, "nftproxy_frontend_conflicts", len(test.want))
		}
	}
}

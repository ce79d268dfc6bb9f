package proxier

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
		e.reportService(web, "FrontendConflict", "10.96.0.1 is taken") // reported already
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

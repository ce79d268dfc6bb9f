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

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

// TestEvents tells of things while the API server is away, back, and refuses: nobody waits for it, and nothing is
// tried in vain for ever.
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
		e.service(web, "FrontendConflict", "10.96.0.1 is taken")
		e.service(web, "FrontendConflict", "10.96.0.1 is taken") // told already
		time.Sleep(25 * time.Second)
		if tries != 3 {
			t.Errorf("tried %d times in 25 s, want 3", tries)
		}
		answer = nil
		time.Sleep(10 * time.Second)
		e.nodeNote(corev1.EventTypeNormal, "Starting", strings.Repeat("x", 2000))
		synctest.Wait()
		if len(stored) != 2 {
			t.Fatalf("%d Events are stored, want 2", len(stored))
		}
		svc, node := stored[0], stored[1]
		if svc.Namespace != "shop" || svc.Regarding.Name != "web" || svc.Reason != "FrontendConflict" || svc.Type != "Warning" || svc.EventTime.IsZero() {
			t.Errorf("Event of a Service: %+v", svc)
		}
		if node.Namespace != "default" || node.Regarding.Name != "node-a" || len(node.Note) != maxNote || node.ReportingInstance != "nftproxy-node-a" {
			t.Errorf("Event of the Node: %+v", node)
		}

		tries, answer = 0, apierrors.NewBadRequest("no")
		e.nodeNote(corev1.EventTypeNormal, "Refused", "")
		time.Sleep(time.Hour)
		if tries != 1 {
			t.Errorf("tried %d times what is refused, want once", tries)
		}
		tries, answer = 0, errors.New("connection refused")
		e.nodeNote(corev1.EventTypeNormal, "Away", "")
		for range 100 { // more than there is room for: it must not block
			e.nodeNote(corev1.EventTypeNormal, "Away", "")
		}
		time.Sleep(115 * time.Second)
		if tries != eventTries+1 {
			t.Errorf("tried %d times, want %d for the first and once for the next", tries, eventTries)
		}
		cancel()
		synctest.Wait()
	})
}

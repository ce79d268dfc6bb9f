package proxier

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/rules/service"
)

// eventer reports to operators by Events and the log: each text once while it does not change, at a limited
// rate.
type eventer struct {
	node     string
	limit    flowcontrol.PassiveRateLimiter
	queue    chan *eventsv1.Event
	reported map[event]struct{}
}

type event struct {
	object, reason, note string
}

// The eventer sends eventRate Events a second, with bursts of eventBurst. maxReported bounds the texts that
// it remembers; after that it may report a text again.
const (
	eventRate   = 1
	eventBurst  = 25
	maxReported = 10000
)

func newEventer(node string) *eventer {
	return &eventer{node: node, queue: make(chan *eventsv1.Event, eventBurst), reported: map[event]struct{}{},
		limit: flowcontrol.NewTokenBucketPassiveRateLimiter(eventRate, eventBurst)}
}

// reportService reports a problem with a Service.
func (e *eventer) reportService(name service.Name, reason, note string) {
	if !e.first(event{name.String(), reason, note}) {
		return
	}
	klog.InfoS("Service has a problem", "service", name, "reason", reason, "note", note)
	e.send(corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: name.Namespace, Name: name.Name},
		corev1.EventTypeWarning, reason, note)
}

// reportNode reports an event on this node.
func (e *eventer) reportNode(kind, reason, note string) {
	klog.InfoS("Node event", "reason", reason, "note", note)
	node := corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: e.node, UID: types.UID(e.node)}
	e.send(node, kind, reason, note)
}

func (e *eventer) first(ev event) bool {
	if _, known := e.reported[ev]; known {
		return false
	}
	if len(e.reported) >= maxReported {
		clear(e.reported)
	}
	e.reported[ev] = struct{}{}
	return true
}

// maxNote is how long the note of an Event may be: events.k8s.io/v1.
const maxNote = 1024

// send queues an Event. It drops the Event when there are too many, or no client sends them: the log has the
// text.
func (e *eventer) send(about corev1.ObjectReference, kind, reason, note string) {
	if !e.limit.TryAccept() {
		return
	}
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // of Events about objects without a namespace
	}
	ev := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: about.Name + "-"},
		EventTime:  metav1.NowMicro(), ReportingController: "nftproxy", ReportingInstance: "nftproxy-" + e.node,
		Action: "Program", Reason: reason, Regarding: about, Note: note[:min(len(note), maxNote)], Type: kind,
	}
	select {
	case e.queue <- ev:
	default:
	}
}

// The eventer retries an Event as often and with the same pause as client-go.
const (
	eventTries = 12
	eventPause = 10 * time.Second
)

// run sends queued Events until ctx ends.
func (e *eventer) run(ctx context.Context, create func(context.Context, *eventsv1.Event) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-e.queue:
			post(ctx, ev, create)
		}
	}
}

// post creates an Event. It gives up when the API server refuses the Event, and retries while the server does
// not answer.
func post(ctx context.Context, ev *eventsv1.Event, create func(context.Context, *eventsv1.Event) error) {
	for try := 1; ; try++ {
		err := create(ctx, ev)
		if err == nil || ctx.Err() != nil {
			return
		}
		var refused apierrors.APIStatus
		if errors.As(err, &refused) || try == eventTries {
			klog.InfoS("Failed to create Event", "reason", ev.Reason, "note", ev.Note, "err", err)
			return
		}
		pause(ctx, eventPause)
	}
}

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

// eventer reports to operators by Events and the log, at a limited rate. Whoever calls it reports a problem
// once while it lasts.
type eventer struct {
	node  string
	nodes flowcontrol.PassiveRateLimiter // of Events about the Node, which must not wait for all Services
	queue chan *eventsv1.Event
	// services are the Events about Services, and lines those of the log.
	services flowcontrol.PassiveRateLimiter
	lines    *flood
}

// The eventer sends eventRate Events a second about Services and as many about the Node, with bursts of
// eventBurst.
const (
	eventRate  = 1
	eventBurst = 25
)

func newEventer(node string) *eventer {
	return &eventer{node: node, queue: make(chan *eventsv1.Event, 2*eventBurst),
		nodes:    flowcontrol.NewTokenBucketPassiveRateLimiter(eventRate, eventBurst),
		services: flowcontrol.NewTokenBucketPassiveRateLimiter(eventRate, eventBurst),
		lines:    newFlood()}
}

// reportService reports a problem with a Service.
func (e *eventer) reportService(name service.Name, reason, note string) {
	if e.lines.passes() {
		klog.InfoS("Service has a problem", "service", name, "reason", reason, "note", note)
	}
	if e.services.TryAccept() {
		e.send(corev1.ObjectReference{
			Kind: "Service", APIVersion: "v1", Namespace: name.Namespace, Name: name.Name},
			corev1.EventTypeWarning, reason, note)
	}
}

// reportNode reports an event on this node.
func (e *eventer) reportNode(kind, reason, note string) {
	klog.InfoS("Node event", "reason", reason, "note", note)
	node := corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: e.node, UID: types.UID(e.node)}
	if e.nodes.TryAccept() {
		e.send(node, kind, reason, note)
	}
}

// maxNote is how long the note of an Event may be: events.k8s.io/v1.
const maxNote = 1024

// send queues an Event. It drops the Event when the queue is full, or no client sends them: the log has the
// text.
func (e *eventer) send(about corev1.ObjectReference, kind, reason, note string) {
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

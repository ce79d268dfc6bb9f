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

	"github.com/nftproxy/nftproxy/rules"
)

// eventer tells operators, by Events and the log, what they must know, each thing
// once as long as it does not change, and not too much of it.
type eventer struct {
	node  string
	limit flowcontrol.PassiveRateLimiter
	queue chan *eventsv1.Event
	told  map[event]struct{}
}

type event struct {
	object, reason, note string
}

// Events are sent at eventRate a second, with bursts of eventBurst. maxTold bounds
// what is remembered; after that, things may be told again.
const (
	eventRate  = 1
	eventBurst = 25
	maxTold    = 10000
)

func newEventer(node string) *eventer {
	return &eventer{node: node, queue: make(chan *eventsv1.Event, eventBurst), told: map[event]struct{}{},
		limit: flowcontrol.NewTokenBucketPassiveRateLimiter(eventRate, eventBurst)}
}

// service tells of something wrong with a Service.
func (e *eventer) service(name rules.ServiceName, reason, note string) {
	if !e.first(event{name.String(), reason, note}) {
		return
	}
	klog.InfoS("Service", "service", name, "reason", reason, "note", note)
	e.send(corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: name.Namespace, Name: name.Name},
		corev1.EventTypeWarning, reason, note)
}

// nodeNote tells of something that happened on this node.
func (e *eventer) nodeNote(kind, reason, note string) {
	klog.InfoS("Node", "reason", reason, "note", note)
	e.send(corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: e.node, UID: types.UID(e.node)}, kind, reason, note)
}

func (e *eventer) first(ev event) bool {
	if _, told := e.told[ev]; told {
		return false
	}
	if len(e.told) >= maxTold {
		clear(e.told)
	}
	e.told[ev] = struct{}{}
	return true
}

// maxNote is how long the API lets the note of an Event be.
const maxNote = 1024

// send queues an Event. Where there are too many, or nobody sends them, it is dropped: the log has it.
func (e *eventer) send(about corev1.ObjectReference, kind, reason, note string) {
	if !e.limit.TryAccept() {
		return
	}
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // as the API has it for Events about what is in none
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

// An Event is tried as often and as patiently as client-go does it.
const (
	eventTries = 12
	eventPause = 10 * time.Second
)

// run sends what is queued until ctx ends.
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

// post creates an Event. What the API server refuses is given up; while it does not answer, it is tried again.
func post(ctx context.Context, ev *eventsv1.Event, create func(context.Context, *eventsv1.Event) error) {
	for try := 1; ; try++ {
		err := create(ctx, ev)
		if err == nil || ctx.Err() != nil {
			return
		}
		var refused apierrors.APIStatus
		if errors.As(err, &refused) || try == eventTries {
			klog.InfoS("An Event is not stored", "reason", ev.Reason, "note", ev.Note, "err", err)
			return
		}
		pause(ctx, eventPause)
	}
}

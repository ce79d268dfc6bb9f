package proxier

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/rules"
)

// eventer tells operators, by Events and the log, what they must know, each thing
// once as long as it does not change, and not too much of it.
type eventer struct {
	node   string
	limit  flowcontrol.PassiveRateLimiter
	events events.EventRecorder // nil: only the log is there
	told   map[event]struct{}
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

func newEventer(node string, recorder events.EventRecorder) *eventer {
	return &eventer{node: node, events: recorder, told: map[event]struct{}{},
		limit: flowcontrol.NewTokenBucketPassiveRateLimiter(eventRate, eventBurst)}
}

// newRecorder returns where Events are sent to, and a function that ends it.
func newRecorder(sink events.EventSink, node string) (events.EventRecorder, func()) {
	broadcaster := events.NewBroadcaster(sink)
	stop := make(chan struct{})
	broadcaster.StartRecordingToSink(stop)
	return broadcaster.NewRecorder(scheme.Scheme, "nftproxy"), func() { close(stop); broadcaster.Shutdown() }
}

// service tells of something wrong with a Service.
func (e *eventer) service(name rules.ServiceName, reason, note string) {
	if !e.first(event{name.String(), reason, note}) {
		return
	}
	klog.InfoS("Service", "service", name, "reason", reason, "note", note)
	e.send(&corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: name.Namespace, Name: name.Name},
		corev1.EventTypeWarning, reason, note)
}

// nodeNote tells of something that happened on this node.
func (e *eventer) nodeNote(kind, reason, note string) {
	klog.InfoS("Node", "reason", reason, "note", note)
	e.send(&corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: e.node, UID: types.UID(e.node)}, kind, reason, note)
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

func (e *eventer) send(about runtime.Object, kind, reason, note string) {
	if e.events == nil || !e.limit.TryAccept() {
		return
	}
	e.events.Eventf(about, nil, kind, reason, "Program", "%s", note[:min(len(note), maxNote)])
}

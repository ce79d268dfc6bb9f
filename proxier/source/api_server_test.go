package source

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

// apiServer behaves as an API server for reflectors. Its connections are in memory, because it runs in a
// synctest bubble.
type apiServer struct {
	noWatchList bool // like API servers before 1.32
	noCIDRs     bool // like API servers before 1.33
	noBookmarks bool // like API servers without progress notifications of etcd

	mu        sync.Mutex
	revision  int
	compacted int // a watch from an earlier revision fails
	uids      int
	objects   map[string]map[types.NamespacedName]object // by resource
	log       []change
	moved     chan struct{} // closed and replaced at each change
	refuse    map[string]error
	stopped   bool
	vanishing bool          // packets are lost: connections are not answered
	hung      chan struct{} // closed when the server works again; nil while it works
	conns     map[net.Conn]bool
	requests  map[string]int // by "list services", "watch services"

	connections chan net.Conn
	transport   *http.Transport
}

// change is a change of an object.
type change struct {
	revision int
	resource string
	old, new object
}

// newAPIServer starts a server, which stops at the end of the test.
func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{
		refuse: map[string]error{}, conns: map[net.Conn]bool{}, requests: map[string]int{},
		connections: make(chan net.Conn), moved: make(chan struct{}), revision: 1,
	}
	s.empty()
	s.transport = &http.Transport{DialContext: s.dial}
	server := &http.Server{Handler: s}
	done := make(chan struct{})
	go func() {
		_ = server.Serve(pipeListener{s.connections})
		close(done)
	}()
	t.Cleanup(func() {
		s.transport.CloseIdleConnections()
		close(s.connections)
		<-done
		_ = server.Close()
	})
	return s
}

type pipeListener struct{ connections chan net.Conn }

func (l pipeListener) Accept() (net.Conn, error) {
	conn, ok := <-l.connections
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (s *apiServer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if s.losesPackets() {
		time.Sleep(10 * time.Second) // as the Dialer of a ClientConfig
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: refused}
	}
	ours, theirs := net.Pipe()
	s.conns[theirs] = true
	select {
	case s.connections <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// empty gives the server a new, empty storage.
func (s *apiServer) empty() {
	s.objects = map[string]map[types.NamespacedName]object{
		"services": {}, "endpointslices": {}, "nodes": {}, "servicecidrs": {},
	}
	s.log, s.revision, s.uids = nil, 1, s.uids+1000
}

// reset is empty for a running server.
func (s *apiServer) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.empty()
}

// stop breaks all connections and refuses new ones.
func (s *apiServer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.breakConnections()
}

// start accepts connections again. With compact, watches cannot resume: the history of changes is gone.
func (s *apiServer) start(compact bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = false
	if compact {
		s.compacted = s.revision
	}
}

// refuseRequests makes requests with a name like "list services" fail, or succeed again if err is nil.
func (s *apiServer) refuseRequests(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[name] = err
}

func (s *apiServer) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[name]
}

// put stores an object, and remove deletes one.
func (s *apiServer) put(obj object)    { s.change(obj, obj.DeepCopyObject().(object)) }
func (s *apiServer) remove(obj object) { s.change(obj, nil) }

func (s *apiServer) change(named, new object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resource := resourceOf(named)
	name := types.NamespacedName{Namespace: named.GetNamespace(), Name: named.GetName()}
	old := s.objects[resource][name]
	s.revision++
	if new == nil {
		delete(s.objects[resource], name)
	} else {
		new.SetResourceVersion(strconv.Itoa(s.revision))
		if old != nil {
			new.SetUID(old.GetUID())
		} else {
			s.uids++
			new.SetUID(types.UID(strconv.Itoa(s.uids)))
		}
		stamp(new)
		new.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "kubectl"}})
		s.objects[resource][name] = new
	}
	s.log = append(s.log, change{s.revision, resource, old, new})
	close(s.moved)
	s.moved = make(chan struct{})
}

func resourceOf(obj object) string {
	for _, resource := range []string{"services", "endpointslices", "nodes", "servicecidrs"} {
		if reflect.TypeOf(obj) == reflect.TypeOf(sample(resource)) {
			return resource
		}
	}
	panic(fmt.Sprintf("a %T", obj))
}

func sample(resource string) object {
	return map[string]object{
		"services": &corev1.Service{}, "endpointslices": &discoveryv1.EndpointSlice{},
		"nodes": &corev1.Node{}, "servicecidrs": &networkingv1.ServiceCIDR{},
	}[resource]
}

func kindOf(resource string) schema.GroupVersionKind {
	kinds, _, _ := scheme.Scheme.ObjectKinds(sample(resource))
	return kinds[0]
}

// stamp sets kind and apiVersion, which encoded objects have.
func stamp(obj object) { obj.GetObjectKind().SetGroupVersionKind(kindOf(resourceOf(obj))) }

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.awaitWorking(r)
	w.Header().Set("Content-Type", "application/json")
	path := strings.Split(r.URL.Path, "/")
	resource, q := path[len(path)-1], r.URL.Query()
	verb := "list"
	if q.Get("watch") != "" {
		verb = "watch"
	}
	if r.URL.Path == "/apis/networking.k8s.io/v1" {
		verb, resource = "discover", "servicecidrs"
	}
	s.mu.Lock()
	s.requests[verb+" "+resource]++
	if q.Get("sendInitialEvents") != "" || verb == "list" && q.Get("limit") == "" {
		s.requests["list "+resource+" all"]++
	}
	err := s.refuse[verb+" "+resource]
	seen, _ := strconv.Atoi(q.Get("resourceVersion"))
	if seen > s.revision && (verb == "list" || q.Get("sendInitialEvents") != "") {
		err = tooLarge()
	}
	s.mu.Unlock()
	switch {
	case apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge):
		select { // in this time the server hopes to reach the revision
		case <-time.After(3 * time.Second):
		case <-r.Context().Done():
		}
		fail(w, err)
	case err != nil:
		fail(w, err)
	case verb == "discover":
		list := metav1.APIResourceList{GroupVersion: "networking.k8s.io/v1"}
		list.APIResources = []metav1.APIResource{{Name: "ingresses"}}
		if !s.noCIDRs {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: resource})
		}
		_ = json.NewEncoder(w).Encode(list)
	case verb == "list":
		s.list(w, resource, newFilter(q.Get("labelSelector"), q.Get("fieldSelector")))
	default:
		s.watch(w, r, resource, newFilter(q.Get("labelSelector"), q.Get("fieldSelector")))
	}
}

// tooLarge is the response to a client that has a later revision than the server. A watch without initial
// events does not get it, but waits for the server to reach the revision.
func tooLarge() error {
	err := apierrors.NewTimeoutError("Too large resource version", 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
	return err
}

func fail(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	w.WriteHeader(int(status.Code))
	_ = json.NewEncoder(w).Encode(status)
}

func statusOf(err error) metav1.Status {
	status := err.(apierrors.APIStatus).Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return status
}

func (s *apiServer) list(w http.ResponseWriter, resource string, f filter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []object{}
	for _, obj := range s.objects[resource] {
		if f.matches(obj) {
			items = append(items, obj)
		}
	}
	gvk := kindOf(resource)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": gvk.Kind + "List", "apiVersion": gvk.GroupVersion().String(), "items": items,
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.revision)},
	})
}

// watch streams the changes after a revision, and before them the objects if the client requests these.
func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, resource string, f filter) {
	q := r.URL.Query()
	initial := q.Get("sendInitialEvents") == "true"
	if initial && s.noWatchList {
		fail(w, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", nil))
		return
	}
	stream := eventStream{w: w, kind: resource, filter: f}
	s.mu.Lock()
	seen, _ := strconv.Atoi(q.Get("resourceVersion"))
	expired := !initial && seen < s.compacted
	if initial {
		seen = s.revision
		for _, obj := range s.objects[resource] {
			stream.change(change{new: obj})
		}
		stream.bookmark(seen, "true")
	}
	s.mu.Unlock()
	if expired {
		stream.send("ERROR", statusOf(apierrors.NewResourceExpired("too old")))
		return
	}
	seconds, _ := strconv.Atoi(q.Get("timeoutSeconds"))
	timeout := time.After(time.Duration(seconds) * time.Second)
	bookmarks := time.NewTicker(time.Minute)
	defer bookmarks.Stop()
	for {
		s.awaitWorking(r)
		s.mu.Lock()
		for _, c := range s.log {
			if c.revision > seen && c.resource == resource {
				stream.change(c)
			}
		}
		seen = max(seen, s.revision)
		moved := s.moved
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-moved:
		case <-bookmarks.C:
			s.awaitWorking(r)
			if !s.noBookmarks {
				stream.bookmark(seen, "")
			}
		case <-timeout:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// eventStream writes the events of one watch.
type eventStream struct {
	w      http.ResponseWriter
	kind   string
	filter filter
}

func (e eventStream) send(event string, obj any) {
	raw, _ := json.Marshal(obj)
	_ = json.NewEncoder(e.w).Encode(metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: raw}})
}

func (e eventStream) change(c change) {
	was, is := c.old != nil && e.filter.matches(c.old), c.new != nil && e.filter.matches(c.new)
	switch {
	case was && is:
		e.send("MODIFIED", c.new)
	case was:
		e.send("DELETED", c.old)
	case is:
		e.send("ADDED", c.new)
	}
}

// bookmark sends a bookmark, which marks the end of the initial events if initial is "true".
func (e eventStream) bookmark(revision int, initial string) {
	obj := sample(e.kind)
	stamp(obj)
	obj.SetResourceVersion(strconv.Itoa(revision))
	obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: initial})
	e.send("BOOKMARK", obj)
}

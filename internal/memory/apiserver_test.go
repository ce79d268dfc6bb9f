package memory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// apiServer serves a cluster that does not change. It sends objects while it makes them, as a real API server
// does that has them encoded.
type apiServer struct {
	services int
	lists    bool // like one before Kubernetes 1.32, which does not send lists as events
	codecs   serializer.CodecFactory
}

// serveAPI serves a cluster of so many Services on loopback in a namespace, and returns its URL.
func serveAPI(t *testing.T, ns *lab.Namespace, services int, lists bool) string {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme} {
		must(t, add(scheme))
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	s := &apiServer{services: services, lists: lists, codecs: serializer.NewCodecFactory(scheme)}
	var l net.Listener
	must(t, ns.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}))
	server := &http.Server{Handler: s}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource, q := path.Base(r.URL.Path), r.URL.Query()
	switch {
	case r.URL.Path == "/apis/networking.k8s.io/v1":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(metav1.APIResourceList{GroupVersion: "networking.k8s.io/v1"})
	case r.Method != http.MethodGet: // an Event
		http.Error(w, "not served", http.StatusNotFound)
	case q.Get("watch") == "" && q.Get("limit") == "1": // asks for the version
		s.list(w, resource, 1)
	case q.Get("watch") == "":
		s.list(w, resource, s.services)
	case q.Get("sendInitialEvents") == "true" && s.lists:
		http.Error(w, "sendInitialEvents is forbidden", http.StatusUnprocessableEntity)
	case q.Get("sendInitialEvents") == "true":
		s.watchList(w, r, resource)
	default:
		w.Header().Set("Content-Type", watchType)
		w.(http.Flusher).Flush()
		<-r.Context().Done() // nothing changes
	}
}

const watchType = "application/vnd.kubernetes.protobuf;stream=watch"

// list sends the first objects.
func (s *apiServer) list(w http.ResponseWriter, resource string, number int) {
	var list runtime.Object
	meta := metav1.ListMeta{ResourceVersion: "1000000"}
	switch resource {
	case "services":
		l := &corev1.ServiceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceList"}, ListMeta: meta}
		for i := range number {
			l.Items = append(l.Items, *newService(i))
		}
		list = l
	case "endpointslices":
		l := &discoveryv1.EndpointSliceList{ListMeta: meta,
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"}}
		for i := range number {
			l.Items = append(l.Items, *newSlice(i))
		}
		list = l
	default:
		list = &corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, ListMeta: meta,
			Items: []corev1.Node{*newNode()}}
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	if err := s.protobuf().Serializer.Encode(list, w); err != nil {
		panic(fmt.Sprintf("encode %T: %v", list, err))
	}
}

func (s *apiServer) protobuf() runtime.SerializerInfo {
	info, _ := runtime.SerializerInfoForMediaType(s.codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	return info
}

// watchList sends all objects and the bookmark that ends them, and then nothing.
func (s *apiServer) watchList(w http.ResponseWriter, r *http.Request, resource string) {
	w.Header().Set("Content-Type", watchType)
	info := s.protobuf()
	frames := info.StreamSerializer.NewFrameWriter(w)
	send := func(event watch.EventType, obj runtime.Object) {
		var raw, buf bytes.Buffer
		if err := info.Serializer.Encode(obj, &raw); err != nil {
			panic(fmt.Sprintf("encode %T: %v", obj, err))
		}
		e := &metav1.WatchEvent{Type: string(event), Object: runtime.RawExtension{Raw: raw.Bytes()}}
		if err := info.StreamSerializer.Encode(e, &buf); err != nil {
			panic(fmt.Sprintf("encode event: %v", err))
		}
		_, _ = frames.Write(buf.Bytes())
	}
	var end interface {
		runtime.Object
		metav1.Object
	}
	switch resource {
	case "services":
		end = newService(0)
		for i := range s.services {
			send(watch.Added, newService(i))
		}
	case "endpointslices":
		end = newSlice(0)
		for i := range s.services {
			send(watch.Added, newSlice(i))
		}
	default:
		end = newNode()
		send(watch.Added, newNode())
	}
	end.SetResourceVersion("1000000")
	end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	send(watch.Bookmark, end)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

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
	codecs   serializer.CodecFactory
}

// serveAPI serves a cluster of so many Services on loopback in a namespace, and returns its URL.
func serveAPI(t *testing.T, ns *lab.Namespace, services int) string {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme} {
		must(t, add(scheme))
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	s := &apiServer{services: services, codecs: serializer.NewCodecFactory(scheme)}
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
	resource := path.Base(r.URL.Path)
	switch {
	case r.URL.Path == "/apis/networking.k8s.io/v1":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(metav1.APIResourceList{GroupVersion: "networking.k8s.io/v1"})
	case r.URL.Query().Get("sendInitialEvents") == "true":
		s.watchList(w, r, resource)
	default:
		http.Error(w, "only watches with initial events are served", http.StatusBadRequest)
	}
}

// watchList sends all objects and the bookmark that ends them, and then nothing.
func (s *apiServer) watchList(w http.ResponseWriter, r *http.Request, resource string) {
	w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf;stream=watch")
	info, _ := runtime.SerializerInfoForMediaType(s.codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
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

package source

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// BenchmarkDecode watches an EndpointSlice with so many endpoints: what is done for an event, from the bytes of the
// answer to what the sink gets.
func BenchmarkDecode(b *testing.B) {
	for _, endpoints := range []int{3, 100} {
		b.Run(fmt.Sprint(endpoints), func(b *testing.B) {
			event := watchEvent(b, benchSlice(endpoints))
			client, err := NewClientFor(&rest.Config{Host: "http://server", QPS: -1, Transport: events{event},
				ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeProtobuf}})
			must(b, err)
			w, err := client.slices.watch(b.Context(), metav1.ListOptions{})
			must(b, err)
			defer w.Stop()
			got := &sliceSink{}
			m := newMirror(newKind(&follow{sink: got}, client.slices, selector{}, func() object { return &discoveryv1.EndpointSlice{} }))
			b.SetBytes(int64(len(event)))
			b.ReportAllocs()
			for b.Loop() {
				clear(m.versions) // it is another object each time
				must(b, m.Add((<-w.ResultChan()).Object))
				if n := len(got.slice.Endpoints); n != endpoints {
					b.Fatalf("%d endpoints, want %d", n, endpoints)
				}
			}
		})
	}
}

// benchSlice is as the EndpointSlice controller writes it.
func benchSlice(endpoints int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-x7k2p", UID: "0b1c", ResourceVersion: "1",
			Labels:          map[string]string{discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "web", UID: "0b1b", Controller: ptr.To(true)}},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for i := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("10.244.1.%d", i)}, NodeName: ptr.To("node-b"), Zone: ptr.To("zone-b"),
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: fmt.Sprintf("web-6d5f8c7b9d-%d", i), UID: "0b1d"},
		})
	}
	return s
}

// watchEvent is one as it is sent.
func watchEvent(b *testing.B, s *discoveryv1.EndpointSlice) []byte {
	b.Helper()
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	raw, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, discoveryv1.SchemeGroupVersion), s)
	must(b, err)
	var text bytes.Buffer
	encoder := streaming.NewEncoder(info.StreamSerializer.Framer.NewFrameWriter(&text), info.StreamSerializer.Serializer)
	must(b, encoder.Encode(&metav1.WatchEvent{Type: "MODIFIED", Object: runtime.RawExtension{Raw: raw}}))
	return text.Bytes()
}

// events is a server that sends the same event again and again.
type events struct{ event []byte }

func (e events) RoundTrip(*http.Request) (*http.Response, error) {
	header := http.Header{"Content-Type": {runtime.ContentTypeProtobuf + ";stream=watch"}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(&endless{text: e.event})}, nil
}

// endless reads a text again and again.
type endless struct {
	text []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text[e.at:])
	e.at = (e.at + n) % len(e.text)
	return n, nil
}

// sliceSink keeps the last EndpointSlice.
type sliceSink struct{ slice *discoveryv1.EndpointSlice }

func (s *sliceSink) Apply(obj runtime.Object) { s.slice = obj.(*discoveryv1.EndpointSlice) }
func (*sliceSink) Delete(runtime.Object)      {}
func (*sliceSink) Synced()                    {}

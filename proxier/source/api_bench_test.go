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
)

// BenchmarkDecode watches an EndpointSlice. It measures an event from the bytes of the response to the Sink,
// by the number of endpoints.
func BenchmarkDecode(b *testing.B) {
	for _, endpoints := range []int{3, 100} {
		b.Run(fmt.Sprint(endpoints), func(b *testing.B) {
			event := watchEvent(b, benchSlice(endpoints))
			protobuf := runtime.ContentTypeProtobuf
			client, err := NewClientFor(&rest.Config{Host: "http://server", QPS: -1, Transport: events{event},
				ContentConfig: rest.ContentConfig{ContentType: protobuf, AcceptContentTypes: protobuf}})
			must(b, err)
			x := &exchange{heard: func() {}}
			w, err := client.slices.watch(b.Context(), metav1.ListOptions{}, x)
			must(b, err)
			defer w.Stop()
			got := &sliceSink{}
			newSlice := func() object { return &discoveryv1.EndpointSlice{} }
			s := newStore(newInformer(&apiRun{sink: got}, client.slices, selector{}, newSlice))
			b.SetBytes(int64(len(event)))
			b.ReportAllocs()
			for b.Loop() {
				clear(s.hashes) // so that the object is new each time
				must(b, s.Add((<-w.ResultChan()).Object))
				if n := len(got.slice.Endpoints); n != endpoints {
					b.Fatalf("%d endpoints, want %d", n, endpoints)
				}
			}
		})
	}
}

// benchSlice returns an EndpointSlice as the EndpointSlice controller writes it.
func benchSlice(endpoints int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "web-x7k2p", UID: "0b1c", ResourceVersion: "1",
			Labels: map[string]string{
				discoveryv1.LabelServiceName: "web",
				discoveryv1.LabelManagedBy:   "endpointslice-controller.k8s.io",
			},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "v1", Kind: "Service", Name: "web", UID: "0b1b", Controller: new(true)},
			},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)},
		},
	}
	for i := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("10.244.1.%d", i)}, NodeName: new("node-b"), Zone: new("zone-b"),
			Conditions: discoveryv1.EndpointConditions{
				Ready: new(true), Serving: new(true), Terminating: new(false),
			},
			TargetRef: &corev1.ObjectReference{
				Kind: "Pod", Namespace: "default", Name: fmt.Sprintf("web-6d5f8c7b9d-%d", i), UID: "0b1d",
			},
		})
	}
	return s
}

// watchEvent returns an event as an API server sends it.
func watchEvent(b *testing.B, s *discoveryv1.EndpointSlice) []byte {
	b.Helper()
	mediaTypes := scheme.Codecs.SupportedMediaTypes()
	info, _ := runtime.SerializerInfoForMediaType(mediaTypes, runtime.ContentTypeProtobuf)
	codec := scheme.Codecs.EncoderForVersion(info.Serializer, discoveryv1.SchemeGroupVersion)
	raw, err := runtime.Encode(codec, s)
	must(b, err)
	var text bytes.Buffer
	stream := info.StreamSerializer
	encoder := streaming.NewEncoder(stream.Framer.NewFrameWriter(&text), stream.Serializer)
	must(b, encoder.Encode(&metav1.WatchEvent{Type: "MODIFIED", Object: runtime.RawExtension{Raw: raw}}))
	return text.Bytes()
}

// events is an API server that sends the same event again and again.
type events struct{ event []byte }

func (e events) RoundTrip(*http.Request) (*http.Response, error) {
	header := http.Header{"Content-Type": {runtime.ContentTypeProtobuf + ";stream=watch"}}
	body := io.NopCloser(&endless{text: e.event})
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: body}, nil
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

// sliceSink is a Sink that keeps the last EndpointSlice.
type sliceSink struct{ slice *discoveryv1.EndpointSlice }

func (s *sliceSink) Apply(obj runtime.Object) { s.slice = obj.(*discoveryv1.EndpointSlice) }
func (*sliceSink) Delete(runtime.Object)      {}
func (*sliceSink) Synced()                    {}

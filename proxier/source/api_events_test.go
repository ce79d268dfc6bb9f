package source

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// TestLargeEvent has an API server, or a proxy in front of it, send an event of 300 MB among others. The
// source must deliver the others, say which object it left out, and not take the memory. A smaller version of
// the object is delivered.
func TestLargeEvent(t *testing.T) {
	const most = 64 << 20
	for _, media := range []string{apiruntime.ContentTypeJSON, apiruntime.ContentTypeProtobuf} {
		t.Run(media, func(t *testing.T) {
			before := taken()
			synctest.Test(t, func(t *testing.T) {
				c := &apiCase{t: t, sink: &recordingSink{t: t}}
				c.beginWith(&largeServer{t, media})
				c.expect("! watch services: left out an event of 300000000 bytes for shop/huge, which stays as it "+
					"was: an event may have 4194304 bytes; make the object smaller",
					"+ EndpointSlice shop/slice 1", "+ Node here", "+ Service shop/first 1",
					"+ Service shop/huge 2", "+ Service shop/second 1", "synced")
				c.stop()
			})
			if took := taken() - before; took > most {
				t.Errorf("the process took %d MB from the system", took/1e6)
			}
		})
	}
}

// begin starts the source for the Node "here".
func (c *apiCase) begin() { c.beginWith(c.server.transport) }

// beginWith starts it with the server behind a transport.
func (c *apiCase) beginWith(transport http.RoundTripper) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	client, err := NewClientFor(&rest.Config{Host: "http://api", Transport: transport, QPS: -1})
	must(c.t, err)
	api := NewAPI(client, "here")
	go func() {
		err := api.Run(ctx, c.sink, Reporter{
			Failed:    func(err error) { c.sink.note("! %v", err) },
			Recovered: func(what string) { c.sink.note("~ %s", what) },
		})
		c.sink.busy.Lock()
		defer c.sink.busy.Unlock()
		c.sink.over = true
		done <- err
	}()
	c.stop = func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("Run returned %v", err)
		}
	}
}

// taken returns the bytes that the process has ever taken from the system.
func taken() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.Sys)
}

// largeServer sends one event of 300 MB.
type largeServer struct {
	t     *testing.T
	media string
}

func (s *largeServer) RoundTrip(r *http.Request) (*http.Response, error) {
	end := func(obj object) io.Reader {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		return s.event("BOOKMARK", obj)
	}
	var stream []io.Reader
	switch path.Base(r.URL.Path) {
	case "services":
		huge := apiService("huge", "2")
		stream = []io.Reader{s.event("ADDED", apiService("first", "1")), s.huge(300_000_000),
			s.event("ADDED", apiService("second", "1")), s.event("MODIFIED", huge), end(apiService("", ""))}
	case "endpointslices":
		stream = []io.Reader{s.event("ADDED", apiSlice("slice", "1")), end(apiSlice("", ""))}
	case "nodes":
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
		stream = []io.Reader{s.event("ADDED", node), end(&corev1.Node{})}
	default:
		return &http.Response{StatusCode: http.StatusNotFound, Body: http.NoBody, Request: r}, nil
	}
	stream = append(stream, waiting{r.Context()})
	return &http.Response{StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {s.media}},
		Body: io.NopCloser(io.MultiReader(stream...))}, nil
}

// waiting is a body that has no more until the request ends.
type waiting struct{ context.Context }

func (w waiting) Read([]byte) (int, error) {
	<-w.Done()
	return 0, w.Err()
}

// encode returns an event in a frame.
func (s *largeServer) encode(event string, obj object) []byte {
	stamp(obj)
	obj.SetResourceVersion("7")
	info, _ := apiruntime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), s.media)
	var raw, text, framed bytes.Buffer
	must(s.t, info.Serializer.Encode(obj, &raw))
	e := &metav1.WatchEvent{Type: event, Object: apiruntime.RawExtension{Raw: raw.Bytes()}}
	must(s.t, info.StreamSerializer.Encode(e, &text))
	_, err := info.StreamSerializer.NewFrameWriter(&framed).Write(text.Bytes())
	must(s.t, err)
	return framed.Bytes()
}

func (s *largeServer) event(event string, obj object) io.Reader {
	return bytes.NewReader(s.encode(event, obj))
}

// huge returns an event of so many bytes: what it begins with is an event that has its end cut off.
func (s *largeServer) huge(size int) io.Reader {
	begin := s.encode("MODIFIED", apiService("huge", "1"))
	if s.media == apiruntime.ContentTypeProtobuf {
		binary.BigEndian.PutUint32(begin, uint32(size))
		return io.MultiReader(bytes.NewReader(begin), &filler{size - (len(begin) - 4)})
	}
	const tail = `"}}}}`
	i := bytes.Index(begin, []byte(`"labels"`))
	begin = append(begin[:i:i], `"annotations":{"a":"`...)
	return io.MultiReader(bytes.NewReader(begin), &filler{size - len(begin) - len(tail)},
		strings.NewReader(tail+"\n"))
}

// filler is a number of letters.
type filler struct{ left int }

func (f *filler) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), f.left)
	f.left -= n
	copy(p, slices.Repeat([]byte("x"), n))
	return n, nil
}

// TestLargeAnswer has an API server send a list without an end.
func TestLargeAnswer(t *testing.T) {
	client, err := NewClientFor(&rest.Config{Host: "http://server", QPS: -1, Transport: endlessServer{}})
	must(t, err)
	_, err = client.Node(t.Context(), "here")
	if err == nil || !strings.Contains(err.Error(), "the answer has more than 268435456 bytes") {
		t.Errorf("got %v", err)
	}
}

// endlessServer answers all requests with letters.
type endlessServer struct{}

func (endlessServer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Request: r, Header: http.Header{},
		Body: io.NopCloser(&filler{1 << 40})}, nil
}

// TestEvents cuts streams into events. The decoder reports what is wrong inside an event.
func TestEvents(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", maxEvent) + `"}`
	for _, c := range []struct {
		stream string
		want   []string
		err    error
	}{
		{stream: "", err: io.EOF},
		{stream: `{"a":1}` + "\n" + `{"b":[{}]} ` + "\n", want: []string{`{"a":1}`, `{"b":[{}]}`}, err: io.EOF},
		{stream: `{"a":"}\"}\\"}{}`, want: []string{`{"a":"}\"}\\"}`, "{}"}, err: io.EOF},
		{stream: `{}` + long + `{"a":2}`, want: []string{"{}", `{"a":2}`}, err: io.EOF},
		{stream: `{"a":1}{"b":`, want: []string{`{"a":1}`}, err: io.ErrUnexpectedEOF},
		{stream: `{"a":1}<html>`, want: []string{`{"a":1}`}},
	} {
		e := boundEvents(io.NopCloser(strings.NewReader(c.stream)), nextJSON, func(largeEvent) {})
		var got []string
		var err error
		for buf := make([]byte, 2*keptBuffer); err == nil; {
			var n int
			if n, err = e.Read(buf); n > 0 {
				got = append(got, string(buf[:n]))
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%.50q: error %v, want %v; events (-want +got):\n%s", c.stream, err, c.err, diff)
		}
	}
}

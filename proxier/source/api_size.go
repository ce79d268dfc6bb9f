package source

import (
	"fmt"
	"io"
	"mime"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
)

// Limits of what is read from an API server, or from a proxy in front of it. Without them, an event of 300 MB
// takes ten times as much memory while it is decoded.
const (
	// maxEvent is the size of a watch event in bytes. By default etcd stores objects of 1.5 MiB
	// (--max-request-bytes), which as JSON are at most about twice as large.
	maxEvent = 4 << 20
	// maxAnswer is the size of any other answer in bytes. A list of 100,000 Services or of their
	// EndpointSlices has less than half of it.
	maxAnswer = 256 << 20
)

// sizeLimit is a transport that bounds answers. It leaves larger watch events out.
type sizeLimit struct{ next http.RoundTripper }

func (l sizeLimit) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	x, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if !ok || !x.watch || resp.StatusCode != http.StatusOK {
		resp.Body = &limitedBody{resp.Body, maxAnswer}
		return resp, nil
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch media {
	case runtime.ContentTypeProtobuf:
		resp.Body = boundEvents(resp.Body, nextProtobuf, x.left)
	case runtime.ContentTypeJSON:
		resp.Body = boundEvents(resp.Body, nextJSON, x.left)
	} // the client cannot decode another one, and does not read it
	return resp, nil
}

// largeEvent is an event that was left out.
type largeEvent struct {
	object string // namespace and name, or "" if unknown
	bytes  int64
}

func (e largeEvent) Error() string {
	object := "an object"
	if e.object != "" {
		object = e.object
	}
	return fmt.Sprintf("left out an event of %d bytes for %s, which stays as it was: an event may have %d "+
		"bytes; make the object smaller", e.bytes, object, maxEvent)
}

// limitedBody fails when more than left bytes are read.
type limitedBody struct {
	io.ReadCloser
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return n, err
}

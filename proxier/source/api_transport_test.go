package source

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestReconnect shows that a request without an answer ends the connection that all requests share. Its other
// end may be a load balancer: here the first connection leads to an API server that hangs, and the next ones
// to one that works.
func TestReconnect(t *testing.T) {
	type first struct{}
	var connections atomic.Int32
	hangs := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		isFirst, watches := r.Context().Value(first{}).(bool), r.URL.Query().Get("watch") != ""
		if isFirst && !watches {
			<-hangs
			return
		}
		_, _ = w.Write([]byte(`{"kind": "ServiceList", "apiVersion": "v1"}`))
		if watches {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))
	server.EnableHTTP2 = true
	server.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, first{}, connections.Add(1) == 1)
	}
	server.StartTLS()
	defer server.Close()
	defer close(hangs)
	limits := defaultLimits()
	limits.answer = 300 * time.Millisecond
	client, err := newClient(&rest.Config{
		Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, limits)
	must(t, err)

	x := &exchange{heard: func() {}, lost: func(err error) { t.Errorf("watch lost: %v", err) }}
	w, err := client.services.watch(t.Context(), metav1.ListOptions{}, x)
	must(t, err)
	_, err = client.services.list(t.Context(), metav1.ListOptions{})
	if err == nil || !strings.Contains(err.Error(), "no answer within 300ms") {
		t.Fatalf("the first list: %v", err)
	}
	for range w.ResultChan() { // ends with the connection
	}
	for {
		_, err = client.services.list(t.Context(), metav1.ListOptions{})
		if !errors.Is(err, net.ErrClosed) { // HTTP/2 has not noticed yet that its connection is closed
			break
		}
	}
	must(t, err)
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// TestWatchTimeout shows that the timeout of a watch is an error.
func TestWatchTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(t)
		server.losePackets(true)
		x := &exchange{heard: func() { t.Error("the API server was heard") }}
		_, err := fakeClient(t, server).services.watch(t.Context(), metav1.ListOptions{}, x)
		if err == nil || !strings.Contains(err.Error(), "i/o timeout") {
			t.Errorf("error %v", err)
		}
	})
}

// TestWatchStopped shows that it is no outage if a watch is stopped.
func TestWatchStopped(t *testing.T) {
	server := newAPIServer(t)
	lost := make(chan error, 1)
	x := &exchange{heard: func() {}, lost: func(err error) { lost <- err }}
	w, err := fakeClient(t, server).services.watch(t.Context(), metav1.ListOptions{}, x)
	must(t, err)
	w.Stop()
	for range w.ResultChan() { // ends when the last Read has returned
	}
	select {
	case err := <-lost:
		t.Errorf("lost: %v", err)
	default:
	}
}

// fakeClient returns a client of the server.
func fakeClient(t *testing.T, server *apiServer) *Client {
	t.Helper()
	client, err := NewClientFor(&rest.Config{Host: "http://api", Transport: server.transport, QPS: -1})
	must(t, err)
	return client
}

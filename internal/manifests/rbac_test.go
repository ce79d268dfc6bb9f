package manifests

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/nftproxy/nftproxy/proxier/source"
)

// TestRoleIsWhatIsUsed checks that the ClusterRole grants the requests of the source and the creation of
// Events, which are all requests of nftproxy, and no others.
func TestRoleIsWhatIsUsed(t *testing.T) {
	want := []string{"create events.k8s.io/events"}
	want = append(want, actions(t)...)
	slices.Sort(want)
	got := rights(of[*rbacv1.ClusterRole](t, objects(t, filepath.Join(root, "overlays/generic"))).Rules)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("rights (-used +granted):\n%s", diff)
	}
}

// rights returns the rules as sorted lines of verb, group and resource.
func rights(rules []rbacv1.PolicyRule) []string {
	var lines []string
	for _, r := range rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					lines = append(lines, verb+" "+group+"/"+resource)
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// actions returns the requests of the source from its start until it has synced and watches.
func actions(t *testing.T) []string {
	t.Helper()
	api := &apiServer{}
	server := httptest.NewServer(api)
	defer server.Close()
	client, err := source.NewClientFor(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	synced := syncSink{make(chan struct{})}
	running.Go(func() {
		report := source.Reporter{Failed: func(err error) { t.Error(err) }}
		_ = source.NewAPI(client, "node").Run(ctx, synced, report) // it returns nil
	})
	select {
	case <-synced.done:
	case <-time.After(time.Minute):
		t.Error("the source did not sync")
	}
	cancel()
	running.Wait()
	server.CloseClientConnections() // those of watches are open
	return api.requests
}

// apiServer serves one Node and no other object. It records all requests except for discovery.
type apiServer struct {
	mu       sync.Mutex
	requests []string // "verb group/resource"
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// The path is api/VERSION/RESOURCE or apis/GROUP/VERSION/RESOURCE.
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if path[0] == "api" {
		path = slices.Insert(path, 1, "")
	}
	if len(path) == 3 {
		_, _ = io.WriteString(w, `{"kind": "APIResourceList", "resources": [{"name": "servicecidrs"}]}`)
		return
	}
	query, verb := r.URL.Query(), "list"
	if query.Get("watch") != "" {
		verb = "watch"
	}
	s.mu.Lock()
	s.requests = append(s.requests, verb+" "+path[1]+"/"+path[3])
	s.mu.Unlock()
	version := strings.TrimPrefix(path[1]+"/"+path[2], "/")
	kind := map[string]string{
		"services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node", "servicecidrs": "ServiceCIDR",
	}[path[3]]
	switch {
	case query.Get("sendInitialEvents") != "": // refuse, as an old server does: the client must list
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", `+
			`"reason": "Invalid", "code": 422}`)
	case verb == "watch":
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case kind == "Node":
		_, _ = io.WriteString(w, `{"kind": "NodeList", "apiVersion": "v1", `+
			`"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "node", "resourceVersion": "1"}}]}`)
	default:
		_, _ = fmt.Fprintf(w, `{"kind": "%sList", "apiVersion": %q, "metadata": {"resourceVersion": "1"}, `+
			`"items": []}`, kind, version)
	}
}

// syncSink closes done when the source has synced.
type syncSink struct{ done chan struct{} }

func (syncSink) Apply(runtime.Object)  {}
func (syncSink) Delete(runtime.Object) {}
func (s syncSink) Synced()             { close(s.done) }

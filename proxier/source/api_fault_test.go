package source

import (
	"maps"
	"net/http"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// hang makes the server stop in its tracks, as SIGSTOP does: it accepts requests, and sends nothing.
func (s *apiServer) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hung = make(chan struct{})
}

// resume ends hang.
func (s *apiServer) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.hung)
	s.hung = nil
}

// awaitWorking waits while the server hangs and the client waits.
func (s *apiServer) awaitWorking(r *http.Request) {
	s.mu.Lock()
	hung := s.hung
	s.mu.Unlock()
	if hung == nil {
		return
	}
	select {
	case <-hung:
	case <-r.Context().Done():
	}
}

// breakConnections breaks all connections; s.mu is held.
func (s *apiServer) breakConnections() {
	for conn := range s.conns {
		_ = conn.Close()
	}
	clear(s.conns)
}

// refuseAll breaks all connections and makes all requests fail, or succeed again if err is nil.
func (s *apiServer) refuseAll(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range []string{"services", "endpointslices", "nodes", "servicecidrs"} {
		for _, verb := range []string{"list ", "watch ", "discover "} {
			s.refuse[verb+resource] = err
		}
	}
	if err != nil {
		s.breakConnections()
	}
}

// losePackets makes new connections fail after the timeout of the client.
func (s *apiServer) losePackets(lose bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vanishing = lose
}

func (s *apiServer) losesPackets() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vanishing
}

// snapshot is the content of a storage.
type snapshot struct {
	revision int
	objects  map[string]map[types.NamespacedName]object
}

func (s *apiServer) snapshot() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot{s.revision, copied(s.objects)}
}

// restore breaks all connections and gives the server an older content of its storage, as etcdutl snapshot
// restore does. The history of changes begins with it.
func (s *apiServer) restore(from snapshot) {
	s.stop()
	s.mu.Lock()
	s.objects, s.revision, s.compacted, s.log = copied(from.objects), from.revision, from.revision, nil
	s.mu.Unlock()
	s.start(false)
}

func copied(objects map[string]map[types.NamespacedName]object) map[string]map[types.NamespacedName]object {
	out := map[string]map[types.NamespacedName]object{}
	for _, resource := range slices.Collect(maps.Keys(objects)) {
		out[resource] = maps.Clone(objects[resource])
	}
	return out
}

// errorsOf returns what was reported, and the rest, of what a sink received.
func errorsOf(received []string) (reports, rest []string) {
	for _, line := range received {
		if line[0] == '!' || line[0] == '~' {
			reports = append(reports, line)
		} else {
			rest = append(rest, line)
		}
	}
	return reports, rest
}

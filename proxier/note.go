package proxier

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nftproxy/nftproxy/proxier/status"
)

// notes are the problems of the node that goroutines other than the reconciler's have found, and that are not
// over. The zero value is ready to use.
type notes struct {
	mu    sync.Mutex
	known map[string]status.Problem // by what they are about
	heard map[string]time.Time      // resources of the API server, and when they were heard
}

// set notes a problem. It began when the problem about this was set first.
func (n *notes) set(about, what, todo string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = map[string]status.Problem{}
	}
	p, ok := n.known[about]
	if !ok {
		p.Since = time.Now()
	}
	p.What, p.Todo = what, todo
	n.known[about] = p
}

// clear ends a problem.
func (n *notes) clear(about string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, about)
}

// list returns the problems.
func (n *notes) list() (list []status.Problem) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, about := range slices.Sorted(maps.Keys(n.known)) {
		list = append(list, n.known[about])
	}
	return list
}

// hear records that the API server was heard about a resource. An error that was reported before all of them
// were heard is over: some errors are reported once, and nobody reports their end.
func (n *notes) hear(resource string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.heard == nil {
		n.heard = map[string]time.Time{}
	}
	n.heard[resource] = time.Now()
	failed, ok := n.known[aboutAPI]
	if !ok {
		return
	}
	for _, at := range n.heard {
		if !at.After(failed.Since) {
			return
		}
	}
	delete(n.known, aboutAPI)
}

// api returns when the API server was last heard about every resource, and what is wrong with it, if anything.
func (n *notes) api() (heard time.Time, wrong string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, at := range n.heard {
		if heard.IsZero() || at.Before(heard) {
			heard = at
		}
	}
	return heard, n.known[aboutAPI].What
}

// silent returns the resources that have not been heard for longer than that, sorted, and since when.
func (n *notes) silent(longer time.Duration) (resources []string, since time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, resource := range slices.Sorted(maps.Keys(n.heard)) {
		if at := n.heard[resource]; time.Since(at) > longer {
			resources = append(resources, resource)
			if since.IsZero() || at.Before(since) {
				since = at
			}
		}
	}
	return resources, since
}

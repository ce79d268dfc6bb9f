package health

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// taintToBeDeleted is put on a node by the cluster autoscaler before it removes it.
const taintToBeDeleted = "ToBeDeletedByClusterAutoscaler"

// NodeEligible says whether load balancers may choose the node: it is neither being
// deleted nor tainted by the cluster autoscaler as about to be (KEP-3836). A nil node,
// one not seen yet or gone, is not eligible.
func NodeEligible(node *corev1.Node) bool {
	if node == nil || !node.DeletionTimestamp.IsZero() {
		return false
	}
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].Key == taintToBeDeleted {
			return false
		}
	}
	return true
}

// ProxierOptions is what a ProxierHealth is made of.
type ProxierOptions struct {
	// Timeout is how long a queued change may wait for a successful sync before the
	// proxier is unhealthy. kube-proxy has twice its syncPeriod.
	Timeout time.Duration
	// Families are those that are programmed. All are programmed together, so their
	// status is always the same.
	Families []service.Family
	// OnHealthz and OnLivez, if set, are told the status code of each answer.
	OnHealthz, OnLivez func(code int)
}

// ProxierHealth knows whether syncs keep up with the changes, and answers /healthz
// and /livez. It is safe for concurrent use.
type ProxierHealth struct {
	opts ProxierOptions

	mu           sync.Mutex
	pendingSince time.Time // when the oldest change that is not yet programmed was queued
	lastUpdated  time.Time // zero until the first sync has succeeded
	nodeEligible bool
}

// NewProxierHealth returns a ProxierHealth that is starting: alive, with nothing queued,
// but not fit for load balancers until a sync has succeeded and SetNodeEligible has said
// that its node is eligible.
func NewProxierHealth(opts ProxierOptions) *ProxierHealth {
	return &ProxierHealth{opts: opts}
}

// Queued is called for each change that a sync has yet to program.
func (h *ProxierHealth) Queued() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pendingSince.IsZero() {
		h.pendingSince = time.Now()
	}
}

// Updated is called after a sync that succeeded, also one that found nothing to do. A
// sync that failed must not call it: that the change goes on waiting is what makes the
// proxier unhealthy in the end. As in kube-proxy, what was queued while the sync ran is
// taken as done; the sync that follows is judged by what is queued after it.
func (h *ProxierHealth) Updated() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pendingSince = time.Time{}
	h.lastUpdated = time.Now()
}

// SetNodeEligible says whether load balancers may choose this node. It counts for
// /healthz only.
func (h *ProxierHealth) SetNodeEligible(eligible bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodeEligible = eligible
}

// Healthy reports whether no change has been waiting for Timeout or longer.
func (h *ProxierHealth) Healthy() bool {
	body, _ := h.status()
	return body.Healthy
}

// Handler serves /healthz and /livez.
func (h *ProxierHealth) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", h.serveHealthz)
	mux.HandleFunc("/livez", h.serveLivez)
	return mux
}

// proxierBody is the body of /healthz and /livez, as kube-proxy 1.36 has it.
type proxierBody struct {
	LastUpdated  time.Time               `json:"lastUpdated"`
	CurrentTime  time.Time               `json:"currentTime"`
	NodeEligible *bool                   `json:"nodeEligible,omitempty"`
	Healthy      bool                    `json:"healthy"`
	Status       map[string]familyStatus `json:"status,omitempty"`
}

type familyStatus struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

func (h *ProxierHealth) status() (body proxierBody, nodeEligible bool) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	body = proxierBody{
		LastUpdated: h.lastUpdated,
		CurrentTime: now,
		Healthy:     h.pendingSince.IsZero() || now.Sub(h.pendingSince) < h.opts.Timeout,
		Status:      make(map[string]familyStatus, len(h.opts.Families)),
	}
	for _, f := range h.opts.Families {
		body.Status[familyName(f)] = familyStatus{LastUpdated: h.lastUpdated, Healthy: body.Healthy}
	}
	return body, h.nodeEligible
}

// serveHealthz answers load balancers and the readiness probe. kube-proxy is healthy
// while it starts, too, and gets connections for Services that it has yet to program
// (kubernetes/kubernetes#83263).
func (h *ProxierHealth) serveHealthz(w http.ResponseWriter, _ *http.Request) {
	body, eligible := h.status()
	body.NodeEligible = &eligible
	if body.LastUpdated.IsZero() {
		body.Healthy = false
	}
	answer(w, body, body.Healthy && eligible, h.opts.OnHealthz)
}

func (h *ProxierHealth) serveLivez(w http.ResponseWriter, _ *http.Request) {
	body, _ := h.status()
	answer(w, body, body.Healthy, h.opts.OnLivez)
}

func answer(w http.ResponseWriter, body proxierBody, ok bool, count func(code int)) {
	code := http.StatusServiceUnavailable
	if ok {
		code = http.StatusOK
		// Load balancers once judged by the age of lastUpdated, when it moved with
		// every sync; kube-proxy keeps it recent for as long as all is well.
		body.LastUpdated = body.CurrentTime
	}
	if count != nil {
		count(code)
	}
	text, err := json.Marshal(body)
	writeJSON(w, code, text, err)
}

// familyName is the Kubernetes API's name for a family.
func familyName(f service.Family) string {
	if f == service.IPv4 {
		return string(corev1.IPv4Protocol)
	}
	return string(corev1.IPv6Protocol)
}

// writeJSON answers with text, or with err if text could not be made.
func writeJSON(w http.ResponseWriter, code int, text []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(text) // an error means that nobody listens any more
}

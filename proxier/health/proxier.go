package health

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// taintToBeDeleted is the taint that the cluster autoscaler puts on a node before it removes the node.
const taintToBeDeleted = "ToBeDeletedByClusterAutoscaler"

// NodeEligible reports whether load balancers may choose the node: it is not being deleted and does not have
// the cluster autoscaler's taint (KEP-3836). A nil node, which was not seen yet or is gone, is not eligible.
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

// ProxierOptions configure a ProxierHealth.
type ProxierOptions struct {
	// Timeout is how long a queued change may wait for a successful sync before the proxier is unhealthy.
	// kube-proxy uses twice its syncPeriod.
	Timeout time.Duration
	// OnHealthz and OnLivez, if set, are called with the status code of each answer.
	OnHealthz, OnLivez func(code int)
}

// ProxierHealth records whether syncs keep up with the changes, and answers /healthz and /livez. It is safe
// for concurrent use.
type ProxierHealth struct {
	opts ProxierOptions

	mu           sync.Mutex
	pendingSince time.Time // when the oldest change that is not programmed yet was queued
	lastUpdated  time.Time // zero until the first sync has succeeded
	nodeEligible bool
	families     []service.Family
}

// NewProxierHealth returns a ProxierHealth that is starting, without families: /livez succeeds, and /healthz
// fails until a sync has succeeded and SetNodeEligible has been called with true.
func NewProxierHealth(opts ProxierOptions) *ProxierHealth {
	return &ProxierHealth{opts: opts}
}

// SetFamilies sets the families in the status: those that are programmed. They are programmed together, so
// their status is always the same.
func (h *ProxierHealth) SetFamilies(families []service.Family) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.families = families
}

// Queued records a change that a sync still has to program.
func (h *ProxierHealth) Queued() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pendingSince.IsZero() {
		h.pendingSince = time.Now()
	}
}

// Updated records a successful sync, also one that found nothing to do. Do not call it after a sync that
// failed: the change keeps waiting, and in the end the proxier is unhealthy. As in kube-proxy, changes that
// were queued while the sync ran count as programmed.
func (h *ProxierHealth) Updated() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pendingSince = time.Time{}
	h.lastUpdated = time.Now()
}

// SetNodeEligible sets whether load balancers may choose this node. It affects only /healthz.
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

// proxierBody is the body of /healthz and /livez, the same as in kube-proxy 1.36.
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
		Status:      make(map[string]familyStatus, len(h.families)),
	}
	for _, f := range h.families {
		body.Status[f.APIName()] = familyStatus{LastUpdated: h.lastUpdated, Healthy: body.Healthy}
	}
	return body, h.nodeEligible
}

// serveHealthz answers load balancers and the readiness probe. It fails until the first sync has succeeded.
// kube-proxy succeeds while it starts, and gets connections to Services that it has not programmed yet
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
		// Some clients judge by the age of lastUpdated, so kube-proxy sets it to the current time while it is
		// healthy.
		body.LastUpdated = body.CurrentTime
	}
	if count != nil {
		count(code)
	}
	text, err := json.Marshal(body)
	writeJSON(w, code, text, err)
}

// writeJSON answers with text, or with err if encoding the text failed.
func writeJSON(w http.ResponseWriter, code int, text []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(text) // an error means that the client has closed the connection
}

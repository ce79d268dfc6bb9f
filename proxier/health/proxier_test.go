package health

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// probe is what a probe sees: the status, and the named fields of the body.
type probe struct {
	Code      int
	Healthy   bool
	Recent    bool // lastUpdated is now
	Families  map[string]bool
	Eligible  bool
	HasNode   bool
	Timestamp time.Time
}

func ask(t *testing.T, h *ProxierHealth, path string) probe {
	t.Helper()
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	checkJSONHeaders(t, w.Header())
	var body struct {
		LastUpdated, CurrentTime time.Time
		NodeEligible             *bool
		Healthy                  bool
		Status                   map[string]struct {
			LastUpdated time.Time
			Healthy     bool
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("body of %s: %v", path, err)
	}
	p := probe{
		Code: w.Code, Healthy: body.Healthy, Recent: body.LastUpdated.Equal(time.Now()),
		Families: map[string]bool{}, HasNode: body.NodeEligible != nil,
		Eligible: body.NodeEligible != nil && *body.NodeEligible,
	}
	if !body.CurrentTime.Equal(time.Now()) {
		t.Errorf("%s: currentTime %v, want now", path, body.CurrentTime)
	}
	for family, status := range body.Status {
		p.Families[family] = status.Healthy
		p.Timestamp = status.LastUpdated
	}
	return p
}

func checkJSONHeaders(t *testing.T, header http.Header) {
	t.Helper()
	want := map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
	got := map[string]string{}
	for name := range want {
		got[name] = header.Get(name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

const timeout = time.Minute

// never stands for a sync that has not happened.
const never time.Duration = -1

// proxierCase is what happened to a ProxierHealth, and how it must answer.
type proxierCase struct {
	name    string
	do      func(h *ProxierHealth)
	healthz int
	livez   int
	updated time.Duration // when the last sync succeeded, after the start
}

func TestProxierHealth(t *testing.T) {
	tests := []proxierCase{
		{"starting, nothing queued", func(h *ProxierHealth) { time.Sleep(24 * time.Hour) }, 503, 200, never},
		{"starting, not late yet", func(h *ProxierHealth) { h.Queued(); time.Sleep(timeout - 1) }, 503, 200, never},
		{"starting, and late", func(h *ProxierHealth) { h.Queued(); time.Sleep(timeout) }, 503, 503, never},
		{"nothing queued since", func(h *ProxierHealth) { h.Updated(); time.Sleep(24 * time.Hour) }, 200, 200, 0},
		{"queued, not late yet", func(h *ProxierHealth) {
			h.Updated()
			h.Queued()
			time.Sleep(timeout - 1)
		}, 200, 200, 0},
		{"the oldest counts", func(h *ProxierHealth) {
			h.Updated()
			h.Queued()
			time.Sleep(timeout - time.Second)
			h.Queued()
			time.Sleep(time.Second)
		}, 503, 503, 0},
		{"synced", func(h *ProxierHealth) {
			h.Queued()
			time.Sleep(time.Second)
			h.Updated()
			time.Sleep(24 * time.Hour)
		}, 200, 200, time.Second},
		{"queued again after a sync", func(h *ProxierHealth) {
			h.Queued()
			time.Sleep(time.Second)
			h.Updated()
			time.Sleep(time.Hour)
			h.Queued()
			time.Sleep(timeout)
		}, 503, 503, time.Second},
		{"late, then synced", func(h *ProxierHealth) {
			h.Queued()
			time.Sleep(time.Hour)
			h.Updated()
		}, 200, 200, time.Hour},
		{"node not eligible", func(h *ProxierHealth) { h.Updated(); h.SetNodeEligible(false) }, 503, 200, 0},
		{"node not eligible, and late", func(h *ProxierHealth) {
			h.Updated()
			h.SetNodeEligible(false)
			h.Queued()
			time.Sleep(timeout)
		}, 503, 503, 0},
		{"node eligible again", func(h *ProxierHealth) {
			h.Updated()
			h.SetNodeEligible(false)
			h.SetNodeEligible(true)
		}, 200, 200, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { synctest.Test(t, test.check) })
	}
}

func (test proxierCase) check(t *testing.T) {
	var codes [2]int
	start := time.Now()
	h := NewProxierHealth(ProxierOptions{
		Timeout:   timeout,
		OnHealthz: func(code int) { codes[0] = code },
		OnLivez:   func(code int) { codes[1] = code },
	})
	h.SetFamilies(service.Families())
	h.SetNodeEligible(true)
	test.do(h)
	healthy := test.livez == 200
	want := probe{
		Code: test.livez, Healthy: healthy, Recent: healthy || test.updated == time.Since(start),
		Families: map[string]bool{"IPv4": healthy, "IPv6": healthy},
	}
	if test.updated != never {
		want.Timestamp = start.Add(test.updated)
	}
	if diff := cmp.Diff(want, ask(t, h, "/livez")); diff != "" {
		t.Errorf("/livez (-want +got):\n%s", diff)
	}
	want.Code, want.HasNode, want.Eligible = test.healthz, true, h.nodeEligible
	want.Healthy = healthy && test.updated != never
	want.Recent = test.healthz == 200 || test.updated == time.Since(start)
	if diff := cmp.Diff(want, ask(t, h, "/healthz")); diff != "" {
		t.Errorf("/healthz (-want +got):\n%s", diff)
	}
	if h.Healthy() != healthy {
		t.Errorf("Healthy() = %v, want %v", !healthy, healthy)
	}
	if want := [2]int{test.healthz, test.livez}; codes != want {
		t.Errorf("codes counted %v, want %v", codes, want)
	}
}

// TestProxierBody checks the bytes of the body, because other programs parse them.
func TestProxierBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewProxierHealth(ProxierOptions{Timeout: time.Minute})
		h.SetFamilies([]service.Family{service.IPv4})
		h.Updated()
		time.Sleep(time.Second)
		at := func(d time.Duration) string {
			text, _ := time.Now().Add(d).MarshalText()
			return string(text)
		}
		status := fmt.Sprintf(`"healthy":true,"status":{"IPv4":{"lastUpdated":%q,"healthy":true}}`,
			at(-time.Second))
		for path, want := range map[string]string{
			"/healthz": fmt.Sprintf(`{"lastUpdated":%q,"currentTime":%q,"nodeEligible":false,%s}`,
				at(-time.Second), at(0), status),
			"/livez": fmt.Sprintf(`{"lastUpdated":%q,"currentTime":%q,%s}`, at(0), at(0), status),
		} {
			w := httptest.NewRecorder()
			h.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if diff := cmp.Diff(want, w.Body.String()); diff != "" {
				t.Errorf("body of %s (-want +got):\n%s", path, diff)
			}
		}
	})
}

func TestNodeEligible(t *testing.T) {
	now := metav1.Now()
	tests := []struct {
		name string
		node *corev1.Node
		want bool
	}{
		{"not seen", nil, false},
		{"plain", &corev1.Node{}, true},
		{"being deleted", &corev1.Node{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}}, false},
		{"tainted by the autoscaler", tainted("other", "ToBeDeletedByClusterAutoscaler"), false},
		{"other taints", tainted("node.kubernetes.io/unschedulable", "DeletionCandidateOfClusterAutoscaler"), true},
	}
	for _, test := range tests {
		if got := NodeEligible(test.node); got != test.want {
			t.Errorf("%s: NodeEligible = %v, want %v", test.name, got, test.want)
		}
	}
}

func tainted(keys ...string) *corev1.Node {
	node := &corev1.Node{}
	for _, key := range keys {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	}
	return node
}

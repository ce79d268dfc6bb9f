//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/proxier/status"
)

// problem waits until the status of the node has a problem with a text, or no longer has it.
func (m *monitor) problem(t *testing.T, want bool, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		code, _, body := m.get(t, "http://127.0.0.1:10249/status.json")
		var report status.Report
		if err := json.Unmarshal([]byte(body), &report); err != nil || code != 200 {
			t.Fatalf("/status.json: status %d, error %v: %s", code, err, body)
		}
		found := false
		for _, p := range report.Problems {
			found = found || strings.Contains(p.What, text) && !p.Since.IsZero() && p.Todo != ""
		}
		if found == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute, a problem with %q: %v, want %v, in %+v", text, found, want, report.Problems)
		}
	}
}

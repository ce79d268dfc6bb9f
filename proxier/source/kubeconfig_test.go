package source

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatchKubeconfig replaces a kubeconfig: by itself, by one that makes no client, and by another one.
func TestWatchKubeconfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(file, []byte(testKubeconfig), 0o600))
	synctest.Test(t, func(t *testing.T) {
		client, err := NewClient(ClientConfig{Kubeconfig: file, QPS: -1})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var changes int
		var problems []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			client.WatchKubeconfig(ctx, func() { changes++ },
				func(err error) { problems = append(problems, err.Error()) })
		}()
		step := func(content string, wantChanges, wantProblems int) {
			t.Helper()
			must(t, os.WriteFile(file, []byte(content), 0o600))
			time.Sleep(3 * kubeconfigPeriod)
			synctest.Wait()
			if changes != wantChanges || len(problems) != wantProblems {
				t.Errorf("%d changes and the problems %q, want %d and %d, after\n%s", changes, problems,
					wantChanges, wantProblems, content)
			}
		}
		step(testKubeconfig, 0, 0)
		step("", 0, 0)
		step("clusters: nonsense", 0, 1)
		step(strings.Replace(testKubeconfig, "current-context: x", "current-context: y", 1), 0, 2)
		step(strings.Replace(testKubeconfig, "192.0.2.1", "192.0.2.2", 1), 1, 2)
		must(t, os.Remove(file))
		step(testKubeconfig, 2, 2)
		for _, p := range problems {
			if !strings.Contains(p, file) {
				t.Errorf("the problem %q does not name %s", p, file)
			}
		}
		cancel()
		<-done
	})
}

package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// watched runs Watch until the end of the test, and returns a channel that gets a value for each change: ""
// for another configuration, "usable" when the file is as before, and otherwise the error.
func watched(t *testing.T, c *Config) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan string, 16)
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, Watching{
			Check: func(c *Config) error {
				if c.Kube.ClientConnection.Kubeconfig != "" {
					return errors.New("no such kubeconfig")
				}
				return nil
			},
			Changed: func() { changes <- "" },
			Invalid: func(err error) {
				if err == nil {
					err = errors.New("usable")
				}
				changes <- err.Error()
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return changes
}

// waitText waits for the next change, which must contain the text.
func waitText(t *testing.T, changes <-chan string, want, what string) {
	t.Helper()
	select {
	case got := <-changes:
		if !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Fatalf("%s: reported %q, want %q", what, got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: nothing reported, want %q", what, want)
	}
}

func waitChange(t *testing.T, changes <-chan string, what string) {
	t.Helper()
	waitText(t, changes, "", what)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWatchBeforeTheCall(t *testing.T) {
	c, _ := mustComplete(t, header)
	write(t, c.ConfigFile, header+"clusterCIDR: 10.1.0.0/16\n")
	waitChange(t, watched(t, c), "change between Complete and Watch")
}

func TestWatchFile(t *testing.T) {
	c, _ := mustComplete(t, header)
	changes := watched(t, c)
	// Neither of these is a change: if Watch reported one, there would be more than one below. The first
	// write also happens to a Watch that has not started yet.
	write(t, c.ConfigFile, header+"# a comment, and a default\nmode: nftables\n")
	write(t, filepath.Join(filepath.Dir(c.ConfigFile), "other"), "x")

	replacement := c.ConfigFile + ".new"
	write(t, replacement, header+"clusterCIDR: 10.1.0.0/16\n")
	if err := os.Rename(replacement, c.ConfigFile); err != nil {
		t.Fatal(err)
	}
	waitChange(t, changes, "file replaced")

	if err := os.Remove(c.ConfigFile); err != nil {
		t.Fatal(err)
	}
	write(t, replacement, header+"clusterCIDR: 10.2.0.0/16\n")
	if err := os.Rename(replacement, c.ConfigFile); err != nil {
		t.Fatal(err)
	}
	waitChange(t, changes, "file removed and put back")
	if len(changes) != 0 {
		t.Errorf("got %d more changes, want none", len(changes))
	}

	write(t, c.ConfigFile, header+"clusterCIDR: 10.3.0.0/16\n")
	waitChange(t, changes, "file written in place")
}

// TestWatchInvalid makes the file unusable in several ways: that is no change of the configuration, and each
// reason is reported once. A file that is unusable for a moment is not reported. When the file is corrected
// it counts again, as the configuration before or as another one.
func TestWatchInvalid(t *testing.T) {
	c, _ := mustComplete(t, header)
	changes := watched(t, c)
	for bad, want := range map[string]string{
		header + "clusterCIDR: nonsense\n":                    "clusterCIDR",
		header + "logging: {format: xml}\n":                   "Unsupported log format",
		header + "clientConnection: {kubeconfig: /missing}\n": "no such kubeconfig",
		"": "kind is missing",
	} {
		write(t, c.ConfigFile, bad)
		waitText(t, changes, want, bad)
		write(t, c.ConfigFile, bad) // the same again
		write(t, c.ConfigFile, header+"# corrected\n")
		waitText(t, changes, "usable", bad)
	}
	if err := os.Remove(c.ConfigFile); err != nil {
		t.Fatal(err)
	}
	waitText(t, changes, "no such file", "file removed")
	write(t, c.ConfigFile, header)
	waitText(t, changes, "usable", "file put back")

	write(t, c.ConfigFile, header+"clusterC") // half written: for less than a second it is not reported
	write(t, c.ConfigFile, header+"clusterCIDR: 10.1.0.0/16\n")
	waitChange(t, changes, "another configuration")

	write(t, c.ConfigFile, header+"clusterCIDR: nonsense\n")
	waitText(t, changes, "clusterCIDR", "unusable again")
	write(t, c.ConfigFile, header+"clusterCIDR: 10.2.0.0/16\n")
	waitText(t, changes, "usable", "corrected to another configuration")
	waitChange(t, changes, "corrected to another configuration")
}

// configMap writes a version of a ConfigMap with one key to dir, as the kubelet does.
func configMap(t *testing.T, dir, version, content string) {
	t.Helper()
	data := filepath.Join(dir, "..data")
	previous, _ := os.Readlink(data)
	if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, version, "config.conf"), content)
	if err := os.Symlink(version, data+"_tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(data+"_tmp", data); err != nil {
		t.Fatal(err)
	}
	if previous != "" {
		if err := os.RemoveAll(filepath.Join(dir, previous)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	configMap(t, dir, "..1", header)
	file := filepath.Join(dir, "config.conf")
	if err := os.Symlink(filepath.Join("..data", "config.conf"), file); err != nil {
		t.Fatal(err)
	}
	c, _ := mustComplete(t, "", "--config", file)
	changes := watched(t, c)
	configMap(t, dir, "..2", header+"clusterCIDR: 10.1.0.0/16\n")
	waitChange(t, changes, "first update")
	configMap(t, dir, "..3", header+"clusterCIDR: 10.2.0.0/16\n")
	waitChange(t, changes, "second update")
}

func TestWatchLinkTarget(t *testing.T) {
	target := writeFile(t, header)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	c, _ := mustComplete(t, "", "--config", link)
	changes := watched(t, c)
	write(t, target, header+"clusterCIDR: 10.1.0.0/16\n")
	waitChange(t, changes, "target of a link written")
}

func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := new(Config).Watch(ctx, Watching{
		Changed: func() { t.Error("change without a file") }}); err != nil {
		t.Errorf("without a file: %v", err)
	}
	c := &Config{ConfigFile: "/does/not/exist/config"}
	if err := c.Watch(t.Context(), Watching{}); err == nil {
		t.Error("no error for a missing directory")
	}
}

package config

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// watched runs Watch until the end of the test, and returns a channel that gets a value for each change.
func watched(t *testing.T, c *Config) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan struct{}, 16)
	done := make(chan error, 1)
	go func() { done <- c.Watch(ctx, func() { changes <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return changes
}

func waitChange(t *testing.T, changes <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: no change reported", what)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWatchBeforeTheCall(t *testing.T) {
	c, _ := mustComplete(t, header)
	write(t, c.ConfigFile, header+"mode: nftables\n")
	waitChange(t, watched(t, c), "change between Complete and Watch")
}

func TestWatchFile(t *testing.T) {
	c, _ := mustComplete(t, header)
	changes := watched(t, c)
	// Neither of these is a change: if Watch reported one, there would be more than one below. The first
	// write also happens to a Watch that has not started yet.
	write(t, c.ConfigFile, header)
	write(t, filepath.Join(filepath.Dir(c.ConfigFile), "other"), "x")

	replacement := c.ConfigFile + ".new"
	write(t, replacement, header+"# replaced\n")
	if err := os.Rename(replacement, c.ConfigFile); err != nil {
		t.Fatal(err)
	}
	waitChange(t, changes, "file replaced")

	if err := os.Remove(c.ConfigFile); err != nil {
		t.Fatal(err)
	}
	write(t, replacement, header+"# put back\n")
	if err := os.Rename(replacement, c.ConfigFile); err != nil {
		t.Fatal(err)
	}
	waitChange(t, changes, "file removed and put back")
	if len(changes) != 0 {
		t.Errorf("got %d more changes, want none", len(changes))
	}

	write(t, c.ConfigFile, header+"# written in place\n")
	waitChange(t, changes, "file written in place")
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
	configMap(t, dir, "..2", header+"mode: nftables\n")
	waitChange(t, changes, "first update")
	configMap(t, dir, "..3", header+"mode: iptables\n")
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
	write(t, target, header+"mode: nftables\n")
	waitChange(t, changes, "target of a link written")
}

func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := new(Config).Watch(ctx, func() { t.Error("change without a file") }); err != nil {
		t.Errorf("without a file: %v", err)
	}
	c := &Config{ConfigFile: "/does/not/exist/config"}
	if err := c.Watch(t.Context(), func() {}); err == nil {
		t.Error("no error for a missing directory")
	}
}

package config

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Watch calls onChange whenever the content of the configuration file changes. The first content to compare
// with is the one that Complete read, so that Watch also notices a change before the call. It follows a file
// that is written in place or replaced, and a symbolic link that changes its target, as in a mounted
// ConfigMap. It returns nil when ctx is done; without a configuration file it only waits for that.
func (c *Config) Watch(ctx context.Context, onChange func()) error {
	if c.ConfigFile == "" {
		<-ctx.Done()
		return nil
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch configuration %s: %w", c.ConfigFile, err)
	}
	defer watcher.Close()
	// Watch directories and not the file, which may be replaced. The file of a ConfigMap is a link to
	// ..data/file in the same directory, where ..data is the link that changes. Any other link is resolved
	// once, at the start.
	dirs := []string{filepath.Dir(c.ConfigFile)}
	if target, err := filepath.EvalSymlinks(c.ConfigFile); err == nil {
		dirs = append(dirs, filepath.Dir(target))
	}
	for _, dir := range dirs {
		if err := watcher.Add(dir); err != nil {
			return fmt.Errorf("watch configuration %s: %w", c.ConfigFile, err)
		}
	}
	last := c.loaded
	for {
		// A missing or empty file is about to be written.
		if data, err := os.ReadFile(c.ConfigFile); err == nil && len(data) > 0 && !bytes.Equal(data, last) {
			last = data
			onChange()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
		case <-watcher.Errors: // events were lost: read the file again
		}
	}
}

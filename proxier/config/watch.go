package config

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Watch calls onChange each time the content of the configuration file differs from
// what it was, beginning with what Complete read; so a change before the call is not
// missed. It follows a file that is written in place, replaced, or a link that is
// pointed elsewhere, as a mounted ConfigMap is. It returns nil when ctx is done, which
// is all it waits for if there is no configuration file.
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
	// Directories, not the file: it may be replaced. A ConfigMap's file is a link
	// to ..data/file beside it, and ..data the link that moves; any other link is
	// followed to the directory it points to at the start.
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
		// A file that is missing or empty is about to be written.
		if data, err := os.ReadFile(c.ConfigFile); err == nil && len(data) > 0 && !bytes.Equal(data, last) {
			last = data
			onChange()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
		case <-watcher.Errors: // events were lost: look again
		}
	}
}

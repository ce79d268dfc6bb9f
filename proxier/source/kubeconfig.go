package source

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"
)

// kubeconfigPeriod is how often the kubeconfig is read. It changes rarely: reading it now and then costs next
// to nothing, needs no inotify watch, of which a node may have none left, and sees every way to replace a
// file.
const kubeconfigPeriod = 5 * time.Second

// kubeconfig is the file that a Client was made from.
type kubeconfig struct {
	ClientConfig
	seen []byte // the content that was last judged
}

// readKubeconfig reads the file; without one it returns nil. A file that cannot be read makes no Client.
func readKubeconfig(cfg ClientConfig) *kubeconfig {
	if cfg.Kubeconfig == "" {
		return nil
	}
	seen, _ := os.ReadFile(cfg.Kubeconfig)
	return &kubeconfig{cfg, seen}
}

// WatchKubeconfig calls changed when the kubeconfig has got another content that makes a Client, and report,
// once for each content, when it has got one that makes none. It returns when ctx is done.
//
// A new kubeconfig needs a new Client. The files that a kubeconfig names do not: client-go reads the files of
// a token, of a client certificate and of a certificate authority anew by itself.
func (c *Client) WatchKubeconfig(ctx context.Context, changed func(), report func(error)) {
	ticker := time.NewTicker(kubeconfigPeriod)
	defer ticker.Stop()
	for k := c.kubeconfig; k != nil; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// A missing or empty file is about to be written.
		data, err := os.ReadFile(k.Kubeconfig)
		if err != nil || len(data) == 0 || bytes.Equal(data, k.seen) {
			continue
		}
		k.seen = data
		if _, err := k.connection(); err != nil {
			report(fmt.Errorf("changed kubeconfig %s: %w", k.Kubeconfig, err))
			continue
		}
		changed()
	}
}

package proxier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/filewatch"
)

// reasonConfigInvalid is the reason of an Event about the Node.
const reasonConfigInvalid = "ConfigInvalid"

// errConfigChanged ends a Run whose configuration file has changed.
var errConfigChanged = errors.New("the configuration file changed")

// watchConfig follows the configuration file. It calls changed when a new process would run with another
// configuration. All nodes get the same file: with one that a new process would refuse, the proxy keeps
// running on all of them as it was configured before, until the file is corrected.
func (p *Proxier) watchConfig(ctx context.Context, changed func()) error {
	return p.config.Watch(ctx, config.Watching{
		Check:   p.canRun,
		Changed: changed,
		Invalid: p.reportConfig,
		Polling: func(f filewatch.Polling) { desired.LogProblem(f) },
	})
}

// canRun returns why a new process would end with a configuration that is valid.
func (p *Proxier) canRun(c *config.Config) error {
	if p.check != nil {
		if err := p.check(c); err != nil {
			return err
		}
	}
	for _, addr := range []string{c.Kube.HealthzBindAddress, c.Kube.MetricsBindAddress} {
		if !c.Kube.BindAddressHardFail || addr == "" {
			continue
		}
		l, err := net.Listen("tcp", addr)
		switch {
		case err == nil:
			_ = l.Close()
		case !errors.Is(err, syscall.EADDRINUSE): // otherwise this process may have it
			return fmt.Errorf("bindAddressHardFail is set: %w", err)
		}
	}
	return nil
}

// reportConfig reports that the configuration file cannot be used; nil: that it is as before.
func (p *Proxier) reportConfig(err error) {
	if err == nil {
		p.metrics.ConfigInvalid.Set(0)
		p.notes.clear(aboutConfig)
		klog.InfoS("Configuration file is usable again", "file", p.config.ConfigFile)
		return
	}
	p.metrics.ConfigInvalid.Set(1)
	what := fmt.Sprintf("the configuration file changed and cannot be used; nftproxy keeps running with the "+
		"configuration before: %s", strings.Join(strings.Fields(err.Error()), " "))
	p.notes.set(aboutConfig, what, "Correct the file: a new nftproxy process would not start with it.")
	p.events.reportNode(corev1.EventTypeWarning, reasonConfigInvalid, what)
}

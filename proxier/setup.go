package proxier

import (
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/host"
)

// Init does what the daemon may lack the privileges for: it sets the configured sysctls of connection
// tracking. Unlike the daemon it fails if it cannot set one, so that an init container is tried again.
func Init(c *config.Config) error {
	// The sysctls exist only once the kernel has loaded connection tracking, which after a boot nothing else
	// may have caused. To check the rules makes it load.
	if _, err := probeKernel(); err != nil {
		return err
	}
	if err := errors.Join(sysctls(c).Set(c.SysctlDir)...); err != nil {
		return fmt.Errorf("set up connection tracking: %w", err)
	}
	klog.InfoS("Conntrack sysctls are as configured", "dir", c.SysctlDir)
	return nil
}

// setUp applies the configured settings of the host: connection tracking and this process's OOM score. It
// logs those that cannot be set; the proxy works without them.
func (p *Proxier) setUp() {
	for _, err := range sysctls(p.config).Set(p.config.SysctlDir) {
		klog.InfoS("Failed to set conntrack sysctl", "err", err)
	}
	if adj := p.config.Kube.OOMScoreAdj; adj != nil {
		if err := host.SetOOMScoreAdj(int(*adj)); err != nil {
			klog.InfoS("Failed to set oomScoreAdj", "err", err)
		}
	}
}

// sysctls returns the configured settings of connection tracking.
func sysctls(config *config.Config) conntrack.Sysctls {
	c := &config.Kube.Conntrack
	s := conntrack.Sysctls{TCPBeLiberal: c.TCPBeLiberal,
		UDPTimeout: c.UDPTimeout.Duration, UDPStreamTimeout: c.UDPStreamTimeout.Duration}
	if c.MaxPerCore != nil {
		s.MaxPerCore = int(*c.MaxPerCore)
	}
	if c.Min != nil {
		s.Min = int(*c.Min)
	}
	if c.TCPEstablishedTimeout != nil {
		s.TCPEstablishedTimeout = c.TCPEstablishedTimeout.Duration
	}
	if c.TCPCloseWaitTimeout != nil {
		s.TCPCloseWaitTimeout = c.TCPCloseWaitTimeout.Duration
	}
	return s
}

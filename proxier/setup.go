package proxier

import (
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/host"
)

// SetUp applies the configured settings of the host: connection tracking and this process's OOM score. It logs those
// that cannot be set; the proxy works without them.
func (p *Proxier) SetUp() {
	for _, err := range p.sysctls().Set() {
		klog.InfoS("Failed to set conntrack sysctl", "err", err)
	}
	if adj := p.config.Kube.OOMScoreAdj; adj != nil {
		if err := host.SetOOMScoreAdj(int(*adj)); err != nil {
			klog.InfoS("Failed to set oomScoreAdj", "err", err)
		}
	}
}

// sysctls returns the configured settings of connection tracking.
func (p *Proxier) sysctls() conntrack.Sysctls {
	c := &p.config.Kube.Conntrack
	s := conntrack.Sysctls{TCPBeLiberal: c.TCPBeLiberal, UDPTimeout: c.UDPTimeout.Duration, UDPStreamTimeout: c.UDPStreamTimeout.Duration}
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

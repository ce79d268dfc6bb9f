package proxier

import (
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/host"
)

// SetUp makes the settings of the host that are configured: connection tracking and
// how willing the kernel is to kill this process. What cannot be set is logged; the
// proxy works without.
func (p *Proxier) SetUp() {
	if p.netns != 0 {
		return // the settings are the process's own namespace's
	}
	for _, err := range p.sysctls().Set() {
		klog.InfoS("A setting of connection tracking is left as it is", "reason", err)
	}
	if adj := p.config.Kube.OOMScoreAdj; adj != nil {
		if err := host.SetOOMScoreAdj(int(*adj)); err != nil {
			klog.InfoS("oomScoreAdj is left as it is", "reason", err)
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

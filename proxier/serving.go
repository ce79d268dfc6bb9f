package proxier

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/health"
)

// servers returns the HTTP servers that are configured: for health and for metrics.
func (p *Proxier) servers() []*health.Server {
	kube := &p.config.Kube
	var servers []*health.Server
	if kube.HealthzBindAddress != "" {
		servers = append(servers,
			&health.Server{Name: "healthz", Addr: kube.HealthzBindAddress, Handler: p.health.Handler()})
	}
	if kube.MetricsBindAddress != "" {
		servers = append(servers, &health.Server{Name: "metrics", Addr: kube.MetricsBindAddress,
			Handler: health.MetricsHandler(p.metricsOptions())})
	}
	for _, s := range servers {
		s.HardFail = kube.BindAddressHardFail
		s.Failed = func(err error) { klog.ErrorS(err, "Failed to listen, retrying", "server", s.Name) }
	}
	return servers
}

// metricsOptions returns the contents of the metrics address. A feature gate turns off /flagz, and another
// one /statusz.
func (p *Proxier) metricsOptions() health.MetricsOptions {
	config := p.config.Kube
	config.Kind, config.APIVersion = "KubeProxyConfiguration", "kubeproxy.config.k8s.io/v1alpha1"
	options := health.MetricsOptions{
		Metrics: p.metrics.Handler(), Config: config, Profiling: config.EnableProfiling}
	if p.config.ServeFlagz() {
		options.Flags = p.flags
	}
	if p.config.ServeStatusz() {
		options.Version = p.version
	}
	return options
}

// serve runs the servers until ctx ends.
func (p *Proxier) serve(ctx context.Context, run func(func() error)) {
	for _, s := range p.servers() {
		run(func() error { return s.Run(ctx) })
	}
}

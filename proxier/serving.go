package proxier

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/health"
)

// servers returns the HTTP servers that are configured: for health and for metrics.
func (p *Proxier) servers() []*health.Server {
	kube := &p.config.Kube
	config := *kube
	config.Kind, config.APIVersion = "KubeProxyConfiguration", "kubeproxy.config.k8s.io/v1alpha1"
	var servers []*health.Server
	if kube.HealthzBindAddress != "" {
		servers = append(servers, &health.Server{Name: "healthz", Addr: kube.HealthzBindAddress, Handler: p.health.Handler()})
	}
	if kube.MetricsBindAddress != "" {
		servers = append(servers, &health.Server{Name: "metrics", Addr: kube.MetricsBindAddress, Handler: health.MetricsHandler(
			health.MetricsOptions{Metrics: p.metrics.Handler(), Config: config, Profiling: kube.EnableProfiling})})
	}
	for _, s := range servers {
		s.HardFail = kube.BindAddressHardFail
		s.Failed = func(err error) { klog.ErrorS(err, "Failed to listen, retrying", "server", s.Name) }
	}
	return servers
}

// serve runs the servers until ctx ends.
func (p *Proxier) serve(ctx context.Context, run func(func() error)) {
	for _, s := range p.servers() {
		run(func() error { return s.Run(ctx) })
	}
}

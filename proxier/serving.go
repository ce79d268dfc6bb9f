package proxier

import (
	"context"
	"errors"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/proxier/takeover"
)

// servers returns the HTTP servers that are configured: for health and for metrics.
func (p *Proxier) servers(ctx context.Context) []*health.Server {
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
		s.Failed = p.listenFailed(ctx, s.Name)
	}
	return servers
}

// metricsOptions returns the contents of the metrics address. A feature gate turns off /flagz, and another
// one /statusz.
func (p *Proxier) metricsOptions() health.MetricsOptions {
	config := p.config.Kube
	config.Kind, config.APIVersion = "KubeProxyConfiguration", "kubeproxy.config.k8s.io/v1alpha1"
	options := health.MetricsOptions{
		Metrics: p.metrics.Handler(), Config: config, Profiling: config.EnableProfiling,
		Status: status.NewPages(p.status, p.explainText)}
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
	for _, s := range p.servers(ctx) {
		run(func() error { return s.Run(ctx) })
	}
}

// listenFailed returns a function that logs why a server does not listen, once while the reason stays. During
// a migration kube-proxy has the address until it stops, which is not an error.
func (p *Proxier) listenFailed(ctx context.Context, server string) func(error) {
	var reported string
	return func(err error) {
		var mode string // of the kube-proxy that has the address
		if errors.Is(err, syscall.EADDRINUSE) {
			// Another program may have the address, and not answer.
			mode, _ = takeover.Running(ctx, takeover.MetricsAddr(p.config.Kube.MetricsBindAddress))
		}
		reason := mode + " " + err.Error()
		if reason == reported {
			return
		}
		reported = reason
		if mode != "" {
			klog.InfoS("kube-proxy runs on this node and has the address, will listen when it has stopped",
				"server", server, "err", err)
			return
		}
		klog.ErrorS(err, "Failed to listen, retrying", "server", server)
	}
}

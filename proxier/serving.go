package proxier

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/rules"
)

// servers returns what is served over HTTP: the health address and the metrics
// address, as far as they are configured.
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
		s.Failed = func(err error) { klog.ErrorS(err, "An address is not served, and tried again", "server", s.Name) }
	}
	return servers
}

// serve serves until ctx ends.
func (p *Proxier) serve(ctx context.Context, run func(func() error)) {
	for _, s := range p.servers() {
		run(func() error { return s.Run(ctx) })
	}
}

// checkPorts brings the healthCheckNodePort servers in line with the ruleset.
func (s *syncer) checkPorts() {
	checks := map[rules.ServiceName]health.Service{}
	for name, c := range s.ruleset.HealthChecks() {
		checks[name] = health.Service{Port: c.Port, LocalEndpoints: c.LocalReady}
	}
	s.tellClosed(s.checks.Sync(checks, s.ground.node.NodePortAddrs))
}

// tellClosed tells of ports that could not be opened; they are tried again.
func (s *syncer) tellClosed(errs []*health.ListenError) {
	s.closed = len(errs) > 0
	for _, err := range errs {
		s.events.service(err.Service, "FailedToStartServiceHealthcheck", err.Error())
	}
}

// measure brings the gauges in line with the ruleset.
func (s *syncer) measure() {
	s.metrics.Services.Set(float64(s.ruleset.Services()))
	s.metrics.FrontendConflicts.Set(float64(s.ruleset.Conflicts()))
	for _, f := range s.ground.config.Families {
		s.metrics.SetFrontends(f, s.ruleset.Frontends(f))
		n := s.ruleset.NoLocal(f)
		s.metrics.NoLocalEndpoints(f, n.Internal, n.External)
	}
}

package state

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/proxier/address"
	"github.com/nftproxy/nftproxy/rules/service"
)

// labelServiceProxyName marks a Service that another proxy implements (KEP-2447).
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// service contains the fields of a Service that the rules depend on.
type serviceState struct {
	rules    service.Service // without endpoints
	broken   bool            // no part of it can be programmed
	problems []string
	// annotated are the annotations of nftproxy as they are, and weights what one of them says; nil without.
	annotated map[string]string
	weights   *weights
}

func serviceName(svc *corev1.Service) service.Name {
	return service.Name{Namespace: svc.Namespace, Name: svc.Name}
}

// foreign returns why we do not program a Service, and "" if we do.
func foreign(svc *corev1.Service) string {
	_, otherProxy := svc.Labels[labelServiceProxyName]
	switch ip := clusterIP(svc); {
	case otherProxy:
		return "another proxy implements it: it has the label " + labelServiceProxyName
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return "it is of type ExternalName: DNS answers with another name, and no proxy is involved"
	case ip == corev1.ClusterIPNone:
		return "it is headless: DNS answers with the addresses of its pods, and no proxy is involved"
	case ip == "":
		return "it has no ClusterIP"
	}
	return ""
}

func clusterIP(svc *corev1.Service) string {
	if svc.Spec.ClusterIP == "" && len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs[0]
	}
	return svc.Spec.ClusterIP
}

// newService returns nil for a Service that we do not program, see foreign. A field that is not set has the
// default of the API, because the API server sets no defaults in a manifest.
func newService(svc *corev1.Service) *serviceState {
	if foreign(svc) != "" {
		return nil
	}
	s := &serviceState{}
	s.rules.Name = serviceName(svc)
	s.rules.Created = svc.CreationTimestamp.Time
	if len(validation.IsDNS1123Label(svc.Namespace))+len(validation.IsDNS1123Label(svc.Name)) > 0 {
		s.broken = true
		s.problem("metadata: %q is not a valid namespace and name of a Service", s.rules.Name)
		return s
	}
	s.addresses(svc)
	s.policies(svc)
	s.annotations(svc)
	for i := range svc.Spec.Ports {
		s.port(svc, i)
	}
	return s
}

func (s *serviceState) problem(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

func (s *serviceState) addresses(svc *corev1.Service) {
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{svc.Spec.ClusterIP}
	}
	s.rules.ClusterIPs = s.parseAddrs("spec.clusterIPs", ips, parseAddr)
	s.rules.ExternalIPs = s.parseAddrs("spec.externalIPs", svc.Spec.ExternalIPs, parseDestination)
	ingress := make([]string, len(svc.Status.LoadBalancer.Ingress))
	for i, in := range svc.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			ingress[i] = in.IP // "" for a host name
		}
	}
	s.rules.LoadBalancerIPs = s.parseAddrs("status.loadBalancer.ingress", ingress, parseIngress)
	for i, text := range svc.Spec.LoadBalancerSourceRanges {
		if p, err := address.ParsePrefix(strings.TrimSpace(text)); err != nil {
			s.rules.Restricted = true
			s.problem("spec.loadBalancerSourceRanges[%d]: %v", i, err)
		} else {
			s.rules.SourceRanges = append(s.rules.SourceRanges, p)
		}
	}
}

// parseIngress parses the IP of a load balancer, which is empty if the load balancer has a host name.
func parseIngress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return parseDestination(text)
}

// parseAddrs parses the addresses of a field. It leaves out those that parse returns as the zero Addr.
func (s *serviceState) parseAddrs(
	field string, texts []string, parse func(string) (netip.Addr, error),
) []netip.Addr {
	var out []netip.Addr
	for i, text := range texts {
		a, err := parse(text)
		if err != nil {
			s.problem("%s[%d]: %v", field, i, err)
		} else if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

func (s *serviceState) policies(svc *corev1.Service) {
	spec := &svc.Spec
	internal := ptr.Deref(spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	s.rules.InternalLocal = internal == corev1.ServiceInternalTrafficPolicyLocal
	s.rules.ExternalLocal = spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	if spec.HealthCheckNodePort != 0 && s.rules.ExternalLocal {
		if validPort(spec.HealthCheckNodePort) {
			s.rules.HealthCheckPort = uint16(spec.HealthCheckNodePort)
		} else {
			s.problem("spec.healthCheckNodePort: %d is not within 1 to 65535", spec.HealthCheckNodePort)
		}
	}
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return
	}
	seconds := int32(corev1.DefaultClientIPServiceAffinitySeconds)
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if t := *c.ClientIP.TimeoutSeconds; t > 0 && t <= 86400 {
			seconds = t
		} else {
			const field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
			s.problem("%s: %d is not within 1 to 86400, %d is used", field, t, seconds)
		}
	}
	s.rules.AffinityTimeout = time.Duration(seconds) * time.Second
}

// port adds a port, unless it is invalid.
func (s *serviceState) port(svc *corev1.Service, i int) {
	p := &svc.Spec.Ports[i]
	field := fmt.Sprintf("spec.ports[%d]", i)
	protocol, err := parseProtocol(p.Protocol)
	switch {
	case err != nil:
		s.problem("%s.protocol: %v", field, err)
		return
	case !validPort(p.Port):
		s.problem("%s.port: %d is not within 1 to 65535", field, p.Port)
		return
	case p.Name != "" && len(validation.IsDNS1123Label(p.Name)) > 0:
		s.problem("%s.name: %q is not a valid port name", field, p.Name)
		return
	}
	for _, q := range s.rules.Ports {
		if q.Name == p.Name {
			s.problem("%s.name: %q is the name of two ports, the first one is used", field, p.Name)
			return
		}
	}
	port := service.Port{Name: p.Name, Protocol: protocol, Port: uint16(p.Port)}
	if p.NodePort != 0 && !validPort(p.NodePort) {
		s.problem("%s.nodePort: %d is not within 1 to 65535", field, p.NodePort)
	} else {
		port.NodePort = uint16(p.NodePort)
	}
	s.rules.Ports = append(s.rules.Ports, port)
}

package source

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// setDefaults fills in what the API server fills in, as far as the proxy looks at it. Manifests that kubectl printed
// have it already, manifests written by hand do not.
func setDefaults(obj object) {
	switch obj := obj.(type) {
	case *corev1.Service:
		setServiceDefaults(&obj.Spec)
	case *discoveryv1.EndpointSlice:
		setEndpointPortDefaults(obj.Ports)
	}
}

// setServiceDefaults follows pkg/apis/core/v1/defaults.go and the allocation of cluster IPs in Kubernetes.
func setServiceDefaults(spec *corev1.ServiceSpec) {
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		if spec.Ports[i].Protocol == "" {
			spec.Ports[i].Protocol = corev1.ProtocolTCP
		}
	}
	if spec.ClusterIP == "" && len(spec.ClusterIPs) > 0 {
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	setAffinityDefaults(spec)
	setTrafficPolicyDefaults(spec)
}

func setAffinityDefaults(spec *corev1.ServiceSpec) {
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return
	}
	config := spec.SessionAffinityConfig
	if config == nil || config.ClientIP == nil || config.ClientIP.TimeoutSeconds == nil {
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
			ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(corev1.DefaultClientIPServiceAffinitySeconds)},
		}
	}
}

func setTrafficPolicyDefaults(spec *corev1.ServiceSpec) {
	var internal, external bool
	switch spec.Type {
	case corev1.ServiceTypeClusterIP:
		internal, external = true, len(spec.ExternalIPs) > 0
	case corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		internal, external = true, true
	}
	if internal && spec.InternalTrafficPolicy == nil {
		spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if external && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
}

// setEndpointPortDefaults follows pkg/apis/discovery/v1/defaults.go in Kubernetes.
func setEndpointPortDefaults(ports []discoveryv1.EndpointPort) {
	for i := range ports {
		if ports[i].Name == nil {
			ports[i].Name = ptr.To("")
		}
		if ports[i].Protocol == nil {
			ports[i].Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/nftproxy/nftproxy/rules/service"
)

// ourNode is the name of the node of all cases.
const ourNode = "node-a"

// anonymiser copies what the rules depend on, with other names and addresses. It copies field by field, so
// that nothing comes along that is not named here.
type anonymiser struct {
	in        *input
	addresses addresses
	// names have the values of each kind that occur, with their place in the order: the order of names can
	// decide, so the numbers that replace them have the same.
	names map[kind]map[string]int
	// times are when Services were created: the older one keeps an address that two claim.
	times []time.Time
}

// kind is a kind of names, and what the new ones begin with.
type kind string

const (
	namespaces kind = "namespace"
	services   kind = "service"
	endpoints  kind = "slice"
	ports      kind = "port"
	nodes      kind = "node"
	zones      kind = "zone"
	cidrs      kind = "cidr"
)

func newAnonymiser(key [32]byte, in *input) *anonymiser {
	a := &anonymiser{in: in, addresses: addresses{key}, names: map[kind]map[string]int{}}
	for _, obj := range in.objects {
		a.object(obj) // its names are noted
		if svc, ok := obj.(*corev1.Service); ok {
			a.times = append(a.times, svc.CreationTimestamp.Time)
		}
	}
	for _, known := range a.names {
		for i, name := range slices.Sorted(maps.Keys(known)) {
			known[name] = i + 1
		}
	}
	slices.SortFunc(a.times, time.Time.Compare)
	a.times = slices.CompactFunc(a.times, time.Time.Equal)
	return a
}

// name returns the new name for one of a kind: web becomes service-007. A name that is not valid gets one
// that is not valid. It notes names that are new.
func (a *anonymiser) name(k kind, old string) string {
	switch {
	case old == "":
		return ""
	case k == nodes && old == a.in.node:
		return ourNode
	}
	known := a.names[k]
	if known == nil {
		known = map[string]int{}
		a.names[k] = known
	}
	if _, noted := known[old]; !noted {
		known[old] = 0
	}
	separator := "-"
	checked := k == namespaces || k == services || k == ports
	if checked && len(validation.IsDNS1123Label(old)) > 0 {
		separator = "_"
	}
	return fmt.Sprintf("%s%s%0*d", k, separator, len(fmt.Sprint(len(known))), known[old])
}

func (a *anonymiser) namePtr(k kind, old *string) *string {
	if old == nil {
		return nil
	}
	name := a.name(k, *old)
	return &name
}

// created returns a time that is in the same order with the others.
func (a *anonymiser) created(t metav1.Time) metav1.Time {
	if t.IsZero() {
		return t
	}
	i, _ := slices.BinarySearchFunc(a.times, t.Time, time.Time.Compare)
	return metav1.NewTime(time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC))
}

// object returns the copy of an object, and nil for one that the rules do not depend on.
func (a *anonymiser) object(obj runtime.Object) runtime.Object {
	switch obj := obj.(type) {
	case *corev1.Service:
		return a.service(obj)
	case *discoveryv1.EndpointSlice:
		return a.slice(obj)
	case *corev1.Node:
		if obj.Name == a.in.node {
			return a.node(obj)
		}
	case *networkingv1.ServiceCIDR:
		return &networkingv1.ServiceCIDR{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1",
			Kind: "ServiceCIDR"}, ObjectMeta: metav1.ObjectMeta{Name: a.name(cidrs, obj.Name)},
			Spec: networkingv1.ServiceCIDRSpec{CIDRs: a.addresses.texts(obj.Spec.CIDRs)}}
	}
	return nil
}

// kept returns the labels of these keys, whose values are names of a kind or, with the kind "", kept as well.
func (a *anonymiser) kept(labels map[string]string, keys map[string]kind) map[string]string {
	var out map[string]string
	for key, k := range keys {
		value, ok := labels[key]
		if !ok {
			continue
		}
		if k != "" {
			value = a.name(k, value)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = value
	}
	return out
}

// annotations returns those of nftproxy. Weights name addresses and zones. A value that is not valid becomes
// another one that is not.
func (a *anonymiser) annotations(all map[string]string) map[string]string {
	out := map[string]string{}
	if scheduler, ok := all["nftproxy.io/scheduler"]; ok {
		if _, err := service.ParseScheduler(scheduler); err != nil {
			scheduler = "invalid"
		}
		out["nftproxy.io/scheduler"] = scheduler
	}
	if text, ok := all["nftproxy.io/weights"]; ok {
		var items []string
		for item := range strings.SplitSeq(text, ",") {
			whose, weight, _ := strings.Cut(item, "=")
			if zone, ok := strings.CutPrefix(whose, "zone:"); ok {
				whose = "zone:" + a.name(zones, zone)
			} else {
				whose = a.addresses.text(whose)
			}
			if _, err := strconv.Atoi(weight); err != nil {
				weight = "invalid"
			}
			items = append(items, whose+"="+weight)
		}
		out["nftproxy.io/weights"] = strings.Join(items, ",")
	}
	return out
}

func (a *anonymiser) service(svc *corev1.Service) *corev1.Service {
	spec := &svc.Spec
	out := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: a.name(namespaces, svc.Namespace),
			Name: a.name(services, svc.Name), CreationTimestamp: a.created(svc.CreationTimestamp),
			Labels:      a.kept(svc.Labels, map[string]kind{"service.kubernetes.io/service-proxy-name": ""}),
			Annotations: a.annotations(svc.Annotations)},
		Spec: corev1.ServiceSpec{
			Type: spec.Type, ClusterIP: a.addresses.text(spec.ClusterIP),
			ClusterIPs:               a.addresses.texts(spec.ClusterIPs),
			ExternalIPs:              a.addresses.texts(spec.ExternalIPs),
			LoadBalancerSourceRanges: a.addresses.texts(spec.LoadBalancerSourceRanges),
			IPFamilies:               spec.IPFamilies, IPFamilyPolicy: spec.IPFamilyPolicy,
			SessionAffinity: spec.SessionAffinity, SessionAffinityConfig: spec.SessionAffinityConfig,
			InternalTrafficPolicy: spec.InternalTrafficPolicy, ExternalTrafficPolicy: spec.ExternalTrafficPolicy,
			HealthCheckNodePort:           spec.HealthCheckNodePort,
			AllocateLoadBalancerNodePorts: spec.AllocateLoadBalancerNodePorts,
			TrafficDistribution:           spec.TrafficDistribution,
			PublishNotReadyAddresses:      spec.PublishNotReadyAddresses,
		},
	}
	for _, p := range spec.Ports {
		out.Spec.Ports = append(out.Spec.Ports, corev1.ServicePort{Name: a.name(ports, p.Name),
			Protocol: p.Protocol, Port: p.Port, NodePort: p.NodePort})
	}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		out.Status.LoadBalancer.Ingress = append(out.Status.LoadBalancer.Ingress,
			corev1.LoadBalancerIngress{IP: a.addresses.text(in.IP), IPMode: in.IPMode})
	}
	return out
}

func (a *anonymiser) slice(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: a.name(namespaces, s.Namespace),
			Name: a.name(endpoints, s.Name), Labels: a.kept(s.Labels, map[string]kind{
				discoveryv1.LabelServiceName: services, corev1.IsHeadlessService: ""})},
		AddressType: s.AddressType,
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports,
			discoveryv1.EndpointPort{Name: a.namePtr(ports, p.Name), Protocol: p.Protocol, Port: p.Port})
	}
	for _, e := range s.Endpoints {
		copied := discoveryv1.Endpoint{Addresses: a.addresses.texts(e.Addresses), Conditions: e.Conditions,
			NodeName: a.namePtr(nodes, e.NodeName), Zone: a.namePtr(zones, e.Zone)}
		if e.Hints != nil {
			copied.Hints = &discoveryv1.EndpointHints{}
			for _, z := range e.Hints.ForZones {
				copied.Hints.ForZones = append(copied.Hints.ForZones,
					discoveryv1.ForZone{Name: a.name(zones, z.Name)})
			}
			for _, n := range e.Hints.ForNodes {
				copied.Hints.ForNodes = append(copied.Hints.ForNodes,
					discoveryv1.ForNode{Name: a.name(nodes, n.Name)})
			}
		}
		out.Endpoints = append(out.Endpoints, copied)
	}
	return out
}

func (a *anonymiser) node(n *corev1.Node) *corev1.Node {
	out := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: ourNode,
			Labels: a.kept(n.Labels, map[string]kind{corev1.LabelTopologyZone: zones})},
		Spec: corev1.NodeSpec{PodCIDR: a.addresses.text(n.Spec.PodCIDR),
			PodCIDRs: a.addresses.texts(n.Spec.PodCIDRs)},
	}
	for _, addr := range n.Status.Addresses {
		if addr.Type == corev1.NodeInternalIP || addr.Type == corev1.NodeExternalIP {
			out.Status.Addresses = append(out.Status.Addresses,
				corev1.NodeAddress{Type: addr.Type, Address: a.addresses.text(addr.Address)})
		}
	}
	return out
}

// config returns the settings that the rules depend on, as fields of a configuration file.
func (a *anonymiser) config() map[string]any {
	c := &a.in.config
	return map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": c.Mode, "ipvs": map[string]string{"scheduler": c.IPVS.Scheduler},
		"iptables": c.IPTables, "nftables": c.NFTables, "featureGates": c.FeatureGates,
		"detectLocalMode": c.DetectLocalMode, "detectLocal": c.DetectLocal,
		"clusterCIDR":       a.addresses.list(c.ClusterCIDR),
		"nodePortAddresses": a.addresses.texts(c.NodePortAddresses),
	}
}

// flags returns the flags that the configuration file lacks.
func (a *anonymiser) flags() string {
	if len(a.in.external) == 0 {
		return ""
	}
	return "--allowed-external-cidrs=" + strings.Join(a.addresses.texts(a.in.external), ",")
}

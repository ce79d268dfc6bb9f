package proxier

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/rules/service"
)

// flowService returns the Service of the tests of flows, with one port each of UDP and SCTP.
func flowService(change func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{}
	svc.Namespace, svc.Name = "default", "voice"
	svc.Spec.ClusterIPs = []string{"10.96.0.10", "fd00:10:96::a"}
	svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	svc.Spec.ExternalIPs = []string{"203.0.113.10", "2001:db8:1::10"}
	for _, p := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		svc.Spec.Ports = append(svc.Spec.Ports,
			corev1.ServicePort{Name: strings.ToLower(string(p)), Protocol: p, Port: 5060})
	}
	if change != nil {
		change(svc)
	}
	return svc
}

// flowSlice returns a slice of the Service. Each endpoint is a pod and its conditions: R ready, S serving, T
// terminating.
func flowSlice(family service.Family, name string, port int32, endpoints ...string,
) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	s.Namespace, s.Name = "default", fmt.Sprintf("voice-%s-%s", name, family)
	s.Labels = map[string]string{discoveryv1.LabelServiceName: "voice"}
	addrs := map[string]string{"pod-a": podA, "pod-b": podB, "pod-c": podC, "pod-d": podD}
	if family == service.IPv6 {
		s.AddressType = discoveryv1.AddressTypeIPv6
		addrs = map[string]string{"pod-a": "fd00:10:244:1::11", "pod-b": "fd00:10:244:1::12",
			"pod-c": "fd00:10:244:2::11", "pod-d": "fd00:10:244:2::12"}
	}
	for _, p := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{
			Name: new(strings.ToLower(string(p))), Protocol: new(p), Port: new(port)})
	}
	for _, text := range endpoints {
		pod, conditions, _ := strings.Cut(text, " ")
		has := func(c string) *bool { return new(strings.Contains(conditions, c)) }
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{addrs[pod]}, NodeName: new("node-a"),
			Conditions: discoveryv1.EndpointConditions{
				Ready: has("R"), Serving: has("S"), Terminating: has("T")},
		})
	}
	return s
}

// flowStep changes an object, and says who answers the flows then.
type flowStep struct {
	name      string
	apply     []runtime.Object
	remove    []runtime.Object
	restart   bool // the daemon starts after the change
	udp, sctp string
}

// checkFlowSteps opens a UDP flow and an SCTP association of pod-b through the ClusterIP, and of the client
// through the external IP, and follows them through the steps. pod-a and pod-c serve at the ports 8080 and
// 8081. A step without an answer ends the flow.
func checkFlowSteps(t *testing.T, family service.Family, steps []flowStep) {
	t.Helper()
	l := newLab(t, lab.Options{})
	for _, port := range []int32{8080, 8081} {
		slice := flowSlice(family, "all", port, "pod-a RS", "pod-c RS")
		if err := l.ServeEndpoints([]*discoveryv1.EndpointSlice{slice}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	(&daemon{dir: dir}).write(t, "node.yaml", nodeManifest)
	restart := func(objects map[string]runtime.Object) *node {
		n := newNode(t, "", dir, l.Node())
		n.load(t, dir)
		for _, obj := range objects {
			n.Apply(obj)
		}
		return n
	}
	objects := map[string]runtime.Object{}
	n := restart(objects)
	var flows map[string]*lab.Flow
	for _, step := range steps {
		for _, obj := range step.apply {
			n.Apply(obj)
			objects[identity(obj)] = obj
		}
		for _, obj := range step.remove {
			n.Delete(obj)
			delete(objects, identity(obj))
		}
		if step.restart {
			n = restart(objects)
		}
		n.sync(t)
		if flows == nil {
			flows = openFlows(t, l, family)
		}
		for key, f := range flows {
			want := step.udp
			if strings.HasPrefix(key, "sctp") {
				want = step.sctp
			}
			if r := f.Ask(); r.By != want {
				t.Errorf("%s: %s is answered by %q (%s), want %q", step.name, key, r.By, r.Outcome, want)
			}
			if want == "" {
				delete(flows, key) // a client that sends on would keep an entry without an endpoint
			}
		}
	}
}

func openFlows(t *testing.T, l *lab.Lab, family service.Family) map[string]*lab.Flow {
	t.Helper()
	flows := map[string]*lab.Flow{}
	svc := flowService(nil)
	i := 0
	if family == service.IPv6 {
		i = 1
	}
	for _, proto := range []string{"udp", "sctp"} {
		for from, to := range map[string]string{
			"pod-b": svc.Spec.ClusterIPs[i], "client": svc.Spec.ExternalIPs[i]} {
			f, err := l.Open(from, proto, netip.AddrPortFrom(netip.MustParseAddr(to), 5060))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			flows[proto+" of "+from] = f
		}
	}
	return flows
}

// TestFlows follows established UDP flows and SCTP associations through changes. As with TCP, a change of a
// Service leaves them alone. They end with their endpoint: UDP flows when it no longer serves, associations
// when no slice has it.
func TestFlows(t *testing.T) {
	for _, family := range service.Families() {
		slice := func(endpoints ...string) []runtime.Object {
			return []runtime.Object{flowSlice(family, "1", 8080, endpoints...)}
		}
		svc := func(change func(*corev1.Service)) []runtime.Object {
			return []runtime.Object{flowService(change)}
		}
		begin := flowStep{name: "begin", apply: append(svc(nil), slice("pod-a RS")...),
			udp: "pod-a", sctp: "pod-a"}
		port2 := func(s *corev1.Service) { s.Spec.Ports[0].Port, s.Spec.Ports[1].Port = 5061, 5061 }
		weightless := func(s *corev1.Service) {
			s.Annotations = map[string]string{"nftproxy.io/weights": podA + "=0,fd00:10:244:1::11=0"}
		}
		both := []string{"pod-a RS", "pod-c RS"}
		for name, steps := range map[string][]flowStep{
			"readiness flaps": {
				{name: "another endpoint", apply: slice(both...), udp: "pod-a", sctp: "pod-a"},
				{name: "not ready", apply: slice("pod-a", "pod-c RS"), udp: "pod-c", sctp: "pod-a"},
				{name: "ready", apply: slice(both...), udp: "pod-c", sctp: "pod-a"},
				{name: "gone", apply: slice("pod-c RS"), udp: "pod-c"},
			},
			"the only endpoint flaps": {
				{name: "not ready", apply: slice("pod-a"), sctp: "pod-a"},
				{name: "ready", apply: slice("pod-a RS"), sctp: "pod-a"},
				{name: "gone", apply: slice()},
			},
			"an endpoint gets the weight 0": {
				{name: "another endpoint", apply: slice(both...), udp: "pod-a", sctp: "pod-a"},
				{name: "weight 0", apply: svc(weightless), udp: "pod-a", sctp: "pod-a"},
				{name: "weight 0 after a restart", restart: true, udp: "pod-a", sctp: "pod-a"},
				{name: "gone", apply: slice("pod-c RS"), udp: "pod-c"},
			},
			"an endpoint drains": {
				{name: "terminating", apply: slice("pod-a ST", "pod-c RS"), udp: "pod-a", sctp: "pod-a"},
				{name: "serves no more", apply: slice("pod-a T", "pod-c RS"), udp: "pod-c", sctp: "pod-a"},
				{name: "gone", apply: slice("pod-c RS"), udp: "pod-c"},
			},
			"an endpoint moves to another slice": {
				{name: "in both", apply: []runtime.Object{flowSlice(family, "2", 8080, "pod-a RS")},
					udp: "pod-a", sctp: "pod-a"},
				{name: "in the other", remove: slice(), udp: "pod-a", sctp: "pod-a"},
				{name: "gone", remove: []runtime.Object{flowSlice(family, "2", 8080)}},
			},
			"the target port changes": {
				{name: "changed", apply: []runtime.Object{flowSlice(family, "1", 8081, "pod-a RS")},
					udp: "pod-a", sctp: "pod-a"},
				{name: "gone", apply: slice("pod-c RS"), udp: "pod-c"},
			},
			"the port is renamed, the slice later": {
				{name: "renamed", apply: svc(func(s *corev1.Service) { s.Spec.Ports[1].Name = "sip" }),
					udp: "pod-a", sctp: "pod-a"},
				{name: "gone", apply: slice()},
			},
			"the Service is deleted": {
				{name: "the slice is kept", remove: svc(nil), udp: "pod-a", sctp: "pod-a"},
				{name: "another endpoint", apply: slice(both...), udp: "pod-a", sctp: "pod-a"},
				{name: "the endpoint is gone", apply: slice("pod-c RS")},
			},
			"the Service is deleted, then its slice": {
				{name: "the slice is kept", remove: svc(nil), udp: "pod-a", sctp: "pod-a"},
				{name: "the slice is deleted", remove: slice()},
			},
			"the Service is deleted while no daemon runs": {
				{name: "the slice is kept", restart: true, remove: svc(nil), udp: "pod-a", sctp: "pod-a"},
				{name: "the endpoint is gone", apply: slice("pod-c RS")},
			},
			"the Service is created again": {
				{name: "deleted", remove: svc(nil), udp: "pod-a", sctp: "pod-a"},
				{name: "created", apply: svc(nil), udp: "pod-a", sctp: "pod-a"},
				{name: "another endpoint", apply: slice(both...), udp: "pod-a", sctp: "pod-a"},
				{name: "the endpoint is gone", apply: slice("pod-c RS"), udp: "pod-c"},
			},
			"the port changes": {
				{name: "changed", apply: svc(port2), udp: "pod-a", sctp: "pod-a"},
				{name: "changed back", apply: svc(nil), udp: "pod-a", sctp: "pod-a"},
				{name: "changed again", apply: svc(port2), udp: "pod-a", sctp: "pod-a"},
				{name: "the endpoint is gone", apply: slice("pod-c RS")},
			},
		} {
			t.Run(fmt.Sprintf("%s, %s", name, family), func(t *testing.T) {
				t.Parallel()
				checkFlowSteps(t, family, append([]flowStep{begin}, steps...))
			})
		}
	}
}

// TestFlowsOfExternalIPs removes the external IPs of a Service, which exists on: flows to them go on until
// their endpoint is gone.
func TestFlowsOfExternalIPs(t *testing.T) {
	for _, family := range service.Families() {
		l := newLab(t, lab.Options{})
		slice := flowSlice(family, "1", 8080, "pod-a RS")
		if err := l.ServeEndpoints([]*discoveryv1.EndpointSlice{slice}); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		(&daemon{dir: dir}).write(t, "node.yaml", nodeManifest)
		n := newNode(t, "", dir, l.Node())
		n.load(t, dir)
		n.Apply(flowService(nil))
		n.Apply(slice)
		n.sync(t)
		flows := openFlows(t, l, family)
		for key, f := range flows {
			if r := f.Ask(); r.By != "pod-a" {
				t.Fatalf("%s: %s is answered by %q (%s)", family, key, r.By, r.Outcome)
			}
		}
		n.Apply(flowService(func(s *corev1.Service) { s.Spec.ExternalIPs = nil }))
		n.sync(t)
		for key, f := range flows {
			if r := f.Ask(); r.By != "pod-a" {
				t.Errorf("%s: without external IPs, %s is answered by %q (%s)", family, key, r.By, r.Outcome)
			}
		}
		if former := n.reconciler.cleanup.former; len(former) != 1 {
			t.Errorf("%s: remembers the former frontends %v, want those of one Service", family, former)
		}
		n.Apply(flowSlice(family, "1", 8080))
		n.sync(t)
		for key, f := range flows {
			if r := f.Ask(); r.By != "" {
				t.Errorf("%s: after its endpoint is gone, %s is answered by %s", family, key, r.By)
			}
		}
		if former := n.reconciler.cleanup.former; len(former) > 0 {
			t.Errorf("%s: still remembers the former frontends %v", family, former)
		}
	}
}

package proxier

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// world is a cluster that changes at random, by a seed. Names, addresses and ports are few, so that objects
// collide; now and then a value is nonsense.
type world struct {
	*rand.Rand
	services int // at most
	objects  map[string]runtime.Object
	// addressed is the last Node with addresses, which the state keeps.
	addressed *corev1.Node
}

func newWorld(seed uint64, services int) *world {
	return &world{Rand: rand.New(rand.NewPCG(seed, 0x6e6674)), services: services,
		objects: map[string]runtime.Object{}}
}

func oneOf[T any](w *world, from ...T) T { return from[w.IntN(len(from))] }

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

// change creates, updates or deletes one object, and delivers that to p.
func (w *world) change(p *Proxier) {
	var obj runtime.Object
	switch n := w.IntN(100); {
	case n < 2:
		obj = w.node()
	case n < 4:
		obj = w.serviceCIDR()
	case n < 40:
		obj = w.service()
	default:
		obj = w.slice()
	}
	id := identity(obj)
	_, isNode := obj.(*corev1.Node) // the state keeps the addresses of one that was deleted
	if _, there := w.objects[id]; there && !isNode && w.chance(30) {
		p.Delete(w.objects[id])
		delete(w.objects, id)
		return
	}
	w.objects[id] = obj
	p.Apply(obj)
	if node, ok := obj.(*corev1.Node); ok && !p.state.Node().Kept {
		w.addressed = node
	}
}

// deliver delivers all objects to p, in any order, after the Node that had addresses.
func (w *world) deliver(p *Proxier) {
	if w.addressed != nil {
		p.Apply(w.addressed)
	}
	ids := slices.Sorted(maps.Keys(w.objects))
	w.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		p.Apply(w.objects[id])
	}
}

// name returns the name of a Service; some are as long as possible, few are invalid.
func (w *world) name() metav1.ObjectMeta {
	i := w.IntN(w.services)
	meta := metav1.ObjectMeta{Namespace: fmt.Sprintf("ns-%d", i%3), Name: fmt.Sprintf("svc-%d", i)}
	switch i % 16 {
	case 7:
		meta.Namespace, meta.Name = strings.Repeat("n", 63), fmt.Sprintf("s%062d", i)
	case 11:
		if w.chance(10) {
			meta.Name = oneOf(w, "", "UPPER", "a.b", "x;flush ruleset", "ü", strings.Repeat("s", 64))
		}
	}
	return meta
}

// clusterIPs returns addresses that in most cases no other Service has.
func (w *world) clusterIPs(name string) []string {
	n := 1
	for _, c := range name {
		n = (n*31 + int(c)) % 250
	}
	if w.chance(5) {
		n = w.IntN(250)
	}
	v4, v6 := fmt.Sprintf("10.96.0.%d", n), fmt.Sprintf("fd00:10:96::%x", n)
	if w.chance(3) {
		return []string{oneOf(w, "", "None", "nonsense", "::ffff:10.96.0.7", "0.0.0.0", "127.0.0.1",
			"fe80::1%eth0", "224.0.0.1", "010.96.0.1")}
	}
	return oneOf(w, []string{v4}, []string{v6}, []string{v4, v6}, []string{v6, v4})
}

func (w *world) service() *corev1.Service {
	svc := &corev1.Service{ObjectMeta: w.name()}
	svc.CreationTimestamp = metav1.NewTime(time.Unix(int64(w.IntN(3)), 0))
	if w.chance(2) {
		svc.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
	}
	spec := &svc.Spec
	spec.Type = oneOf(w, corev1.ServiceTypeClusterIP, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort,
		corev1.ServiceTypeLoadBalancer)
	if w.chance(2) {
		spec.Type = corev1.ServiceTypeExternalName
	}
	spec.ClusterIPs = w.clusterIPs(svc.Name)
	spec.ClusterIP = spec.ClusterIPs[0]
	for i := range 1 + w.IntN(3) {
		spec.Ports = append(spec.Ports, w.servicePort(i, spec.Type != corev1.ServiceTypeClusterIP))
	}
	spec.InternalTrafficPolicy = oneOf(w, nil, new(corev1.ServiceInternalTrafficPolicyLocal),
		new(corev1.ServiceInternalTrafficPolicyCluster))
	spec.ExternalTrafficPolicy = oneOf(w, "", corev1.ServiceExternalTrafficPolicyCluster,
		corev1.ServiceExternalTrafficPolicyLocal)
	if w.chance(25) {
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = oneOf(w, nil,
			&corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{
				TimeoutSeconds: new(oneOf(w, int32(10), 10800, 86400, 0, -1))}})
	}
	if w.chance(15) {
		spec.ExternalIPs = w.some(3, "203.0.113.1", "203.0.113.2", "2001:db8:1::1", "192.0.2.1", "10.96.0.9",
			"nonsense", "203.0.113.1")
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		w.loadBalancer(svc)
	}
	return svc
}

func (w *world) servicePort(i int, nodePorts bool) corev1.ServicePort {
	p := corev1.ServicePort{
		Name: fmt.Sprintf("p%d", i),
		Protocol: oneOf(w,
			corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, ""),
		Port: oneOf(w, int32(80), 443, 53, 65535),
	}
	if nodePorts {
		p.NodePort = 30000 + int32(w.IntN(60))
	}
	if w.chance(2) {
		p.Port = oneOf(w, int32(0), -1, 65536)
	}
	if w.chance(2) {
		p.NodePort = oneOf(w, int32(-1), 70000)
	}
	if w.chance(2) {
		p.Name = oneOf(w, "", "p0", `"; }`, strings.Repeat("p", 63))
	}
	if w.chance(2) {
		p.Protocol = oneOf[corev1.Protocol](w, "ICMP", "tcp", "\x00")
	}
	return p
}

func (w *world) loadBalancer(svc *corev1.Service) {
	for _, ip := range w.some(3, "198.51.100.1", "198.51.100.2", "198.51.100.3", "2001:db8:2::1",
		"2001:db8:2::2", "", "nonsense") {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{
			IP: ip, IPMode: oneOf(w, nil, new(corev1.LoadBalancerIPModeVIP),
				new(corev1.LoadBalancerIPModeProxy))})
	}
	if w.chance(40) {
		svc.Spec.LoadBalancerSourceRanges = w.some(4, "10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/17",
			"10.1.128.0/17", " 192.0.2.7/32 ", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::/33",
			"fe80::/10", "255.255.255.255/32", "nonsense", "10.0.0.1/8")
	}
}

// some returns up to n of from, now and then one of them twice.
func (w *world) some(n int, from ...string) []string {
	var out []string
	for range w.IntN(n + 1) {
		out = append(out, oneOf(w, from...))
	}
	return out
}

// slice returns one of the up to three EndpointSlices of a Service.
func (w *world) slice() *discoveryv1.EndpointSlice {
	meta := w.name()
	service := meta.Name
	if w.chance(2) {
		service = w.name().Name // the slice moves to another Service, or back
	}
	i := w.IntN(3)
	meta.Name += fmt.Sprintf("-%d", i)
	meta.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	s := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4}
	if i == 2 {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	if w.chance(1) {
		s.AddressType = oneOf[discoveryv1.AddressType](w, "FQDN", "", "nonsense")
	}
	for p := range 1 + w.IntN(3) {
		port := discoveryv1.EndpointPort{Name: new(fmt.Sprintf("p%d", p)),
			Port: new(oneOf(w, int32(8080), 8081, 53)),
			Protocol: oneOf(w,
				new(corev1.ProtocolTCP), new(corev1.ProtocolUDP), new(corev1.ProtocolSCTP), nil)}
		if w.chance(2) {
			port.Port = oneOf(w, nil, new(int32(0)), new(int32(70000)))
		}
		s.Ports = append(s.Ports, port)
	}
	n := w.IntN(6)
	if w.chance(3) {
		n = 60
	}
	for range n {
		s.Endpoints = append(s.Endpoints, w.endpoint(s.AddressType))
	}
	return s
}

func (w *world) endpoint(family discoveryv1.AddressType) discoveryv1.Endpoint {
	node, host := oneOf(w, 1, 2, 3), 1+w.IntN(100)
	addr := fmt.Sprintf("10.244.%d.%d", node, host)
	if family == discoveryv1.AddressTypeIPv6 {
		addr = fmt.Sprintf("fd00:10:244:%d::%x", node, host)
	}
	if w.chance(1) {
		addr = oneOf(w, "", "nonsense", "127.0.0.1", "::1", "0.0.0.0", "169.254.0.1", "::ffff:10.244.1.1",
			"10.244.1.1")
	}
	e := discoveryv1.Endpoint{Addresses: []string{addr},
		NodeName: new(fmt.Sprintf("node-%c", 'a'-1+rune(node)))}
	e.Conditions.Ready = oneOf(w, nil, nil, new(true), new(true), new(false))
	e.Conditions.Serving = oneOf(w, nil, new(true), new(false))
	e.Conditions.Terminating = oneOf(w, nil, nil, new(false), new(true))
	if w.chance(20) {
		zone := discoveryv1.ForZone{Name: oneOf(w, "zone-1", "zone-2")}
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{zone}}
	}
	return e
}

func (w *world) node() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a",
		Labels: map[string]string{corev1.LabelTopologyZone: oneOf(w, "zone-1", "zone-2", "")}}}
	for _, a := range w.some(3, "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "nonsense") {
		n.Status.Addresses = append(n.Status.Addresses,
			corev1.NodeAddress{Type: oneOf(w, corev1.NodeInternalIP, corev1.NodeExternalIP), Address: a})
	}
	return n
}

func (w *world) serviceCIDR() *networkingv1.ServiceCIDR {
	c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: oneOf(w, "kubernetes", "more", "bad")}}
	c.Spec.CIDRs = w.some(3, "10.96.0.0/16", "10.96.0.0/24", "10.97.0.0/16", "10.0.0.0/8", "fd00:10:96::/112",
		"fd00:10:96::/64", "::/0", "nonsense")
	if c.Name == "bad" {
		c.Spec.CIDRs = w.some(2, "nonsense", "10.96.0.0", "10.96.0.1/33", "")
	}
	return c
}

// newStandalone returns a Proxier and its reconciler, for tests that run the syncs. The host's addresses are
// those of the Node object.
func newStandalone(t *testing.T, c *config.Config, k tables) (*Proxier, *reconciler) {
	t.Helper()
	p, err := New(Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	p.setFamilies(service.Families())
	r := p.newReconciler(k)
	r.env = p.nodeEnvironment
	return p, r
}

// difference returns how the kernel differs from the ruleset that r has recorded, and from the one that a new
// Proxier makes from the objects.
func (w *world) difference(t *testing.T, r *reconciler, c *config.Config, k tables) (
	recorded, meant *rules.Delta) {
	t.Helper()
	families := r.builder.Environment().Config.Families
	recorded, err := k.Diff(families, func(rules.Slots) *rules.Ruleset { return r.builder.Ruleset() })
	if err != nil {
		t.Fatal(err)
	}
	p, fresh := newStandalone(t, c, k)
	w.deliver(p)
	e, err := fresh.env()
	if err == nil {
		meant, err = fresh.diff(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return recorded, meant
}

// checkSync fails unless the kernel holds what r has recorded and what the objects mean. It returns which
// flows may go on.
func (w *world) checkSync(t *testing.T, r *reconciler, c *config.Config, k tables) []service.StaleFlows {
	t.Helper()
	recorded, meant := w.difference(t, r, c, k)
	if recorded.Size() > 0 {
		t.Fatalf("the kernel does not hold what is recorded; it lacks:\n%s", deltaText(recorded))
	}
	if meant.Size() > 0 {
		t.Fatalf("the kernel does not hold what the objects mean; it lacks:\n%s", deltaText(meant))
	}
	if left := len(recorded.StaleChains) + len(recorded.StaleSets); left > 0 && r.cleanup.due == nil {
		t.Fatalf("no cleanup is due, though something is left over:\n%s", deltaText(recorded))
	}
	return meant.Stale
}

func deltaText(d *rules.Delta) string {
	var b strings.Builder
	_ = d.WriteText(&b)
	return b.String()
}

package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// floor is the lower bound of the costs of a proxy. It lists the objects and writes all missing elements in
// one batch, and then writes the elements of each watch event in a transaction. It reads the kernel only at
// the start, does not combine events, does not validate objects, and only supports ready endpoints of
// ClusterIPs, with session affinity or without.
type floor struct {
	conn     *kernel.Conn
	ruleset  *rules.Ruleset
	services map[string]*corev1.Service
	slices   map[string]map[string]*discoveryv1.EndpointSlice // by Service
}

// runFloor is the program of the floor. It prints the duration of the first batch in milliseconds.
func runFloor(args []string) error {
	fs := flag.NewFlagSet("floor", flag.ExitOnError)
	kubeconfig := fs.String("kubeconfig", "", "")
	_ = fs.Parse(args) // it exits on an error
	config, err := connection(*kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	f := &floor{
		services: map[string]*corev1.Service{},
		slices:   map[string]map[string]*discoveryv1.EndpointSlice{},
	}
	f.ruleset = rules.NewRuleset(rules.Config{
		MasqueradeMark: 1 << 14, Families: service.Families(),
		PodTraffic:   rules.PodTraffic{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	})
	if f.conn, err = kernel.Dial(kernel.Options{}); err != nil {
		return err
	}
	ctx := context.Background()
	services, slices, err := f.list(ctx, client)
	if err != nil {
		return err
	}
	if err := f.first(); err != nil {
		return err
	}
	for {
		var event watch.Event
		select {
		case event = <-services.ResultChan():
		case event = <-slices.ResultChan():
		}
		if err := f.follow(event); err != nil {
			return err
		}
	}
}

// first writes the missing elements.
func (f *floor) first() error {
	d, err := f.conn.Diff(service.Families(), func(slots rules.Slots) *rules.Ruleset {
		for name := range f.services {
			f.put(name, slots)
		}
		return f.ruleset
	})
	if err != nil {
		return err
	}
	start := time.Now()
	if d.Size() > 0 {
		if err := f.conn.Apply(d); err != nil {
			return err
		}
	}
	fmt.Println(milliseconds(time.Since(start)))
	f.ruleset.Done()
	return nil
}

func (f *floor) list(
	ctx context.Context, client kubernetes.Interface,
) (services, slices watch.Interface, err error) {
	svcs, err := client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	for i := range svcs.Items {
		f.services[svcs.Items[i].Name] = &svcs.Items[i]
	}
	eps, err := client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	for i := range eps.Items {
		f.take(&eps.Items[i])
	}
	from := metav1.ListOptions{ResourceVersion: svcs.ResourceVersion}
	if services, err = client.CoreV1().Services(namespace).Watch(ctx, from); err != nil {
		return nil, nil, err
	}
	from = metav1.ListOptions{ResourceVersion: eps.ResourceVersion}
	slices, err = client.DiscoveryV1().EndpointSlices(namespace).Watch(ctx, from)
	return services, slices, err
}

func (f *floor) take(s *discoveryv1.EndpointSlice) (name string) {
	name = s.Labels[discoveryv1.LabelServiceName]
	if f.slices[name] == nil {
		f.slices[name] = map[string]*discoveryv1.EndpointSlice{}
	}
	f.slices[name][s.Name] = s
	return name
}

func (f *floor) follow(event watch.Event) error {
	var name string
	switch obj := event.Object.(type) {
	case *corev1.Service:
		name = obj.Name
		if f.services[name] = obj; event.Type == watch.Deleted {
			delete(f.services, name)
		}
	case *discoveryv1.EndpointSlice:
		if name = f.take(obj); event.Type == watch.Deleted {
			delete(f.slices[name], obj.Name)
		}
	default:
		return fmt.Errorf("watch ended")
	}
	f.put(name, f.ruleset.Slots)
	d := f.ruleset.Changes()
	if d.Empty() {
		return nil
	}
	defer f.ruleset.Done()
	return f.conn.Apply(d)
}

// put compiles a Service. Its backends keep their slots.
func (f *floor) put(name string, slots rules.Slots) {
	svc := f.services[name]
	id := service.Name{Namespace: namespace, Name: name}
	if svc == nil {
		f.ruleset.Remove(id)
		return
	}
	var endpoints []service.Endpoint
	for _, slice := range f.slices[name] {
		for _, e := range slice.Endpoints {
			backend := netip.AddrPortFrom(netip.MustParseAddr(e.Addresses[0]), podPort)
			endpoints = append(endpoints, service.Endpoint{Backend: backend, Ready: true, Node: *e.NodeName})
		}
	}
	protocols := map[corev1.Protocol]service.Protocol{
		corev1.ProtocolTCP: service.TCP, corev1.ProtocolUDP: service.UDP}
	s := &service.Service{Name: id, ClusterIPs: []netip.Addr{netip.MustParseAddr(svc.Spec.ClusterIP)}}
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		s.AffinityTimeout = time.Duration(*svc.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds) * time.Second
	}
	for _, p := range svc.Spec.Ports {
		s.Ports = append(s.Ports, service.Port{
			Name: p.Name, Protocol: protocols[p.Protocol], Port: uint16(p.Port), Endpoints: endpoints,
		})
	}
	f.ruleset.Put(rules.Compile(s, service.Node{Name: lab.NodeName}, slots, rules.MaxShare))
}

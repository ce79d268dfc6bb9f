package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/nft"
	"github.com/nftproxy/nftproxy/rules"
)

// manyServices is the ruleset that a cluster of n Services leads to.
func manyServices(n int) *rules.Ruleset {
	ruleset := rules.NewRuleset(rules.Config{
		MasqueradeMark: 1 << 14, Families: rules.Families(),
		PodTraffic:   rules.PodTraffic{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	})
	at := rules.Node{Name: lab.NodeName, NodePortAddrs: []netip.Addr{nodeAddr}}
	put := func(name string, ip netip.Addr, backends ...netip.Addr) {
		port := rules.ServicePort{Name: "http", Protocol: rules.TCP, Port: servicePort}
		for _, b := range backends {
			port.Endpoints = append(port.Endpoints, rules.Endpoint{Backend: netip.AddrPortFrom(b, podPort), Ready: true, Node: "node-b"})
		}
		ruleset.Put(rules.Compile(&rules.Service{Name: rules.ServiceName{Namespace: namespace, Name: name},
			ClusterIPs: []netip.Addr{ip}, Ports: []rules.ServicePort{port}}, at, ruleset.Slots))
	}
	for i := range n {
		put(serviceName(i), serviceAddr(i), backendAddr(i, 0, 0), backendAddr(i, 1, 0), backendAddr(i, 2, 0))
	}
	put("first", firstAddr, podAddr)
	put("last", lastAddr, podAddr)
	return ruleset
}

// bareBatch returns how long the elements of n Services take to be written into an empty kernel: nothing is compiled,
// nothing compared.
func bareBatch(n int) (time.Duration, error) {
	ns, err := lab.NewNamespace()
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	conn, err := nft.Dial(nft.Options{NetNS: ns.FD()})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	d := rules.Diff(manyServices(n), rules.Programmed{})
	start := time.Now()
	err = conn.Apply(d, 0)
	return time.Since(start), err
}

// runFloor is a proxy that can do nothing but replace the middle endpoint of a numbered Service: a bare watch, and one
// element written for each event.
func runFloor(args []string) error {
	fs := flag.NewFlagSet("floor", flag.ExitOnError)
	kubeconfig := fs.String("kubeconfig", "", "")
	services := fs.Int("services", 0, "")
	_ = fs.Parse(args) // it exits on an error
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	conn, err := nft.Dial(nft.Options{})
	if err != nil {
		return err
	}
	ctx, slices := context.Background(), client.DiscoveryV1().EndpointSlices("")
	list, err := slices.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	w, err := slices.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	d := rules.Diff(manyServices(*services), rules.Programmed{})
	if err := conn.Apply(d, 0); err != nil {
		return err
	}
	f := floor{conn, middles(d)}
	for event := range w.ResultChan() {
		if slice, ok := event.Object.(*discoveryv1.EndpointSlice); ok {
			if err := f.replace(slice); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("the watch ended")
}

// floor knows the element of the middle endpoint of each ClusterIP.
type floor struct {
	conn    *nft.Conn
	middles map[netip.Addr]rules.Element
}

func middles(d *rules.Delta) map[netip.Addr]rules.Element {
	m := map[netip.Addr]rules.Element{}
	for _, e := range d.Add {
		if v := e.KeyValues(); e.Set.Kind == rules.Endpoints && v.Index == 1 {
			m[v.Addrs[0]] = e
		}
	}
	return m
}

func (f *floor) replace(slice *discoveryv1.EndpointSlice) error {
	i, err := strconv.Atoi(strings.TrimPrefix(slice.Name, "s-"))
	if err != nil || len(slice.Endpoints) < 2 {
		return nil
	}
	ip, err := netip.ParseAddr(slice.Endpoints[1].Addresses[0])
	if err != nil {
		return err
	}
	old := f.middles[serviceAddr(i)]
	e := old
	addr := ip.As4()
	copy(e.Data[:], addr[:])
	f.middles[serviceAddr(i)] = e
	return f.conn.Apply(&rules.Delta{Delete: []rules.Element{old}, Add: []rules.Element{e}}, 0)
}

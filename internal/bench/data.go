package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// dataPath measures packets at the current number of Services. All nodes exist at the same time, fully
// programmed and with idle proxies, so that bench can alternate between them.
func (b *bench) dataPath(ctx context.Context) error {
	b.part = "data"
	nodes, err := b.dataNodes(ctx)
	for _, n := range nodes {
		defer n.close()
	}
	if err != nil {
		return fmt.Errorf("data path: %w", err)
	}
	for _, n := range nodes { // fills neighbour tables and loads connection tracking
		pod := netip.AddrPortFrom(podAddr, podPort)
		if _, err := connects(n.lab.Namespace("pod-a"), pod, b.slice/2); err != nil {
			b.fail(n.who, fmt.Errorf("data path: %w", err))
		}
	}
	const turns = 2 // in each round, because they are short
	for round := range b.rounds * turns {
		b.say("%d services, data path, turn %d", b.cluster.services, round+1)
		for i := range nodes {
			n := nodes[(i+round)%len(nodes)]
			if b.failed[n.who.name] {
				continue
			}
			err := b.packets(ctx, n)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				b.fail(n.who, fmt.Errorf("data path: %w", err))
			}
		}
	}
	return nil
}

// dataNodes returns a node without rules, a node with one hand-written rule per frontend, and the nodes of
// the proxies.
func (b *bench) dataNodes(ctx context.Context) ([]*node, error) {
	var nodes []*node
	for _, who := range append([]contender{{name: "no proxy"}, {name: "one rule"}}, b.contenders[1:]...) {
		if b.failed[who.name] || !who.fits(b.cluster.services) {
			continue
		}
		n, err := newNode(who, b.cluster, b.dir)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, n)
		switch who.name {
		case "no proxy":
		case "one rule":
			err = writeRules(n.lab.Node())
		default:
			_, err = n.start(ctx)
		}
		if ctx.Err() != nil {
			return nodes, ctx.Err()
		}
		if err != nil {
			b.fail(who, fmt.Errorf("data path: %w", err))
		}
	}
	return nodes, nil
}

// packets measures a node once. Without a proxy, the clients connect to the pod.
func (b *bench) packets(ctx context.Context, n *node) error {
	pod := netip.AddrPortFrom(podAddr, podPort)
	first, last := netip.AddrPortFrom(firstAddr, servicePort), netip.AddrPortFrom(lastAddr, servicePort)
	clusterIP := first
	if n.who.name == "no proxy" {
		clusterIP = pod
	}
	inside, outside := n.lab.Namespace("pod-a"), n.lab.Namespace("client")
	if err := b.rate(ctx, n, "new connections, pod to ClusterIP", inside, clusterIP); err != nil {
		return err
	}
	if n.who.name != "no proxy" {
		at := netip.AddrPortFrom(nodeAddr, nodePort)
		if err := b.rate(ctx, n, "new connections, outside to nodePort", outside, at); err != nil {
			return err
		}
		if err := b.latency(n, "first packet, first Service", inside, first); err != nil {
			return err
		}
	}
	if n.proxy != nil {
		if err := b.latency(n, "first packet, last Service", inside, last); err != nil {
			return err
		}
	}
	if err := b.latency(n, "first packet, no Service", inside, pod); err != nil {
		return err
	}
	if err := b.flow(n, "through the ClusterIP", inside, clusterIP); err != nil {
		return err
	}
	return b.flow(n, "straight to the pod", inside, pod)
}

// rate measures the connections per second of two clients, each with one connection at a time.
func (b *bench) rate(
	ctx context.Context, n *node, name string, from *lab.Namespace, to netip.AddrPort,
) error {
	const clients = 2
	start, results := time.Now(), make(chan error, clients)
	counts := make([]int, clients)
	for i := range clients {
		go func() {
			took, err := connects(from, to, b.slice)
			counts[i] = len(took)
			results <- err
		}()
	}
	for range clients {
		if err := <-results; err != nil {
			return err
		}
	}
	b.put(n, name, "1/s", float64(counts[0]+counts[1])/time.Since(start).Seconds())
	return ctx.Err()
}

// latency measures the time to open a connection, without other traffic.
func (b *bench) latency(n *node, name string, from *lab.Namespace, to netip.AddrPort) error {
	took, err := connects(from, to, b.slice/2)
	if err != nil {
		return err
	}
	values := durations(took, microseconds)
	b.put(n, name+": p50", "us", quantile(values, 0.5))
	b.put(n, name+": p99", "us", quantile(values, 0.99))
	return nil
}

// flow measures the packet rate and the throughput of one connection.
func (b *bench) flow(n *node, name string, from *lab.Namespace, to netip.AddrPort) error {
	trips, err := pingPong(from, to, b.slice)
	if err != nil {
		return err
	}
	b.put(n, "established UDP, "+name, "packets/s", 2*trips)
	rate, err := stream(from, to, b.slice)
	if err != nil {
		return err
	}
	b.put(n, "established TCP, "+name, "MB/s", rate/1e6)
	return nil
}

package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/source"
)

// watchedServices is the maximum number of Services for the part watchers.
const watchedServices = 1000

// watched returns the number of Services for the part watchers.
func (b *bench) watched() int { return b.atMost(watchedServices) }

// watchers measures the load of many nodes on the API server, with proxies that only watch.
func (b *bench) watchers(ctx context.Context) error {
	b.part = "watchers"
	counts := []int{0, 50, 100, 200}
	if b.quick {
		counts = []int{0, 10, 20}
	}
	for _, count := range counts {
		b.say("%d services, %d watchers", b.cluster.services, count)
		if err := b.watchersOf(ctx, count); err != nil {
			return fmt.Errorf("%d watchers: %w", count, err)
		}
	}
	return nil
}

func (b *bench) watchersOf(ctx context.Context, count int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	n, err := newNode(contender{name: "API server"}, b.cluster, b.dir)
	if err != nil {
		return err
	}
	defer n.close()
	name, server := fmt.Sprintf("%d watchers", count), b.cluster.plane.APIServer.PID()
	before := cpuOf(server)
	synced := filepath.Join(b.dir, fmt.Sprintf("synced-%d", count))
	n.proxy, err = startProcess(n.lab.Node(), filepath.Join(b.dir, "hollow.log"), []string{self, "hollow",
		"-kubeconfig", b.cluster.plane.AdminKubeconfig, "-watchers", strconv.Itoa(count), "-synced", synced})
	if err != nil {
		return err
	}
	if err := n.awaitFile(ctx, synced); err != nil {
		return err
	}
	if count > 0 {
		cpu, bytes := cpuOf(server).minus(before), n.relay.received.Load()
		b.put(n, name+": start, CPU for each", "ms", milliseconds(cpu.total)/float64(count))
		b.put(n, name+": start, bytes for each", "MB", float64(bytes)/1e6/float64(count))
	}
	changes := max(20, b.options.changes)
	for range b.rounds {
		time.Sleep(2 * time.Second)
		cpu, bytes := cpuOf(server), n.relay.received.Load()
		for i := range changes {
			if err := b.cluster.update(ctx, b.cluster.replaced(b.cluster.spread(i))); err != nil {
				return err
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Second)
		cpu, bytes = cpuOf(server).minus(cpu), n.relay.received.Load()-bytes
		b.put(n, name+": CPU for a change", "ms", milliseconds(cpu.total)/float64(changes))
		b.put(n, name+": bytes for a change", "kB", float64(bytes)/1e3/float64(changes))
	}
	b.put(n, name+": resident", "MB", memoryOf(server).resident/1e6)
	return nil
}

// awaitFile waits until the process of the node has created a file.
func (n *node) awaitFile(ctx context.Context, file string) error {
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		if err := n.proxy.alive(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// runHollow is the program with many proxies that watch the API server and do nothing else.
func runHollow(args []string) error {
	fs := flag.NewFlagSet("hollow", flag.ExitOnError)
	kubeconfig := fs.String("kubeconfig", "", "")
	watchers := fs.Int("watchers", 0, "")
	file := fs.String("synced", "", "")
	_ = fs.Parse(args) // it exits on an error
	done := make(chan error)
	for range *watchers {
		h := hollow{synced: make(chan struct{})}
		client, err := ownClient(*kubeconfig)
		if err != nil {
			return err
		}
		go func() { done <- source.NewAPI(client, lab.NodeName).Run(context.Background(), &h, source.Reporter{}) }()
		select { // one after another, as nodes would start
		case <-h.synced:
		case err := <-done:
			return fmt.Errorf("watcher stopped: %w", err)
		}
	}
	if err := os.WriteFile(*file, nil, 0o600); err != nil {
		return err
	}
	return <-done
}

// ownClient returns a client with a connection of its own.
func ownClient(kubeconfig string) (*source.Client, error) {
	config, err := connection(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.Dial = (&net.Dialer{}).DialContext // clients without a dialer of their own share a connection
	return source.NewClientFor(config)
}

// hollow is a sink that counts objects and keeps none of them.
type hollow struct {
	calls  atomic.Int64
	synced chan struct{}
}

func (h *hollow) Apply(runtime.Object)  { h.calls.Add(1) }
func (h *hollow) Delete(runtime.Object) { h.calls.Add(1) }
func (h *hollow) Synced()               { close(h.synced) }

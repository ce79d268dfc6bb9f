package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// node is a machine in a lab of its own, with a contender that runs on it.
type node struct {
	who   contender
	lab   *lab.Lab
	relay *relay
	gen   *generation
	pod   *server // on pod-b
	dir   string
	proxy *process
	took  time.Duration // by the proxy, for the last change
}

func newNode(who contender, c *cluster, dir string) (*node, error) {
	l, err := lab.New(lab.Options{})
	if err != nil {
		return nil, err
	}
	n := &node{who: who, lab: l, dir: dir}
	if n.relay, err = newRelay(l.Node(), c); err == nil {
		n.gen, err = newGeneration(l.Node())
	}
	if err == nil {
		err = noSubscribers(l.Node())
	}
	if err == nil {
		err = brief(l.Node())
	}
	if err == nil {
		n.pod, err = serve(l.Namespace("pod-b"), netip.AddrPortFrom(podAddr, podPort))
	}
	if err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *node) close() {
	if n.proxy != nil {
		n.proxy.stop()
	}
	if n.gen != nil {
		_ = n.gen.conn.Close()
	}
	if n.relay != nil {
		_ = n.relay.listener.Close()
	}
	if n.pod != nil {
		n.pod.close()
	}
	_ = n.lab.Close()
}

// brief has connection tracking forget what was reset: there is room for 262144 flows, and a benchmark makes more.
func brief(ns *lab.Namespace) error {
	return ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", []byte("1\n"), 0)
	})
}

// programLimit is how long a proxy may take to program all there is.
const programLimit = 10 * time.Minute

// stillness is for how long nothing is committed once all is programmed.
const stillness = time.Second

// programmed is what came of a start.
type programmed struct {
	took    time.Duration // from before the process was started to the last commit
	commits uint32
}

// launch starts the proxy.
func (n *node) launch() (err error) {
	n.proxy, err = startProcess(n.lab.Node(), filepath.Join(n.dir, strings.ReplaceAll(n.who.name, " ", "-")+".log"), n.who.args)
	return err
}

// start starts the proxy and returns when all is programmed: nothing is committed any more, and the first and
// the last Service answer. What is to go on meanwhile is called once the proxy is started.
func (n *node) start(ctx context.Context, started ...func()) (programmed, error) {
	before, err := n.gen.now()
	if err != nil {
		return programmed{}, err
	}
	restart := n.proxy != nil // then there may be nothing to commit
	if err := n.launch(); err != nil {
		return programmed{}, err
	}
	for _, f := range started {
		go f()
	}
	moved, gen := n.proxy.begun, before
	for deadline := time.Now().Add(programLimit); ; {
		if err := errors.Join(ctx.Err(), n.proxy.alive()); err != nil {
			return programmed{}, err
		}
		if moved, gen, err = n.gen.quiet(ctx, moved, gen, stillness, programLimit); err != nil {
			return programmed{}, err
		}
		if (restart || gen != before) && n.answers(firstAddr) && n.answers(lastAddr) {
			now, err := n.gen.now()
			if err != nil || now == gen {
				return programmed{moved.Sub(n.proxy.begun), gen - before}, err
			}
			continue // something was committed just now
		}
		if time.Now().After(deadline) {
			return programmed{}, fmt.Errorf("the Services are not programmed within %v; see %s", programLimit, n.proxy.log)
		}
	}
}

func (n *node) answers(ip netip.Addr) bool {
	to := netip.AddrPortFrom(ip, servicePort)
	return n.lab.Namespace("pod-a").Do(func() error { return probe(to) }) == nil
}

// settle waits until nothing has been committed for a while.
func (n *node) settle(ctx context.Context, still time.Duration) error {
	gen, err := n.gen.now()
	if err == nil {
		_, _, err = n.gen.quiet(ctx, time.Now(), gen, n.rest(still), changeLimit)
	}
	return err
}

// rest is how long nothing must have been committed until nothing more is to be expected of a proxy that may still be
// at work: longer than it takes for a change.
func (n *node) rest(least time.Duration) time.Duration { return max(least, 2*n.took) }

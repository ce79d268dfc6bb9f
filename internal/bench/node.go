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

// node is the node of a lab of its own, with a contender that runs on it.
type node struct {
	who    contender
	lab    *lab.Lab
	relay  *relay
	gen    *generation
	pod    *server // on pod-b
	dir    string
	proxy  *process
	probes int
	took   time.Duration // time that the proxy needed for the last change
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

// brief lets connection tracking delete reset connections after a second. The table has room for 262144 flows
// by default, and a benchmark makes more.
func brief(ns *lab.Namespace) error {
	return ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", []byte("1\n"), 0)
	})
}

// programLimit limits the time to program all Services.
const programLimit = 10 * time.Minute

// stillness is the time without a commit after which a proxy has programmed all Services.
const stillness = time.Second

// programmed is the result of a start.
type programmed struct {
	took    time.Duration // from the start of the process to the last commit
	commits uint32
}

// launch starts the proxy.
func (n *node) launch() (err error) {
	log := filepath.Join(n.dir, strings.ReplaceAll(n.who.name, " ", "-")+".log")
	n.proxy, err = startProcess(n.lab.Node(), log, n.who.args)
	return err
}

// start starts the proxy and returns when it has programmed everything: it has stopped committing, and the
// first and the last Service answer. It calls started in goroutines after the start of the process.
func (n *node) start(ctx context.Context, started ...func()) (programmed, error) {
	before, err := n.gen.now()
	if err != nil {
		return programmed{}, err
	}
	restart := n.proxy != nil // a restarted proxy may have nothing to commit
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
			continue // a commit happened just now
		}
		if time.Now().After(deadline) {
			return programmed{}, fmt.Errorf("not programmed after %v; see %s", programLimit, n.proxy.log)
		}
	}
}

// answers reports whether a client can connect to the Service at ip.
func (n *node) answers(ip netip.Addr) bool {
	n.probes++
	to, count := netip.AddrPortFrom(ip, servicePort), n.probes
	return n.lab.Namespace("pod-a").Do(func() error { return probe(to, count) }) == nil
}

// settle waits until no commit has happened for the duration still, or longer if changes take long.
func (n *node) settle(ctx context.Context, still time.Duration) error {
	gen, err := n.gen.now()
	if err == nil {
		_, _, err = n.gen.quiet(ctx, time.Now(), gen, n.rest(still), changeLimit)
	}
	return err
}

// rest returns the time without a commit after which a proxy has finished its work: at least twice the time
// that it needed for the last change.
func (n *node) rest(least time.Duration) time.Duration { return max(least, 2*n.took) }

// Command demo shows what nftproxy does on one node of a small cluster. It builds the cluster in network
// namespaces, runs the daemon on a node and sends requests to Services before, during and after a change of
// their endpoints.
//
//	go run ./internal/demo --nftproxy bin/nftproxy --manifests testdata/demo
//
// Network namespaces let anyone try nftproxy without a cluster: the demo needs no root where the kernel
// allows unprivileged user namespaces, does not touch the network of the host and removes everything it
// created. It exits 1 if any request has another result than expected.
//
// Start reading at show.all in show.go; traffic.go lists the requests and the expected results.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/nftproxy/nftproxy/internal/lab"
)

func main() {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	var o options
	flag.StringVar(&o.nftproxy, "nftproxy", "bin/nftproxy", "the nftproxy `binary` to run")
	flag.StringVar(&o.manifests, "manifests", "testdata/demo", "the `directory` of the manifests")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	nftproxy  string // the binary
	manifests string // the directory
}

// run builds the lab, runs the whole demo in it and removes it. It returns an error if a result was not as
// expected.
func run(ctx context.Context, o options, out io.Writer) (err error) {
	dir, err := newDirectory(o.manifests)
	if err != nil {
		return err
	}
	defer dir.remove()
	l, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	endpoints, err := dir.endpointSlices()
	if err != nil {
		return err
	}
	if err := l.ServeEndpoints(endpoints); err != nil {
		return err
	}
	fmt.Fprintf(out, introduction, o.manifests)
	p, err := startProxy(o.nftproxy, l.Node(), dir)
	if err != nil {
		return err
	}
	defer func() {
		p.kill()
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(out, "\nThe log of nftproxy:\n%s", p.log())
		}
	}()
	s := show{out: out, lab: l, dir: dir, proxy: p}
	if err := s.all(p.whileAlive(ctx)); err != nil {
		return err
	}
	return s.verdict()
}

const introduction = `A small cluster in network namespaces; the network of this machine stays as it is.

  client    192.0.2.100 --.                 .-- pod-a  10.244.1.11
                          |-- node-a -------|
  client-2  192.0.2.101 --|   192.0.2.1     '-- pod-b  10.244.1.12
                          |
                          '-- node-b -------.-- pod-c  10.244.2.11
                              192.0.2.2     '-- pod-d  10.244.2.12

Every pod answers with its own name and the source address it sees. All of them have IPv6 addresses
as well. The daemon nftproxy runs on node-a and reads a copy of the manifests in
%s. It translates the requests that node-a, its pods and the clients send.
`

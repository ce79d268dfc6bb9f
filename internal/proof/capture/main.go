// Command capture records the tables that a kube-proxy in nftables mode programs for the objects of each case
// in testdata/rules.
//
//	make kubeproxy-dumps
//
// The tests of internal/proof run packets through these tables and compare what becomes of them with the
// specification. kube-proxy runs in a network namespace with the addresses of the Node, reads the objects
// from an API server that serves them as they are, valid or not, and has the configuration of the case.
//
// Start reading at capture.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/internal/proof/recording"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

func main() {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		os.Exit(1)
	}
	var o options
	flag.StringVar(&o.kubeProxy, "kube-proxy", "bin/kube-proxy", "the kube-proxy `binary` to run")
	flag.StringVar(&o.cases, "cases", "testdata/rules", "the `directory` with a directory for each case")
	flag.StringVar(&o.out, "out", "testdata/kubeproxy/tables", "the `directory` for the recordings")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	kubeProxy, cases, out string
}

// run captures the named cases, or all.
func run(ctx context.Context, o options, names []string) error {
	entries, err := os.ReadDir(o.cases)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if len(names) > 0 && !slices.Contains(names, e.Name()) {
			continue
		}
		file := filepath.Join(o.out, e.Name()+".gz")
		switch err := capture(ctx, o.kubeProxy, filepath.Join(o.cases, e.Name()), file); {
		case errors.Is(err, errNoTables):
			fmt.Printf("%s: %v\n", e.Name(), err)
			_ = os.Remove(file)
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", e.Name(), err))
		default:
			fmt.Println(e.Name())
		}
	}
	return errors.Join(errs...)
}

// capture runs kube-proxy with the objects of a case and writes its tables to the file.
func capture(ctx context.Context, binary, dir, file string) error {
	work, err := os.MkdirTemp("", "capture")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	objects, err := load(filepath.Join(dir, "input.yaml"))
	if err != nil {
		return err
	}
	ns, err := newNode(objects)
	if err != nil {
		return err
	}
	defer ns.Close()
	api, err := serve(ns, objects)
	if err != nil {
		return err
	}
	defer api.Close()
	config, err := writeConfig(work, dir, api.Addr)
	if err != nil {
		return err
	}
	proxy, err := start(ns, binary, config, filepath.Join(work, "log"))
	if err != nil {
		return err
	}
	defer proxy.stop()
	return ns.Do(func() error {
		conn, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := proxy.programmed(ctx, conn); err != nil {
			return err
		}
		return recording.Write(file, "kube-proxy", conn)
	})
}

// Command bench measures service proxies: nftproxy, optionally a kube-proxy, and the floor, which is the cost
// of the kernel and the API server without a proxy.
//
//	make bench
//	make kube-proxy bench KUBE_PROXY=bin/kube-proxy BENCH='-sizes 1000,10000 -rounds 5'
//
//	bin/bench merge -out DIR FILE...    # merge the bench.json of several runs
//
// A proxy is a black box, so that all contenders are measured in the same way: bench changes objects in a
// real API server, and observes the nftables generation of a network namespace and the packets in it. It
// measures the contenders in turn, in several rounds, prints a table and writes bench.json and plots. It does
// not judge the results. It needs root, but no cluster. It is a module of its own, so that the plotting
// library is not a dependency of nftproxy.
//
// Start reading at bench.measure in run.go; control.go, load.go, sticky.go, data.go and watchers.go have the
// measurements.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "floor": // bench runs these two as processes of their own
			exit(runFloor(os.Args[2:]))
		case "hollow":
			exit(runHollow(os.Args[2:]))
		case "merge":
			exit(runMerge(os.Args[2:]))
		}
	}
	o := options{}
	o.flags(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := o.complete()
	if err == nil {
		err = run(ctx, o)
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are the command line.
type options struct {
	nftproxy  string
	kubeProxy string
	before    string
	out       string
	only      list
	sizes     list
	dataSizes list
	iptables  int
	most      int
	rounds    int
	changes   int
	slice     time.Duration
	quick     bool
	profile   bool

	counts, dataCounts []int // sizes and dataSizes, sorted
}

// list is a flag with values separated by commas.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = strings.Split(s, ","); return nil }

// numbers returns the values of the list as sorted numbers of Services.
func (l list) numbers() ([]int, error) {
	var numbers []int
	for _, s := range l {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxServices {
			return nil, fmt.Errorf("%q is not a number from 1 to %d", s, maxServices)
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers, nil
}

// parts returns the values of -only.
func parts() list { return list{"control", "load", "sticky", "data", "watchers"} }

func (o *options) flags(fs *flag.FlagSet) {
	o.sizes, o.dataSizes, o.only = list{"100", "1000", "10000", "50000"}, list{"100", "30000"}, parts()
	fs.StringVar(&o.nftproxy, "nftproxy", "bin/nftproxy", "nftproxy `binary`")
	fs.StringVar(&o.kubeProxy, "kube-proxy", "", "kube-proxy `binary` to compare with")
	fs.StringVar(&o.before, "before", "", "another nftproxy `binary` to compare with")
	fs.StringVar(&o.out, "out", "bench", "`directory` for bench.json and the plots")
	fs.Var(&o.sizes, "sizes", "numbers of Services, with 3 endpoints each, for the control plane")
	fs.Var(&o.dataSizes, "data-sizes", "numbers of Services for the data path")
	fs.IntVar(&o.iptables, "iptables", 1000,
		"maximum number of Services for kube-proxy's iptables mode; 0 disables it")
	fs.Var(&o.only, "only", "parts to measure")
	fs.IntVar(&o.most, "most", 10_000,
		"maximum number of Services for kube-proxy's nftables mode; 0 means no limit")
	fs.IntVar(&o.rounds, "rounds", 3, "number of measurements of each proxy")
	fs.IntVar(&o.changes, "changes", 100, "maximum number of changes of each kind in a round")
	fs.DurationVar(&o.slice, "slice", 500*time.Millisecond, "duration of one measurement of the data path")
	fs.BoolVar(&o.profile, "profile", false, "write profiles of the proxies, which slows them down")
	fs.BoolVar(&o.quick, "quick", false, "one round with few changes, to test the setup")
}

func (o *options) complete() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("root is required: the kernel limits the size of rulesets in user namespaces")
	}
	if o.quick {
		o.rounds, o.changes, o.slice = 1, min(o.changes, 20), 300*time.Millisecond
	}
	var err error
	if o.counts, err = o.sizes.numbers(); err != nil {
		return fmt.Errorf("-sizes: %w", err)
	}
	if o.dataCounts, err = o.dataSizes.numbers(); err != nil {
		return fmt.Errorf("-data-sizes: %w", err)
	}
	for _, p := range o.only {
		if all := parts(); !slices.Contains(all, p) {
			return fmt.Errorf("-only: %q is not one of %s", p, all.String())
		}
	}
	return os.MkdirAll(o.out, 0o755)
}

func (o *options) measures(part string) bool { return slices.Contains(o.only, part) }

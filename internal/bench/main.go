// Command bench measures proxies for Services: nftproxy, beside it a kube-proxy if there is a binary of one, and the
// floor under both, which is what the kernel and the API server take without any proxy.
//
//	make bench
//	make bench KUBE_PROXY=path/to/kube-proxy BENCH='-sizes 1000,10000 -rounds 5'
//
//	bin/bench merge -out DIR FILE...    # put the bench.json of several runs together
//
// A proxy is a black box: objects go in through a real API server, and what comes out is the nftables generation of a
// network namespace and packets. All are measured in turn, several times; a table is printed, and written to bench.json
// with plots beside it. Nothing fails because of a figure. It needs root, not a cluster.
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
		case "floor": // the programs that are measured beside nftproxy
			exit(runFloor(os.Args[2:]))
		case "hollow":
			exit(runHollow(os.Args[2:]))
		case "merge": // what was measured in several runs
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

// list is a flag with commas.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = strings.Split(s, ","); return nil }

// numbers returns the numbers of Services that the list has, sorted.
func (l list) numbers() ([]int, error) {
	var numbers []int
	for _, s := range l {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxServices {
			return nil, fmt.Errorf("%q is not within 1 to %d", s, maxServices)
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers, nil
}

// parts are what -only selects from.
var parts = list{"control", "load", "data", "watchers"}

func (o *options) flags(fs *flag.FlagSet) {
	o.sizes, o.dataSizes, o.only = list{"100", "1000", "10000", "50000"}, list{"100", "30000"}, slices.Clone(parts)
	fs.StringVar(&o.nftproxy, "nftproxy", "bin/nftproxy", "nftproxy `binary`")
	fs.StringVar(&o.kubeProxy, "kube-proxy", "", "kube-proxy `binary` to compare with")
	fs.StringVar(&o.before, "before", "", "another nftproxy `binary` to compare with")
	fs.StringVar(&o.out, "out", "bench", "`directory` for bench.json and the plots")
	fs.Var(&o.sizes, "sizes", "numbers of Services, of 3 endpoints each, for the control plane")
	fs.Var(&o.dataSizes, "data-sizes", "the same, for the data path")
	fs.IntVar(&o.iptables, "iptables", 1000, "the most Services with which kube-proxy's iptables mode is measured; 0: it is not")
	fs.Var(&o.only, "only", "what to measure")
	fs.IntVar(&o.most, "most", 10_000, "the most Services with which kube-proxy's nftables mode is measured; 0: any number")
	fs.IntVar(&o.rounds, "rounds", 3, "how often each proxy is measured")
	fs.IntVar(&o.changes, "changes", 100, "the most changes of each kind in a round")
	fs.DurationVar(&o.slice, "slice", 500*time.Millisecond, "how long the data path of a proxy is measured at a time")
	fs.BoolVar(&o.profile, "profile", false, "write profiles of the proxies; that slows them down")
	fs.BoolVar(&o.quick, "quick", false, "one round, few changes: to try it out")
}

func (o *options) complete() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("it needs root: a ruleset of this size is not allowed in a user namespace")
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
		if !slices.Contains(parts, p) {
			return fmt.Errorf("-only: %q is none of %s", p, parts.String())
		}
	}
	return os.MkdirAll(o.out, 0o755)
}

func (o *options) measures(part string) bool { return slices.Contains(o.only, part) }

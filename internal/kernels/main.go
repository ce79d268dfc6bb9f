// Command kernels boots other kernels in an emulator and runs the demo and the kernel tests in them.
//
//	go run ./internal/kernels -kernels 5.10,7
//
// Only a kernel shows what that kernel does, and the machines that build nftproxy have one each. The command
// prints a table of kernels and what works on them, and exits 1 if something that should work does not.
//
// The kernels, nft and busybox are packages of Debian, whose signatures apt checks. They are downloaded and
// unpacked into .cache/kernels, never installed. A guest has no disk and no network: everything is in its
// initramfs. Its clock counts instructions instead of time, so that no test fails because the emulation is
// slow or the machine is busy.
//
// Start reading at run.kernel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// options are the command line.
type options struct {
	kernels, arch, mirror, steps string
	jobs                         int
	update                       bool
}

func main() {
	var o options
	flag.StringVar(&o.kernels, "kernels", "", "the `versions` of kernels, separated by commas (default all)")
	flag.StringVar(&o.arch, "arch", "amd64", "the architecture of the guests, amd64 or arm64")
	flag.StringVar(&o.mirror, "mirror", "", "the `URL` of a Debian mirror (default: that of this machine's apt)")
	flag.StringVar(&o.steps, "run", "", "the steps to run, as a regular `expression` (default all)")
	flag.IntVar(&o.jobs, "jobs", 1, "how many kernels run at the same time; each one needs a core and 2 GiB")
	flag.BoolVar(&o.update, "update", false, "write the table into docs/compatibility.md")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

// start runs the command in the module of the working directory.
func start(ctx context.Context, o options) error {
	module, err := os.Getwd()
	if err != nil {
		return err
	}
	if o.update && o.kernels+o.steps != "" {
		return errors.New("-update writes a table of all kernels and steps: omit -kernels and -run")
	}
	versions := strings.FieldsFunc(o.kernels, func(c rune) bool { return c == ',' })
	selected, err := choose(kernels(o.arch), versions)
	if err != nil {
		return err
	}
	pattern, err := regexp.Compile(o.steps)
	if err != nil {
		return err
	}
	r := &run{module: module, arch: o.arch, source: source{arch: o.arch, mirror: o.mirror}, jobs: o.jobs}
	r.source.dir = r.cache("apt")
	r.steps = slices.DeleteFunc(steps(nftSuites()), func(s step) bool { return !pattern.MatchString(s.title) })
	results, err := r.all(ctx, selected)
	if err != nil {
		return err
	}
	text := table(results)
	fmt.Print("\n", text)
	if o.update {
		if err := document(filepath.Join(module, "docs/compatibility.md"), text); err != nil {
			return err
		}
	}
	return verdict(results)
}

// verdict returns an error if something failed on a kernel.
func verdict(results []result) error {
	var err error
	for _, r := range results {
		for _, failure := range r.failures() {
			err = errors.Join(err, fmt.Errorf("kernel %s: %s", r.version, failure))
		}
	}
	return err
}

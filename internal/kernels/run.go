package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// kernel is a kernel to boot.
type kernel struct {
	prefix string // of its version
	suite  string // of Debian, that has it

	image, modules string // its files, once it is fetched
}

// kernels returns the kernels of an architecture, oldest first.
func kernels(arch string) []kernel {
	if arch == "arm64" {
		return []kernel{{prefix: "6.12", suite: "trixie"}}
	}
	return []kernel{
		{prefix: "5.10", suite: "bullseye"},
		{prefix: "6.1", suite: "bookworm"},
		{prefix: "6.12", suite: "trixie"},
		{prefix: "6.18", suite: "trixie-backports"},
		{prefix: "7", suite: "trixie-backports"},
	}
}

// choose returns the kernels with the prefixes; all without a prefix.
func choose(all []kernel, prefixes []string) ([]kernel, error) {
	if len(prefixes) == 0 {
		return all, nil
	}
	for _, p := range prefixes {
		if !slices.ContainsFunc(all, func(k kernel) bool { return k.prefix == p }) {
			return nil, fmt.Errorf("no kernel %s; there are %v", p, all)
		}
	}
	return slices.DeleteFunc(all, func(k kernel) bool { return !slices.Contains(prefixes, k.prefix) }), nil
}

func (k kernel) String() string { return k.prefix }

// nftSuites are the suites with the versions of nft to compare with, oldest first.
func nftSuites() []string { return []string{"bookworm", "trixie"} }

// limit is how long a guest may take on a busy machine.
const limit = time.Hour

// run is one run of the command.
type run struct {
	module string // its directory
	arch   string
	source source
	steps  []step
	jobs   int
}

// cache returns a path in the cache.
func (r *run) cache(name string) string {
	return filepath.Join(r.module, ".cache/kernels", r.arch, name)
}

// log returns the file with the output of a guest.
func (r *run) log(k kernel) string { return r.cache("logs/" + k.prefix + ".log") }

// all fetches and builds what the guests need, and boots the kernels, r.jobs of them at a time.
func (r *run) all(ctx context.Context, selected []kernel) ([]result, error) {
	if _, err := exec.LookPath(machines()[r.arch].command[0]); err != nil {
		return nil, fmt.Errorf("install an emulator, such as the package qemu-system-x86 or qemu-system-arm: %w",
			err)
	}
	if err := r.fetch(ctx, selected); err != nil {
		return nil, err
	}
	if err := r.build(ctx); err != nil {
		return nil, err
	}
	results := make([]result, len(selected))
	var running sync.WaitGroup
	slots := make(chan struct{}, max(r.jobs, 1))
	for i, k := range selected {
		slots <- struct{}{}
		running.Go(func() {
			results[i] = r.kernel(ctx, k)
			<-slots
		})
	}
	running.Wait()
	return results, ctx.Err()
}

// fetch fills the cache with what is downloaded.
func (r *run) fetch(ctx context.Context, selected []kernel) error {
	if err := os.MkdirAll(r.cache("logs"), 0o755); err != nil {
		return err
	}
	if err := r.fetched("busybox", func(root string) error {
		return r.source.closure(ctx, nftSuites()[0], "busybox-static", root)
	}); err != nil {
		return err
	}
	for _, suite := range nftSuites() {
		if err := r.fetched("nft-"+suite, func(root string) error {
			return r.source.closure(ctx, suite, "nftables", root)
		}); err != nil {
			return err
		}
	}
	for i := range selected {
		k := &selected[i]
		if err := r.fetched("linux-"+k.prefix, func(root string) error {
			return r.source.kernel(ctx, k.suite, k.prefix, root)
		}); err != nil {
			return err
		}
		if err := k.find(r.cache("linux-" + k.prefix)); err != nil {
			return err
		}
	}
	return nil
}

// find finds the files of an unpacked kernel. Newer suites have the modules below usr, and since Linux 7.0
// the kernel is next to them.
func (k *kernel) find(root string) error {
	for _, at := range []struct {
		path *string
		glob string
	}{
		{&k.modules, "lib/modules/*"}, {&k.modules, "usr/lib/modules/*"},
		{&k.image, "boot/vmlinuz-*"}, {&k.image, "usr/lib/modules/*/vmlinuz"},
	} {
		if found, err := filepath.Glob(filepath.Join(root, at.glob)); err != nil {
			return err
		} else if len(found) > 0 {
			*at.path = found[0]
		}
	}
	if k.image == "" || k.modules == "" {
		return fmt.Errorf("no kernel with modules in %s", root)
	}
	return nil
}

// fetched fills a directory of the cache once.
func (r *run) fetched(name string, fill func(root string) error) error {
	root := r.cache(name)
	if _, err := os.Stat(root); err == nil {
		return nil
	}
	// The directory gets its name when it is complete, so that the check above never finds half of one.
	partial := root + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := fill(partial); err != nil {
		return fmt.Errorf("fetch %s: %w", name, err)
	}
	return os.Rename(partial, root)
}

// kernel boots a kernel, runs the steps in it, and prints how it went.
func (r *run) kernel(ctx context.Context, k kernel) result {
	begin := time.Now()
	initramfs := r.cache("logs/" + k.prefix + ".cpio")
	output, err := "", r.image(initramfs, k)
	if err == nil {
		output, err = r.boot(ctx, k, initramfs)
	}
	if errRemove := os.Remove(initramfs); err == nil {
		err = errRemove
	}
	result := parse(output, r.steps)
	result.err = err
	fmt.Printf("Linux %s: %s; the output is in %s\n", result.version, time.Since(begin).Round(time.Second),
		r.log(k))
	return result
}

// build builds nftproxy, the demo and the tests for the guest.
func (r *run) build(ctx context.Context) error {
	const small = "-ldflags=-s -w"
	commands := [][]string{
		{"build", "-trimpath", small, "-o", r.cache("bin/nftproxy"), "./cmd/nftproxy"},
		{"build", "-trimpath", small, "-o", r.cache("bin/demo"), "./internal/demo"},
	}
	for _, pkg := range testPackages() {
		commands = append(commands, []string{"test", "-c", small, "-o", r.cache(testBinary(pkg)), "./" + pkg})
	}
	for _, args := range commands {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = r.module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+r.arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

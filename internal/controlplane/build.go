package controlplane

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Build returns the path of the binary with etcd and kube-apiserver. It caches the binary in
// .cache/controlplane of the main module and builds it after a change of its sources in
// testdata/controlplane. A build takes minutes; the first one also downloads modules. Several processes can
// call Build at the same time.
func Build(ctx context.Context) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", fmt.Errorf("build control plane: %w", err)
	}
	source := filepath.Join(root, "testdata", "controlplane")
	version, err := sourceVersion(source)
	if err != nil {
		return "", fmt.Errorf("build control plane: %w", err)
	}
	cache := filepath.Join(root, ".cache", "controlplane")
	binary := filepath.Join(cache, version, "controlplane")
	unlock, err := lock(cache)
	if err != nil {
		return "", fmt.Errorf("build control plane: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	// The binary gets its name when it is complete, so that the check above never finds half of one.
	partial := binary + ".partial"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w",
		"-o", partial, ".")
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build control plane: %w\n%s", err, out)
	}
	if err := os.Rename(partial, binary); err != nil {
		return "", fmt.Errorf("build control plane: %w", err)
	}
	return binary, nil
}

// moduleRoot returns the directory of the main module.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.mod" {
		return "", fmt.Errorf("find module: the working directory is outside of a module")
	}
	return filepath.Dir(file), nil
}

// sourceVersion returns a hash of the sources in dir, the Go release and the architecture.
func sourceVersion(dir string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, name, len(data))
		h.Write(data)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// lock creates the directory and waits until no other process builds into it.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return func() { _ = file.Close() }, nil
}

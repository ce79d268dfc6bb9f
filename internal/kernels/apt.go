package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// keyring has the keys that Debian signs its lists of packages with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// source is Debian's packages for an architecture. Each suite has an apt of its own, with its lists and its
// configuration in a directory below dir: this machine's apt knows nothing of it and never installs from it.
type source struct {
	dir, arch string
	mirror    string // empty: that of this machine
	updated   []string
}

// run runs a command of apt in dir, with the configuration of a suite.
func (s *source) run(ctx context.Context, suite, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(s.dir, suite, "apt.conf"), "LC_ALL=C")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

// update fetches the lists of a suite, once. apt checks their signature, and all packages against the lists.
func (s *source) update(ctx context.Context, suite string) error {
	if slices.Contains(s.updated, suite) {
		return nil
	}
	for _, program := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("this command needs the package manager of Debian or Ubuntu: %w", err)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return fmt.Errorf("install the package debian-archive-keyring, to check what is downloaded: %w", err)
	}
	if s.mirror == "" {
		s.mirror = machineMirror(ctx)
	}
	dir := filepath.Join(s.dir, suite)
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"apt.conf":     fmt.Sprintf(aptConfig, dir, s.arch),
		"sources.list": s.list(suite),
		"status":       "", // no package is installed
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := s.run(ctx, suite, dir, "apt-get", "update", "-q", "--error-on=any"); err != nil {
		return fmt.Errorf("download the lists of %s from %s; this needs the network, and -mirror names another "+
			"mirror: %w", suite, s.mirror, err)
	}
	s.updated = append(s.updated, suite)
	return nil
}

// list returns the lines of sources.list for the suite and, if it has them, its security updates.
func (s *source) list(suite string) string {
	text := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, s.mirror, suite)
	if !strings.HasSuffix(suite, "-backports") {
		text += fmt.Sprintf("deb [signed-by=%s] %s-security %s-security main\n", keyring, s.mirror, suite)
	}
	return text
}

// aptConfig takes the directory and the architecture.
const aptConfig = `Dir "%[1]s";
Dir::Etc "%[1]s/etc";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "%[1]s";
Dir::State::lists "%[1]s/lists";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
APT::Architecture "%[2]s";
APT::Architectures { "%[2]s"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
`

// machineMirror returns the mirror of Debian that this machine's apt uses.
func machineMirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(SITE)",
		"Identifier: Packages").Output()
	if err == nil {
		for line := range strings.Lines(string(out)) {
			if site, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian Debian "); ok {
				return site
			}
		}
	}
	return "http://deb.debian.org/debian"
}

// kernel unpacks the newest cloud kernel of a suite whose version starts with the prefix, and its modules,
// into root.
func (s *source) kernel(ctx context.Context, suite, prefix, root string) error {
	if err := s.update(ctx, suite); err != nil {
		return err
	}
	names, err := s.run(ctx, suite, s.dir, "apt-cache", "pkgnames", "linux-")
	if err != nil {
		return err
	}
	pattern := regexp.MustCompile(`^linux-image-` + regexp.QuoteMeta(prefix) + `[.+-].*-cloud-` + s.arch + `$`)
	all := strings.Fields(names)
	images := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !pattern.MatchString(name) })
	if len(images) == 0 {
		return fmt.Errorf("%s has no package linux-image-%s*-cloud-%s", suite, prefix, s.arch)
	}
	release := strings.TrimPrefix(slices.MaxFunc(images, compareVersions), "linux-image-")
	args := []string{"download"}
	// Since Linux 7.0 the kernel and its modules are packages of their own.
	for _, kind := range []string{"image", "binary", "modules"} {
		if name := "linux-" + kind + "-" + release; slices.Contains(all, name) {
			args = append(args, name)
		}
	}
	return s.unpack(ctx, suite, root, args...)
}

// closure unpacks a package with everything that it depends on into root.
func (s *source) closure(ctx context.Context, suite, name, root string) error {
	if err := s.update(ctx, suite); err != nil {
		return err
	}
	return s.unpack(ctx, suite, root, "install", "--download-only", "--no-install-recommends", "-y",
		"-o", "Dir::Cache::archives="+debs(root), name)
}

// debs returns the directory of the packages that are unpacked into root.
func debs(root string) string { return root + ".debs" }

// unpack runs apt-get, which puts packages into a new directory, and unpacks them into root.
func (s *source) unpack(ctx context.Context, suite, root string, args ...string) error {
	dir := debs(root)
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := s.run(ctx, suite, dir, "apt-get", append([]string{"-q"}, args...)...); err != nil {
		return fmt.Errorf("download from %s, which needs the network: %w", s.mirror, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, err := s.run(ctx, suite, dir, "dpkg-deb", "--extract", file, root); err != nil {
			return err
		}
	}
	return nil
}

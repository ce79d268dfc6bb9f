// Package configtest makes configurations for tests, as the command makes them from its flags.
//
// Start reading at [Case].
package configtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/nftproxy/nftproxy/proxier/config"
)

// Parse returns the configuration of flags.
func Parse(t testing.TB, args ...string) *config.Config {
	t.Helper()
	options, flags := config.NewOptions(), pflag.NewFlagSet("test", pflag.ContinueOnError)
	options.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	c, _, err := options.Complete()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Case returns the configuration of a golden case for its manifests and the node node-a: its config.yaml and
// the flags in its file flags. Without both it is that of a cluster with pod ranges of both families.
func Case(t testing.TB, dir, manifests string) *config.Config {
	t.Helper()
	args := []string{"--source=" + manifests, "--hostname-override=node-a"}
	file := filepath.Join(dir, "config.yaml")
	_, noFile := os.Stat(file)
	flags, noFlags := os.ReadFile(filepath.Join(dir, "flags"))
	switch {
	case noFile == nil:
		args = append(args, "--config="+file)
	case errors.Is(noFlags, fs.ErrNotExist):
		args = append(args, "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56")
	}
	return Parse(t, append(args, strings.Fields(string(flags))...)...)
}

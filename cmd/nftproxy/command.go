package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/source"
)

const long = `nftproxy programs nftables so that connections to Kubernetes Services reach their
endpoints, in place of kube-proxy and from kube-proxy's own flags and configuration.

With --source it takes the objects from manifests on disk:

  nftproxy --source DIR --hostname-override NODE --dry-run   print the ruleset
  nftproxy --source DIR --hostname-override NODE             program and follow it`

func newCommand() *cobra.Command {
	options := config.NewOptions()
	root := &cobra.Command{
		Use:           "nftproxy",
		Short:         "A replacement for kube-proxy on nftables",
		Long:          long,
		Version:       version(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd, options) },
	}
	root.SetGlobalNormalizationFunc(cliflag.WordSepNormalizeFunc)
	setHelp(root, options.AddFlags(root.PersistentFlags()))
	completeValues(root)
	root.AddCommand(newDiffCommand(options), newCheckCommand(options), newCleanupCommand())
	return root
}

// gcPercent has the garbage collector run twice as often as it would: there is little garbage, so that this
// costs next to nothing, and every node has a quarter of the daemon's memory for something else.
const gcPercent = 50

// run is the daemon, or what a flag makes of it.
func run(cmd *cobra.Command, options *config.Options) error {
	c, err := complete(options)
	if err != nil {
		return err
	}
	switch {
	case c.WriteConfigTo != "":
		return c.Write(c.WriteConfigTo)
	case c.Cleanup:
		return cleanup(cmd)
	case c.DryRun && c.Source == "":
		return errors.New("--dry-run needs --source: a file or directory of manifests")
	case c.DryRun:
		return proxier.Render(c, cmd.OutOrStdout(), proxier.LogProblem)
	}
	o := proxier.Options{Config: c}
	if c.Source == "" {
		if o.Client, err = client(c); err != nil {
			return err
		}
	}
	p, err := proxier.New(o)
	if err != nil {
		return err
	}
	if c.InitOnly {
		p.SetUp()
		return nil
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	klog.InfoS("Starting", "version", version(), "source", cmp.Or(c.Source, "the API server"))
	return p.Run(cmd.Context())
}

// client returns a client for the API server that is configured.
func client(c *config.Config) (*source.Client, error) {
	k := c.Kube.ClientConnection
	return source.NewClient(source.ClientConfig{
		Kubeconfig: k.Kubeconfig, Master: c.Master, QPS: k.QPS, Burst: int(k.Burst),
		ContentType: k.ContentType, AcceptContentTypes: k.AcceptContentTypes,
	})
}

func newDiffCommand(options *config.Options) *cobra.Command {
	return &cobra.Command{
		Use:   "diff",
		Short: "Print what would be changed in the kernel, and exit 1 if that is not nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := complete(options)
			if err != nil {
				return err
			}
			if c.Source == "" {
				return errors.New("--source is required: a file or directory of manifests")
			}
			changed, err := proxier.Diff(c, cmd.OutOrStdout(), proxier.LogProblem)
			if err == nil && changed {
				return exitCode(1)
			}
			return err
		},
	}
}

func newCleanupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove nftproxy's tables from the kernel",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cleanup(cmd) },
	}
}

func cleanup(cmd *cobra.Command) error {
	found, err := proxier.Cleanup()
	for _, f := range found {
		fmt.Fprintf(cmd.OutOrStdout(), "table %s nftproxy removed\n", f)
	}
	if err == nil && len(found) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
	}
	return err
}

// complete makes the Config and sets logging up as it says.
func complete(options *config.Options) (*config.Config, error) {
	c, warnings, err := options.Complete()
	if err != nil {
		return nil, err
	}
	logs.InitLogs()
	if err := logsapi.ValidateAndApply(&c.Kube.Logging, c.LogFeatures()); err != nil {
		return nil, fmt.Errorf("set up logging: %w", err)
	}
	for _, w := range warnings {
		klog.InfoS("Configuration", "warning", w)
	}
	return c, nil
}

// release is the version that an image is built as: the linker sets it (-X), where Go
// records none because the build is to be reproducible.
var release string

// version is the version of the module: that of the release, or as Go recorded it in
// the binary.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/config"
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

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
endpoints. It replaces kube-proxy and takes kube-proxy's flags and configuration file.

With --source it reads the objects from manifests on disk:

  nftproxy --source DIR --hostname-override NODE --dry-run   print the ruleset
  nftproxy --source DIR --hostname-override NODE             program it, and follow DIR`

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
	root.AddCommand(newDiffCommand(options), newCheckCommand(options), newExplainCommand(options),
		newTopCommand(), newCleanupCommand(), newSupportCommand(options), newWaitCommand())
	return root
}

// complete returns the Config, after it has set up logging and logged the warnings.
func complete(options *config.Options) (*config.Config, error) { return completeWith(options, nil) }

// completeWith is complete with other streams for the log.
func completeWith(options *config.Options, streams *logsapi.LoggingOptions) (*config.Config, error) {
	c, warnings, err := options.Complete()
	if err != nil {
		return nil, err
	}
	logs.InitLogs()
	if err := logsapi.ValidateAndApplyWithOptions(&c.Kube.Logging, streams, c.Features()); err != nil {
		return nil, fmt.Errorf("set up logging: %w", err)
	}
	for _, w := range warnings {
		klog.InfoS("Configuration warning", "warning", w)
	}
	return c, nil
}

// release is the version of an image. The linker sets it (-X), because Go does not record a version in a
// reproducible build.
var release string

// version returns the release, or the version of the module that Go recorded in the binary.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/check"
	"github.com/nftproxy/nftproxy/proxier/config"
)

const checkLong = `check reports whether this node is ready for nftproxy: which kernel features are
missing, which other programs have rules and whether that matters, and how the
configuration applies to this node. It changes nothing, and can run while nftproxy runs.

It exits with 0 if the node is ready, with 1 if there is a problem to fix first, and
with 2 if the check itself failed.`

func newCheckCommand(options *config.Options) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Report whether this node is ready for nftproxy, and exit 1 if it is not",
		Long:  checkLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write := check.WriteText
			switch output {
			case "text":
			case "json":
				write = check.WriteJSON
			default:
				return fmt.Errorf("-o %s: must be text or json", output)
			}
			c, err := complete(options)
			if err != nil {
				return err
			}
			findings, err := check.Node(cmd.Context(), c, nil, nodesIfAny(c))
			if err != nil {
				return err
			}
			if err := write(cmd.OutOrStdout(), findings); err != nil {
				return err
			}
			if !check.Fit(findings) {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "Format of the report: text or json.")
	return cmd
}

// nodesIfAny returns a function that gets Nodes from the API server, or nil if no API server is configured:
// the check works without it.
func nodesIfAny(c *config.Config) check.NodeFunc {
	if c.Source != "" {
		return nil
	}
	api, err := client(c)
	if err != nil {
		klog.V(2).InfoS("Checking without an API server", "err", err)
		return nil
	}
	return api.Node
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/preflight"
)

const checkLong = `check looks at this node and says what nftproxy will find: what the kernel has and
lacks, who else has rules and whether that matters, and what the configuration makes
of it. It changes nothing, and may be run while nftproxy runs.

It exits with 0 if all is well, 1 if there is a problem that must be put right, and
2 if it could not find out.`

func newCheckCommand(options *config.Options) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this node is fit for nftproxy, and exit 1 if not",
		Long:  checkLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write := preflight.WriteText
			switch output {
			case "text":
			case "json":
				write = preflight.WriteJSON
			default:
				return fmt.Errorf("-o %s: must be text or json", output)
			}
			c, err := complete(options)
			if err != nil {
				return err
			}
			findings, err := proxier.Check(cmd.Context(), c, nodesIfAny(c))
			if err != nil {
				return err
			}
			if err := write(cmd.OutOrStdout(), findings); err != nil {
				return err
			}
			if !preflight.Fit(findings) {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "Form of the report: text or json.")
	return cmd
}

// nodesIfAny returns what asks the API server for Nodes, or nil if none is configured:
// a node can be looked at without.
func nodesIfAny(c *config.Config) proxier.NodeFunc {
	if c.Source != "" {
		return nil
	}
	api, err := client(c)
	if err != nil {
		klog.V(2).InfoS("No API server is asked", "reason", err)
		return nil
	}
	return api.Node
}

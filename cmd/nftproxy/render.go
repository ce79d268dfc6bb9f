package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/desired"
)

// render prints the ruleset of the manifests for our node, as an nft script (--dry-run). It does not access
// the kernel and needs no privileges.
func render(cmd *cobra.Command, c *config.Config) error {
	build, err := desired.FromManifests(c, nil, desired.LogProblem)
	if err != nil {
		return err
	}
	if err := build(nil).WriteText(cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("write ruleset: %w", err)
	}
	return nil
}

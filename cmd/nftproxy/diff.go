package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules/service"
)

func newDiffCommand(options *config.Options) *cobra.Command {
	return &cobra.Command{
		Use:   "diff",
		Short: "Print the changes that a sync would make, and exit 1 if there are changes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := complete(options)
			if err != nil {
				return err
			}
			if c.Source == "" {
				return errors.New("--source is required: a file or directory of manifests")
			}
			return diff(cmd, c)
		},
	}
}

// diff prints the changes that the daemon would make in the kernel for the manifests of c.Source, as nft
// commands.
func diff(cmd *cobra.Command, c *config.Config) error {
	conn, err := kernel.Dial(kernel.Options{Own: c.OwnTables})
	if err != nil {
		return err
	}
	defer conn.Close()
	addrs, err := host.Addrs()
	if err != nil {
		return err
	}
	build, err := desired.FromManifests(c, addrs, desired.LogProblem)
	if err != nil {
		return err
	}
	d, err := conn.Diff(service.Families(), build)
	if err != nil {
		return err
	}
	if err := d.WriteText(cmd.OutOrStdout()); err != nil {
		return fmt.Errorf("write difference: %w", err)
	}
	if !d.Empty() {
		return exitCode(1)
	}
	return nil
}

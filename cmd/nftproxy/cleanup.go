package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/proxier/trace"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

func newCleanupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove nftproxy's tables from the kernel",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cleanup(cmd) },
	}
}

// cleanup removes nftproxy's tables, and what a trace left that was killed on a kernel before Linux 5.12.
// Connections that are already translated continue. A kernel without nftables has nothing to remove.
func cleanup(cmd *cobra.Command) error {
	found, err := removeTables()
	var traces []service.Family
	if err == nil {
		traces, err = trace.Cleanup()
	}
	if errors.Is(err, netlink.ErrAbsent) {
		err = nil
	}
	for _, f := range found {
		fmt.Fprintf(cmd.OutOrStdout(), "removed table %s %s\n", f, nftables.TableName)
	}
	for _, f := range traces {
		fmt.Fprintf(cmd.OutOrStdout(), "removed table %s %s\n", f, trace.TableName)
	}
	if err == nil && len(found)+len(traces) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
	}
	return err
}

func removeTables() (found []service.Family, err error) {
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Cleanup(service.Families())
}

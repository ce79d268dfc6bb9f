package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	cliflag "k8s.io/component-base/cli/flag"
)

// setHelp has the help of root show its flags in groups. The help of a subcommand shows
// those that only it has: with root's, they could not be found.
func setHelp(root *cobra.Command, groups cliflag.NamedFlagSets) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		width := 0
		if size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil { // it is a terminal
			width = int(size.Col)
		}
		writeHelp(cmd.OutOrStdout(), cmd, groups, width)
	})
}

// writeHelp writes the help of a command, in lines of no more than width; 0 does not
// wrap them.
func writeHelp(out io.Writer, cmd *cobra.Command, groups cliflag.NamedFlagSets, width int) {
	about := cmp.Or(strings.TrimSpace(cmd.Long), cmd.Short+".")
	fmt.Fprintf(out, "%s\n\nUsage:\n  %s\n", about, cmd.UseLine())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprint(out, "\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(out, "  %-*s  %s\n", c.NamePadding(), c.Name(), c.Short)
			}
		}
	}
	var sections cliflag.NamedFlagSets
	sections.FlagSet(cmd.Name()).AddFlagSet(cmd.LocalNonPersistentFlags())
	if !cmd.HasParent() {
		for _, name := range groups.Order {
			sections.FlagSet(name).AddFlagSet(groups.FlagSets[name])
		}
	}
	cliflag.PrintSections(out, sections, width)
	if cmd.HasParent() {
		fmt.Fprintf(out, "\nThe flags of %s are taken, too: see %s --help.\n", cmd.Root().Name(), cmd.Root().Name())
	}
}

// completeValues has shells complete values that are one of a few.
func completeValues(root *cobra.Command) {
	modes := cobra.FixedCompletions([]string{"ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"}, cobra.ShellCompDirectiveNoFileComp)
	_ = root.RegisterFlagCompletionFunc("detect-local-mode", modes) // fails only for a flag that is not there
}

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

	"github.com/nftproxy/nftproxy/proxier/config"
)

// setHelp makes the help of root show its flags in groups. The help of a subcommand shows only the flags that
// root does not have: among those of root, they would be hard to find.
func setHelp(root *cobra.Command, groups cliflag.NamedFlagSets) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		width := 0
		// This fails if stdout is not a terminal.
		if size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil {
			width = int(size.Col)
		}
		writeHelp(cmd.OutOrStdout(), cmd, groups, width)
	})
}

// writeHelp writes the help of a command in lines of at most width columns; 0 does not wrap them.
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
		fmt.Fprintf(out, "\nThe flags of %[1]s apply as well: see %[1]s --help.\n", cmd.Root().Name())
	}
}

// completeValues makes shells complete the values of flags with a fixed set of values.
func completeValues(root *cobra.Command) {
	var modes []string
	for _, mode := range config.LocalModes() {
		modes = append(modes, string(mode))
	}
	complete := cobra.FixedCompletions(modes, cobra.ShellCompDirectiveNoFileComp)
	// This fails only for a flag that does not exist.
	_ = root.RegisterFlagCompletionFunc("detect-local-mode", complete)
}

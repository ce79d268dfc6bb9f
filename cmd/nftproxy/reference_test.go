package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nftproxy/nftproxy/proxier/config"
)

var update = flag.Bool("update", false, "rewrite the reference")

const (
	reference = "../../docs/nftproxy.md"
	columns   = 100
)

// TestReference checks that the reference has the help of the commands; -update writes it.
func TestReference(t *testing.T) {
	want := makeReference()
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is out of date, run make docs (-want +got):\n%s", reference, diff)
	}
}

// makeReference returns the help of nftproxy and each of its subcommands as a page.
func makeReference() string {
	root := newCommand()
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	groups := config.NewOptions().AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	padding := regexp.MustCompile(` +\n`)
	var page strings.Builder
	page.WriteString(`# Commands and flags

On this page you can look up every command and flag: it has the output of ` + "`nftproxy --help`" + ` and of
the help of each command. ` + "`make docs`" + ` generates it. [configuration.md](configuration.md) relates the flags to
the fields of the configuration file.
`)
	for _, cmd := range append([]*cobra.Command{root}, root.Commands()...) {
		if cmd != root && !cmd.IsAvailableCommand() {
			continue
		}
		cmd.InitDefaultHelpFlag()
		var help bytes.Buffer
		writeHelp(&help, cmd, groups, columns)
		text := padding.ReplaceAllString(help.String(), "\n")
		fmt.Fprintf(&page, "\n## %s\n\n```\n%s```\n", cmd.CommandPath(), text)
	}
	return page.String()
}

func TestHelpGroupsFlags(t *testing.T) {
	for _, line := range []string{"Usage:", "Commands:",
		"General flags:", "API server flags:", "Rules flags:", "Logs flags:"} {
		if !strings.Contains(output(t, "--help"), "\n"+line+"\n") {
			t.Errorf("the help has no %q", line)
		}
	}
	if help := output(t, "diff", "--help"); strings.Contains(help, "--kubeconfig") {
		t.Errorf("the help of diff has root's flags:\n%s", help)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if !strings.Contains(output(t, "completion", shell), "nftproxy") {
			t.Errorf("the completion for %s does not mention nftproxy", shell)
		}
	}
	for _, c := range []struct{ typed, want string }{
		{"cl", "cleanup"}, {"--detect-l", "--detect-local-mode"}, {"--detect-local-mode=", "NodeCIDR"},
	} {
		if got := output(t, cobra.ShellCompNoDescRequestCmd, c.typed); !strings.Contains(got, c.want+"\n") {
			t.Errorf("completion of %s: got %q, want %s", c.typed, got, c.want)
		}
	}
}

// output returns what nftproxy prints.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		t.Fatalf("nftproxy %s: %v", strings.Join(args, " "), err)
	}
	return out.String()
}

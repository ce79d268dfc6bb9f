package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier/check"
	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/socket"
	"github.com/nftproxy/nftproxy/proxier/support"
	"github.com/nftproxy/nftproxy/rules/service"
)

const supportLong = `support-bundle writes one tar.gz with what a maintainer asks for: versions, the report of
check, the configuration, the objects, the difference between what nftproxy wants and
the kernel has, both tables, metrics, health, the last 1,000 lines of the log, goroutines, and the
network of the node. index.txt in it says what each file is, and what could not be read.

It asks the nftproxy that runs on this node: as root, on the node or in the pod:

  kubectl -n kube-system exec POD -- nftproxy support-bundle --output - > bundle.tar.gz

If none answers, it collects what it can. There are no credentials in it, but the names
and addresses of Services, endpoints, and clients with session affinity.`

func newSupportCommand(options *config.Options) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Write an archive with what a maintainer asks for",
		Long:  supportLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := complete(options)
			if err != nil {
				return err
			}
			return writeBundle(cmd, c, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "",
		"File to write, - for stdout. By default nftproxy-NODE-TIME.tar.gz in the working directory.")
	return cmd
}

// writeBundle writes the archive, and says on stderr how large it is and what is missing.
func writeBundle(cmd *cobra.Command, c *config.Config, output string) (err error) {
	node, err := c.NodeName()
	if err != nil {
		node = "unknown"
	}
	name := fmt.Sprintf("nftproxy-%s-%s", node, time.Now().UTC().Format("20060102T150405Z"))
	to, where := cmd.OutOrStdout(), "stdout"
	if output != "-" {
		where = cmp.Or(output, name+".tar.gz")
		file, openErr := os.OpenFile(where, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if openErr != nil {
			return fmt.Errorf("%w: choose a file with --output FILE, or stdout with --output -", openErr)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		to = file
	}
	counted := &counter{to: to}
	results, err := support.Write(cmd.Context(), counted, name, bundleParts(c, node))
	if err != nil {
		return fmt.Errorf("write %s: %w", where, err)
	}
	report(cmd.ErrOrStderr(), where, counted.n, results)
	return nil
}

// report says what was written, and what is missing: once, if it is the same for all that is.
func report(w io.Writer, where string, size int64, results []support.Result) {
	var unpacked int64
	silent := 0
	for _, r := range results {
		unpacked += r.Size
		switch {
		case errors.Is(r.Err, socket.ErrNoDaemon):
			if silent++; silent == 1 {
				fmt.Fprintf(w, "no nftproxy answers in this network namespace: %v\n", r.Err)
			}
		case r.Err != nil:
			fmt.Fprintf(w, "%s is not complete: %v\n", r.Name, r.Err)
		}
	}
	fmt.Fprintf(w, "wrote %s, %s: %d files of %s, index.txt says what they are\n",
		where, kB(size), len(results)+1, kB(unpacked))
}

func kB(bytes int64) string { return fmt.Sprintf("%d kB", (bytes+999)/1000) }

// counter counts what is written.
type counter struct {
	to io.Writer
	n  int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	return n, err
}

// bundleParts returns the files of the archive. What the daemon does not answer, and can be known without it,
// is read here.
func bundleParts(c *config.Config, node string) []support.Part {
	parts := support.NodeParts(version(), node)
	page := func(name, about, path string) {
		parts = append(parts, support.Part{Name: name, About: about,
			Write: func(ctx context.Context, w io.Writer) error { return support.Fetch(ctx, w, path) }})
	}
	either := func(name, about, path string, alone func(context.Context, io.Writer) error) {
		parts = append(parts, support.Part{Name: name, About: about,
			Write: func(ctx context.Context, w io.Writer) error {
				err := support.Fetch(ctx, w, path)
				if errors.Is(err, socket.ErrNoDaemon) {
					return alone(ctx, w)
				}
				return err
			}})
	}
	either("check.txt", "the report of nftproxy check", "/check",
		func(ctx context.Context, w io.Writer) error { return writeCheck(ctx, w, c) })
	for _, f := range service.Families() {
		either("table-"+f.String()+".nft", "the table in the kernel", "/table/"+f.String(),
			func(_ context.Context, w io.Writer) error { return writeTable(w, f) })
	}
	page("objects.json", "Services, EndpointSlices, ServiceCIDRs and the Node, as far as the rules need them",
		"/objects")
	page("diff.nft", "what a full sync would have changed", "/diff")
	page("configz.json", "the configuration in effect", "/configz")
	page("flagz.txt", "the flags of the daemon", "/flagz")
	page("statusz.txt", "the version of the daemon, and since when it runs", "/statusz")
	page("healthz.json", "whether it keeps up with changes", "/healthz")
	page("livez.json", "whether it should be restarted", "/livez")
	page("metrics.txt", "its metrics", "/metrics")
	page("log.txt", "the last 1,000 lines of its log", "/log")
	page("goroutines.txt", "what its goroutines do", "/goroutines")
	return parts
}

// writeCheck writes the report with the flags of this command.
func writeCheck(ctx context.Context, w io.Writer, c *config.Config) error {
	findings, err := check.Node(ctx, c, nil, nodesIfAny(c))
	if err != nil {
		return err
	}
	return check.WriteText(w, findings)
}

// writeTable writes a table, whose rules nobody knows without the daemon.
func writeTable(w io.Writer, f service.Family) error {
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.WriteTable(w, f, nil)
}

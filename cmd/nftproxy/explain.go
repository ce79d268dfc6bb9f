package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/explain"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/proxier/socket"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/rules/service"
)

const explainLong = `explain answers why a connection to a Service goes where it goes on this node. TARGET is
namespace/name[:port], IP:port[/protocol] or a nodePort[/protocol]. The first line is
the frontend and its Service, the last one the verdict, and each line between is a
decision with its reason.

With --source it reads manifests, and needs no privilege. Otherwise it asks the nftproxy
that runs on this node, which also reads the kernel: as root, on the node or in the pod
of nftproxy with kubectl exec. If none answers, it reads the kernel and, once, the objects
from the API server that the flags and the configuration file name; or the kernel alone,
if that does not answer.

With --probe it also sends a SYN, a datagram (a DNS query to port 53) or an INIT of SCTP
from this node, and the line before the verdict says what came back and which endpoint got
it. It says so if that contradicts the verdict, and exits with the code of the verdict.

With --live 10s it also traces real packets through the rules of all programs, and names
the rule that drops them: those of the client if --from is an address, of this node with
--from node, otherwise of all. They follow the verdict, and the last line sums them up.

It exits with 0 if the connection reaches an endpoint, with 1 if it is refused or
dropped, with 2 if the kernel differs from what nftproxy wants, and with 3 if nftproxy
does not decide where the connection goes, or it is not known.`

// unknown is an error that ends the process with the code for a question without an answer.
type unknown struct{ error }

func (u unknown) Unwrap() []error { return []error{u.error, exitCode(3)} }

func newExplainCommand(options *config.Options) *cobra.Command {
	var q explain.Question
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain TARGET",
		Short: "Explain why a connection to a Service goes where it goes on this node",
		Long:  explainLong,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return unknown{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Target = args[0]
			if o.probe && !cmd.Flags().Changed("from") {
				q.From = "node" // who sends the probe
			}
			code, err := printAnswer(cmd, options, q, o)
			if err != nil {
				return unknown{err}
			}
			if code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	// The code of other errors, 2, means here that the kernel differs.
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return unknown{err} })
	cmd.Flags().StringVar(&q.From, "from", "pod",
		"Who connects: an IP address, or pod, node or outside for an example of each. With --probe node is "+
			"the default.")
	cmd.Flags().BoolVar(&o.probe, "probe", false,
		"Also send the first packet of a real connection from this node, and tell what comes back within 3s.")
	cmd.Flags().DurationVar(&o.live, "live", 0, "Also trace packets to the frontend through the rules of all "+
		"programs for so long, at most 10 a second, and name the rule that drops them. With --probe only those "+
		"of the probe, until it ends.")
	cmd.Flags().StringVarP(&o.format, "output", "o", "text", "Format of the answer: text or json.")
	return cmd
}

// printAnswer answers a question, and returns the exit code.
func printAnswer(cmd *cobra.Command, options *config.Options, q explain.Question, o explainOptions) (
	int, error) {
	if o.format != "text" && o.format != "json" {
		return 0, fmt.Errorf("-o %s: must be text or json", o.format)
	}
	c, err := complete(options)
	if err != nil {
		return 0, err
	}
	if err := o.check(c); err != nil {
		return 0, err
	}
	report, err := answer(cmd.Context(), c, q)
	if err != nil {
		return 0, err
	}
	if from, ok := report.ProbeSource(q); ok && o.probe {
		q.From = from.String()
		if report, err = answer(cmd.Context(), c, q); err != nil {
			return 0, err
		}
	}
	if err := o.try(cmd, report, q); err != nil {
		return 0, err
	}
	if o.format == "json" {
		return report.ExitCode(), report.WriteJSON(cmd.OutOrStdout())
	}
	return report.ExitCode(), nil
}

// answer answers a question from the manifests of c.Source, from the daemon, or from the kernel alone.
func answer(ctx context.Context, c *config.Config, q explain.Question) (*explain.Report, error) {
	if c.Source != "" {
		return answerFromManifests(c, q)
	}
	report, err := explain.Ask(ctx, q)
	if !errors.Is(err, socket.ErrNoDaemon) {
		return report, err
	}
	return answerAlone(ctx, c, q, err)
}

func answerFromManifests(c *config.Config, q explain.Question) (*explain.Report, error) {
	b, e, err := desired.NewManifestBuilder(c, nil, func(error) {}) // the answer has the problems that matter
	if err != nil {
		return nil, err
	}
	b.Rebuild(e, nil)
	wanted, err := explain.Collect(b, b.State().Node().Addrs, q)
	if err != nil {
		return nil, err
	}
	return explain.Explain(wanted, q, nil)
}

// answerAlone answers a question when there is no daemon to ask, for the given reason: from what the API
// server and the kernel have, or from the kernel alone.
func answerAlone(ctx context.Context, c *config.Config, q explain.Question, why error) (
	*explain.Report, error) {
	lacks, err := lacking()
	if err != nil {
		return nil, err
	}
	if len(lacks) > 0 {
		return explain.Unable(q, lacks, why)
	}
	name, err := c.NodeName()
	if err != nil {
		return nil, err
	}
	addrs, err := host.Addrs()
	if err != nil {
		return nil, err
	}
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	e := desired.NewEnvironment(c, name, state.New(name), service.Families(), addrs)
	// The flags of the daemon are not known either.
	inquiry := kernel.NewInquiry(conn, e.Config.Variants()...)
	programmed, err := inquiry.PodCIDRs(e.Config.Families...)
	if err != nil {
		return nil, err
	}
	wanted, unread := readWanted(ctx, c, addrs, programmed, inquiry, q)
	if unread != nil {
		if pods := &e.Config.PodTraffic; pods.Interface == "" && len(pods.CIDRs) == 0 {
			pods.CIDRs = programmed
		}
		wanted = &explain.Wanted{Environment: e, HostAddrs: addrs, Unread: unread}
	}
	wanted.Alone, wanted.Host = why, explain.ReadHost(e.Config.MasqueradeMark)
	wanted.Traffic = explain.NewTraffic(ctx, inquiry.Counted)
	if unread != nil {
		return explain.Alone(inquiry, *wanted, q)
	}
	return explain.Explain(wanted, q, inquiry)
}

// readWanted reads from the API server what is wanted.
func readWanted(ctx context.Context, c *config.Config, addrs []netip.Addr, pods []netip.Prefix,
	inquiry *kernel.Inquiry, q explain.Question) (*explain.Wanted, error) {
	api, err := client(c)
	if err != nil {
		return nil, err
	}
	var failed error
	held := inquiry.Slots(func(err error) { failed = errors.Join(failed, err) })
	wanted, err := explain.Read(ctx, api, c, addrs, pods, held, q)
	return wanted, errors.Join(err, failed)
}

// lacking returns what the rules need and the kernel lacks. It may lack IPv6 as a whole.
func lacking() (lacks []string, err error) {
	missing, err := kernel.Probe()
	if errors.Is(err, netlink.ErrAbsent) {
		return []string{err.Error()}, nil
	}
	for _, m := range missing {
		if !m.Optional && !(m.Family == service.IPv6 && m.WholeFamily()) {
			lacks = append(lacks, m.String())
		}
	}
	return lacks, err
}

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/proxier/top"
)

const topLong = `top shows the ports of Services on this node in a table that refreshes: endpoints that are
ready, new connections per second, open connections, and the share of each endpoint. It
asks the nftproxy that runs on this node: as root, on the node or in the pod:

  kubectl -n kube-system exec -it POD -- /nftproxy top

Keys: q quits, s sorts by the next order, / filters, e lists the endpoints, ? has the rest.
Without a terminal it writes the table once.`

// minInterval bounds the load of the table on the node.
const minInterval = time.Second

func newTopCommand() *cobra.Command {
	var o top.Options
	var once bool
	var format string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show which Services have connections on this node, in a table that refreshes",
		Long:  topLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showTop(cmd, o, once, format)
		},
	}
	orders := []string{status.OrderRate, status.OrderOpen, status.OrderConnections, status.OrderName}
	flags := cmd.Flags()
	flags.BoolVar(&once, "once", false, "Write the table once, with at most 200 rows.")
	flags.StringVarP(&format, "output", "o", "text", "Format with --once: text or json.")
	flags.StringVar(&o.Filter, "filter", "", "Words that the name, an address or the port of a row has.")
	flags.StringVar(&o.Order, "sort", status.OrderRate, "Order of rows: "+strings.Join(orders, ", ")+".")
	flags.DurationVar(&o.Interval, "interval", 5*time.Second, "Time between two looks, at least 1s.")
	return cmd
}

func showTop(cmd *cobra.Command, o top.Options, once bool, format string) error {
	q := status.Query{Filter: o.Filter, Order: o.Order, Limit: status.MaxLimit}
	switch {
	case format != "text" && format != "json":
		return fmt.Errorf("-o %s: must be text or json", format)
	case format == "json" && !once:
		return fmt.Errorf("-o json: needs --once")
	case q.Normal().Order != o.Order:
		return fmt.Errorf("--sort %s: must be rate, open, connections or name", o.Order)
	case o.Interval < minInterval:
		return fmt.Errorf("--interval %v: must be at least %v", o.Interval, minInterval)
	}
	if !once && top.IsTerminal(os.Stdin) && top.IsTerminal(os.Stdout) {
		o.Colour = os.Getenv("NO_COLOR") == ""
		return top.Watch(cmd.Context(), os.Stdin, os.Stdout, top.Ask, o)
	}
	report, err := top.Ask(cmd.Context(), q)
	if err != nil {
		return err
	}
	if format == "json" {
		return top.WriteJSON(cmd.OutOrStdout(), report)
	}
	return top.WriteText(cmd.OutOrStdout(), report)
}

package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/explain"
)

// explainOptions are the flags of explain that are not about the question.
type explainOptions struct {
	format string
	probe  bool
	live   time.Duration
}

func (o explainOptions) check(c *config.Config) error {
	switch {
	case o.live < 0:
		return errors.New("--live: must be a positive duration, as 10s")
	case o.probe && c.Source != "":
		return errors.New("--probe and --source: manifests have no network to send a probe to; leave one out")
	case o.live > 0 && c.Source != "":
		return errors.New("--live and --source: manifests have no packets to trace; leave one out")
	}
	return nil
}

// try adds to the answer what real packets show, and writes it as text, unless it is wanted as JSON: then all
// of it is written at the end. An answer is not held back until the trace has ended.
func (o explainOptions) try(cmd *cobra.Command, report *explain.Report, q explain.Question) (err error) {
	ctx, text := cmd.Context(), o.format == "text"
	if o.live == 0 {
		if o.probe {
			report.SendProbe(ctx, q, false)
		}
		if text {
			return report.WriteText(cmd.OutOrStdout())
		}
		return nil
	}
	t, err := report.StartTrace(q, o.live)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	left := o.live
	if o.probe {
		report.SendProbe(ctx, q, true)
		left = 0
	}
	if text {
		if err := report.WriteText(cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	if err := report.FinishTrace(ctx, t, left); err != nil || !text {
		return err
	}
	return report.Live.WriteLive(cmd.OutOrStdout())
}

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// show is one performance of the demo.
type show struct {
	out   io.Writer
	lab   *lab.Lab
	dir   *directory
	proxy *proxy
	wrong int // rows and streams of requests that were not as they should be
}

// all shows everything, one thing after the other. Rows that are wrong do not end it.
func (s *show) all(ctx context.Context) error {
	if err := s.proxy.waitProgrammed(ctx); err != nil {
		return err
	}
	s.say("1. The endpoints as given")
	if err := s.table(ctx, asGiven()); err != nil {
		return err
	}
	stuck, err := s.sticky(ctx, "Session affinity (sticky): one client, always the same pod.", "pod-a", "pod-c")
	if err != nil {
		return err
	}
	s.say("2. The endpoints change while requests go on")
	if err := s.change(ctx); err != nil {
		return err
	}
	if err := s.table(ctx, changed()); err != nil {
		return err
	}
	words := fmt.Sprintf("Session affinity (sticky has pod-d as well now): the client stays with %s.", stuck)
	if _, err := s.sticky(ctx, words, stuck); err != nil {
		return err
	}
	s.say("3. What the rules look like")
	if err := s.rules(ctx); err != nil {
		return err
	}
	s.say("4. The end")
	return s.end(ctx)
}

func (s *show) say(heading string) {
	fmt.Fprintf(s.out, "\n%s\n%s\n", heading, strings.Repeat("=", len(heading)))
}

// sticky shows that one of pods answers pod-b's requests to the sticky Service, and returns which.
func (s *show) sticky(ctx context.Context, words string, pods ...string) (string, error) {
	r := row("pod-b", "tcp 10.96.0.82:80", "unchanged", pods...)
	r.Sticky, r.Requests = true, 24
	report, err := s.row(ctx, words, r)
	for pod := range report.By {
		return pod, err
	}
	return "", err
}

const (
	interval = 10 * time.Millisecond  // between two requests of a steady stream
	moment   = 500 * time.Millisecond // that streams go on before and after each change
)

// change edits the manifests while requests go on, and counts those.
func (s *show) change(ctx context.Context) error {
	rows := steady()
	var loads []*lab.Load
	for _, r := range rows {
		load := s.lab.Steady(ctx, r.From, r.To.Proto, r.To.Addr, interval)
		defer load.Stop()
		loads = append(loads, load)
	}
	fmt.Fprintf(s.out, "Steady requests begin: from pod-b to web and kube-dns, from the client to web's nodePort.\n")
	wait(ctx, moment)
	for _, step := range []struct {
		words string
		edit  func() error
	}{
		{"pod-d becomes an endpoint of web, kube-dns and sticky.", s.addPodD},
		{"pod-c ceases to be one of web and kube-dns; it serves on, as a terminating pod does.", s.removePodC},
	} {
		fmt.Fprintln(s.out, step.words)
		if err := step.edit(); err != nil {
			return err
		}
		if err := s.proxy.waitProgrammed(ctx); err != nil {
			return err
		}
		wait(ctx, moment)
	}
	var sent, lost int
	for i, load := range loads {
		report := load.Stop()
		s.line(rows[i], report, streamError(report))
		sent, lost = sent+report.Sent, lost+report.Lost()
	}
	fmt.Fprintf(s.out, "%d requests meanwhile, %d failed.\n", sent, lost)
	return context.Cause(ctx)
}

func streamError(report lab.Report) error {
	switch {
	case report.Sent == 0:
		return fmt.Errorf("no request was made")
	case report.Lost() > 0:
		return fmt.Errorf("%d of %d requests failed, the first with: %w", report.Lost(), report.Sent, report.Err)
	}
	return nil
}

func (s *show) addPodD() error {
	d := endpoint{node: "node-b", v4: "10.244.2.12", v6: "fd00:10:244:2::12"}
	endpoints, err := s.dir.endpointSlices()
	if err != nil {
		return err
	}
	for _, slice := range endpoints {
		d.addTo(slice)
	}
	// It must be there before anybody is sent to it.
	if err := s.lab.ServeEndpoints(endpoints); err != nil {
		return err
	}
	return s.dir.edit(d.addTo, "web.yaml", "dns.yaml", "sticky.yaml")
}

func (s *show) removePodC() error {
	c := endpoint{node: "node-b", v4: "10.244.2.11", v6: "fd00:10:244:2::11"}
	return s.dir.edit(c.removeFrom, "web.yaml", "dns.yaml")
}

// rules prints the beginning of what nftproxy --dry-run prints.
func (s *show) rules(ctx context.Context) error {
	text, err := s.proxy.output(ctx, "--dry-run")
	if err != nil {
		return err
	}
	_, from, found := strings.Cut(text, "\tmap services {\n")
	if !found {
		return fmt.Errorf("the dry run shows no map called services")
	}
	fmt.Fprintln(s.out, "Each line of the map services is an address of a Service and the chain which its connections take:")
	lines := strings.Split("\tmap services {\n"+from, "\n")
	for i, line := range lines {
		if i == 25 {
			fmt.Fprintln(s.out, "    ...")
			break
		}
		fmt.Fprintln(s.out, strings.ReplaceAll(line, "\t", "  "))
		if line == "\t}" {
			break
		}
	}
	fmt.Fprintf(s.out, "To see all of it, without root and without touching a kernel:\n  nftproxy --dry-run \\\n    %s\n",
		strings.Join(arguments(s.dir.origin), " "))
	return nil
}

// end stops the daemon and removes its rules.
func (s *show) end(ctx context.Context) error {
	if err := s.proxy.stop(); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "nftproxy stopped on SIGTERM with exit code 0; its rules stay, and connections go on.")
	// ctx has ended with the daemon.
	text, err := s.proxy.output(context.WithoutCancel(ctx), "cleanup")
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "nftproxy cleanup was run then:\n%s", text)
	return nil
}

// verdict is the last word.
func (s *show) verdict() error {
	if s.wrong > 0 {
		return fmt.Errorf("%d of the lines above are WRONG", s.wrong)
	}
	fmt.Fprintln(s.out, "The namespaces end with this process. Everything was as it should be.")
	return nil
}

// wait lets time pass, unless ctx ends first.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

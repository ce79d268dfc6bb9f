package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// show is one run of the demo.
type show struct {
	out   io.Writer
	lab   *lab.Lab
	dir   *directory
	proxy *proxy
	wrong int // rows and streams of requests with an unexpected result
}

// all runs all parts of the demo in order. A wrong row does not stop it.
func (s *show) all(ctx context.Context) error {
	if err := s.proxy.waitProgrammed(ctx); err != nil {
		return err
	}
	s.say("1. The endpoints in the manifests")
	if err := s.table(ctx, asGiven()); err != nil {
		return err
	}
	words := "Session affinity (sticky): the same pod answers every request of a client."
	stuck, err := s.sticky(ctx, words, "pod-a", "pod-c")
	if err != nil {
		return err
	}
	s.say("2. The endpoints change while requests continue")
	if err := s.change(ctx); err != nil {
		return err
	}
	if err := s.table(ctx, changed()); err != nil {
		return err
	}
	words = fmt.Sprintf("Session affinity (sticky now has pod-d as well): the client keeps %s.", stuck)
	if _, err := s.sticky(ctx, words, stuck); err != nil {
		return err
	}
	s.say("3. The rules")
	if err := s.rules(ctx); err != nil {
		return err
	}
	s.say("4. Stop and clean up")
	return s.end(ctx)
}

func (s *show) say(heading string) {
	fmt.Fprintf(s.out, "\n%s\n%s\n", heading, strings.Repeat("=", len(heading)))
}

// sticky shows that a single one of pods answers all requests of pod-b to the Service sticky, and returns its
// name.
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
	interval = 10 * time.Millisecond  // between two requests of a stream
	moment   = 500 * time.Millisecond // during which the streams run before and after each change
)

// change edits the manifests during streams of requests, and reports the requests that failed.
func (s *show) change(ctx context.Context) error {
	rows := steady()
	var loads []*lab.Load
	for _, r := range rows {
		load := s.lab.Steady(ctx, r.From, r.To.Proto, r.To.Addr, interval)
		defer load.Stop()
		loads = append(loads, load)
	}
	fmt.Fprintln(s.out, "Streams of requests start: pod-b to web and kube-dns, client to nodePort of web.")
	wait(ctx, moment)
	for _, step := range []struct {
		words string
		edit  func() error
	}{
		{"web, kube-dns and sticky get pod-d as a new endpoint.", s.addPodD},
		{"web and kube-dns lose pod-c, which keeps serving, as a terminating pod does.", s.removePodC},
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
	fmt.Fprintf(s.out, "%d requests during these changes, %d failed.\n", sent, lost)
	return context.Cause(ctx)
}

func streamError(report lab.Report) error {
	switch {
	case report.Sent == 0:
		return fmt.Errorf("no request was sent")
	case report.Lost() > 0:
		return fmt.Errorf("%d of %d requests failed, the first one: %w", report.Lost(), report.Sent, report.Err)
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
	// The server must run before the first request reaches it.
	if err := s.lab.ServeEndpoints(endpoints); err != nil {
		return err
	}
	return s.dir.edit(d.addTo, "web.yaml", "dns.yaml", "sticky.yaml")
}

func (s *show) removePodC() error {
	c := endpoint{node: "node-b", v4: "10.244.2.11", v6: "fd00:10:244:2::11"}
	return s.dir.edit(c.removeFrom, "web.yaml", "dns.yaml")
}

// rules prints the maps that lead from a Service address to a chain, from the output of nftproxy --dry-run.
func (s *show) rules(ctx context.Context) error {
	text, err := s.proxy.output(ctx, "--dry-run")
	if err != nil {
		return err
	}
	for _, m := range []struct{ name, heading string }{
		{"services", "Each line of the map services is a Service address and the number of its shape:"},
		{"shapes", "The map shapes has the chain for the connections to Services of one shape:"},
	} {
		_, from, found := strings.Cut(text, "\tmap "+m.name+" {\n")
		if !found {
			return fmt.Errorf("the output of nftproxy --dry-run does not contain the map %s", m.name)
		}
		fmt.Fprintln(s.out, m.heading)
		s.lines("\tmap " + m.name + " {\n" + from)
	}
	fmt.Fprintf(s.out, "To print all rules, without root and without changing the kernel:\n"+
		"  nftproxy --dry-run \\\n    %s\n", strings.Join(arguments(s.dir.origin), " "))
	return nil
}

// lines prints the first definition of the text, or its first lines.
func (s *show) lines(text string) {
	for i, line := range strings.Split(text, "\n") {
		if i == 25 {
			fmt.Fprintln(s.out, "    ...")
			return
		}
		fmt.Fprintln(s.out, strings.ReplaceAll(line, "\t", "  "))
		if line == "\t}" {
			return
		}
	}
}

// end stops the daemon and removes its rules.
func (s *show) end(ctx context.Context) error {
	if err := s.proxy.stop(); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "nftproxy stopped on SIGTERM with exit code 0. Its rules stay in the kernel.")
	// The end of the daemon has ended ctx.
	text, err := s.proxy.output(context.WithoutCancel(ctx), "cleanup")
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "Then nftproxy cleanup removed them:\n%s", text)
	return nil
}

// verdict prints the overall result, or returns it as an error.
func (s *show) verdict() error {
	if s.wrong > 0 {
		return fmt.Errorf("%d of the lines above say WRONG", s.wrong)
	}
	fmt.Fprintln(s.out, "The namespaces end with this process. All results were as expected.")
	return nil
}

// wait waits for d or for the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

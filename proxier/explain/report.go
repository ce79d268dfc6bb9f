package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/probe"
)

// Verdicts of a Report besides those of interpreter.Verdict.
const (
	verdictEndpoint = "endpoint"
	verdictRefused  = "refused"
	verdictDropped  = "dropped"
)

// Report is the answer to a Question. Its lines are the decisions, in the order in which they fall.
type Report struct {
	Target   string `json:"target"`
	Frontend string `json:"frontend,omitempty"` // address, port and protocol
	Service  string `json:"service,omitempty"`  // that has the frontend
	Client   string `json:"client,omitempty"`   // address
	// Verdict is endpoint, refused, dropped or untouched.
	Verdict string `json:"verdict"`
	// Source says which client the endpoints see: kept (the client itself) or masqueraded (an address of the
	// node). If endpoints differ it is kept.
	Source    string     `json:"source,omitempty"`
	Endpoints []Endpoint `json:"endpoints"`         // that the connection can go to
	LeftOut   []Endpoint `json:"leftOut,omitempty"` // the others of the port
	Decisions []Decision `json:"decisions"`
	// Differences are chains and elements of the frontend that the kernel does not have as they are wanted.
	Differences []string `json:"differences,omitempty"`
	// Obstacles are what on the node certainly keeps the connection from arriving where the rules lead it, and
	// Doubts what may change the answer.
	Obstacles []string `json:"obstacles,omitempty"`
	Doubts    []string `json:"doubts,omitempty"`
	Rules     []Rule   `json:"rules,omitempty"` // that a connection to the first endpoint meets
	// Connections are those that the kernel has counted at the frontend since it has its element, with any
	// client. They are missing if it does not count or was not read.
	Connections *uint64 `json:"connections,omitempty"`
	Open        *Open   `json:"open,omitempty"` // missing if it is not known
	// Probe is what came of a probe from this node, if one was sent. It changes neither verdict nor exit code.
	Probe *probe.Result `json:"probe,omitempty"`
	// Live is what happened to real packets, if they were traced. It changes neither of them.
	Live *Live `json:"live,omitempty"`
}

// Endpoint is an endpoint of the port.
type Endpoint struct {
	Address string `json:"address"`
	Port    uint16 `json:"port"`
	Node    string `json:"node,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Hints   string `json:"hints,omitempty"` // nodes and zones that should use it
	// Slots is how many slots of OfSlots it has; 0 if each endpoint has one.
	Slots   int `json:"slots,omitempty"`
	OfSlots int `json:"ofSlots,omitempty"`
	// The conditions are missing if they are not known.
	Ready       *bool  `json:"ready,omitempty"`
	Serving     *bool  `json:"serving,omitempty"`
	Terminating *bool  `json:"terminating,omitempty"`
	Itself      bool   `json:"itself,omitempty"` // it is the client
	Source      string `json:"source,omitempty"`
	Reason      string `json:"reason,omitempty"` // why it is left out
	// Connections are those that the kernel has counted from the frontend to the endpoint.
	Connections *uint64 `json:"connections,omitempty"`
}

// Decision is a line of the answer: what was decided, and why.
type Decision struct {
	Subject string `json:"subject"`
	Result  string `json:"result"`
	Reason  string `json:"reason,omitempty"`
}

// Rule is a rule in nft's words, and what it did with the packet.
type Rule struct {
	Chain  string `json:"chain"`
	Rule   string `json:"rule"`
	Result string `json:"result"`
}

func (r *Report) add(subject, result, reason string) {
	r.Decisions = append(r.Decisions, Decision{subject, result, reason})
}

// ExitCode is 0 if the connection reaches an endpoint, 1 if it is refused or dropped, or if an obstacle keeps it
// from arriving, 2 if the kernel differs from what is wanted, and 3 if nftproxy does not decide where the
// connection goes.
func (r *Report) ExitCode() int {
	switch {
	case len(r.Differences) > 0:
		return 2
	case r.Verdict == verdictEndpoint && len(r.Obstacles) == 0:
		return 0
	case r.Verdict == verdictEndpoint, r.Verdict == verdictRefused, r.Verdict == verdictDropped:
		return 1
	}
	return 3
}

// WriteText writes the decisions as lines for a person to read.
func (r *Report) WriteText(w io.Writer) error {
	wide := 0
	for _, d := range r.Decisions {
		wide = max(wide, len(d.Subject))
	}
	var b strings.Builder
	for _, d := range r.Decisions {
		fmt.Fprintf(&b, "%-*s  %s", wide, d.Subject, d.Result)
		if d.Reason != "" {
			b.WriteString(": " + d.Reason)
		}
		b.WriteString("\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteJSON writes the report as JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

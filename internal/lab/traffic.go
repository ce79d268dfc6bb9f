package lab

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Row is a number of equal requests and their expected outcome. Exactly one of By, Refused and Dropped is
// set.
type Row struct {
	From string `json:"from"` // a party of the lab
	To   Target `json:"to"`

	By      []string `json:"by,omitempty"`      // each of these answers at least once, and no other
	Refused bool     `json:"refused,omitempty"` // every request
	Dropped bool     `json:"dropped,omitempty"` // every request

	// Source is the sender's address as the servers see it: "unchanged" is its own, "node" any address of the
	// node under test, anything else a literal address. Empty means any.
	Source string `json:"source,omitempty"`
	// Sticky changes By: the same one answers all requests.
	Sticky bool `json:"sticky,omitempty"`
	// Requests is how many requests are made. Zero means enough: 4 if one server must answer or refuse, 16
	// for each of several that must answer (a row misses one of them by chance once in a million times), 2 if
	// all are dropped.
	Requests int `json:"requests,omitempty"`
}

// Target is the destination of a request, written as "tcp 10.96.0.10:80" or "udp [fd00:10:96::a]:53".
type Target struct {
	Proto string // tcp, udp or sctp
	Addr  netip.AddrPort
}

func (t Target) String() string { return t.Proto + " " + t.Addr.String() }

// UnmarshalText parses the output of String.
func (t *Target) UnmarshalText(text []byte) error {
	proto, addr, _ := strings.Cut(string(text), " ")
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return fmt.Errorf("target %q: want tcp, udp or sctp and an address", text)
	}
	parsed, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("target %q: %w", text, err)
	}
	*t = Target{proto, parsed}
	return nil
}

func (r Row) String() string { return r.From + " -> " + r.To.String() }

// LoadTraffic reads a file with a YAML list of rows. Unknown and duplicate fields, unknown names and
// contradictions are errors.
func LoadTraffic(path string) ([]Row, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load traffic: %w", err)
	}
	var rows []Row
	if err := yaml.UnmarshalStrict(data, &rows); err != nil {
		return nil, fmt.Errorf("load traffic %s: %w", path, err)
	}
	for i, row := range rows {
		if err := row.validate(); err != nil {
			return nil, fmt.Errorf("load traffic %s: row %d (%s): %w", path, i+1, row, err)
		}
	}
	return rows, nil
}

func (r Row) validate() error {
	var servers []string
	for _, a := range addresses() {
		servers = append(servers, a.name)
	}
	if r.From != "node" && !slices.Contains(servers, r.From) {
		return fmt.Errorf("from: the lab has no party %q", r.From)
	}
	if !r.To.Addr.IsValid() {
		return fmt.Errorf("to is missing")
	}
	for _, by := range r.By {
		if !slices.Contains(servers, by) {
			return fmt.Errorf("by: the lab has no server %q", by)
		}
	}
	wants := 0
	for _, set := range []bool{len(r.By) > 0, r.Refused, r.Dropped} {
		if set {
			wants++
		}
	}
	if wants != 1 {
		return fmt.Errorf("want exactly one of by, refused and dropped")
	}
	if len(r.By) == 0 && (r.Sticky || r.Source != "") {
		return fmt.Errorf("sticky and source need by")
	}
	if r.Source != "" && r.Source != "unchanged" && r.Source != "node" {
		if _, err := netip.ParseAddr(r.Source); err != nil {
			return fmt.Errorf("source: want unchanged, node or an address: %w", err)
		}
	}
	if r.Requests < 0 || !r.Sticky && len(r.By) > 0 && r.Requests > 0 && r.Requests < len(r.By) {
		return fmt.Errorf("%d requests are not enough", r.Requests)
	}
	return nil
}

// count returns how many requests the row makes.
func (r Row) count() int {
	switch {
	case r.Requests > 0:
		return r.Requests
	case r.Dropped:
		return 2
	case len(r.By) > 1:
		return 16 * len(r.By)
	}
	return 4
}

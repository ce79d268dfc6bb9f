package proxier

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// failing is an empty kernel that refuses one operation.
type failing struct{ operation string }

func (f failing) do(operation string) error {
	if operation == f.operation {
		return fmt.Errorf("%s: %w", operation, unix.EIO)
	}
	return nil
}

func (f failing) Diff(_ []service.Family, build func(rules.Slots) *rules.Ruleset) (
	*rules.Delta, error) {
	none := rules.Programmed{}
	return rules.Diff(build(none.Slots()), none), f.do("read")
}

func (f failing) Apply(*rules.Delta) error { return f.do("transaction") }

func (f failing) DeleteStale(*rules.Delta) error { return f.do("cleanup") }

func (f failing) CheckDrift(*rules.Ruleset) (kernel.Drift, error) {
	return kernel.Unchanged, f.do("check for drift")
}

// TestNetlinkErrors makes each operation of the kernel fail: nftproxy_netlink_errors_total counts all of
// them, and nftproxy_transactions_total only transactions.
func TestNetlinkErrors(t *testing.T) {
	const counted = `nftproxy_netlink_errors_total{errno="EIO"} 1`
	transactions := func(failed, committed int) []string {
		return []string{fmt.Sprintf(`nftproxy_transactions_total{result="error"} %d`, failed),
			fmt.Sprintf(`nftproxy_transactions_total{result="success"} %d`, committed)}
	}
	for operation, want := range map[string][]string{
		"none":             transactions(0, 1),
		"read":             append([]string{counted}, transactions(0, 0)...),
		"transaction":      append([]string{counted}, transactions(1, 0)...),
		"cleanup":          append([]string{counted}, transactions(0, 1)...),
		"check for drift":  append([]string{counted}, transactions(0, 1)...),
		"search for flows": append([]string{counted}, transactions(0, 1)...),
	} {
		t.Run(operation, func(t *testing.T) {
			r := newFailing(t, failing{operation})
			if err := syncWhole(t, r); err != nil && !errors.Is(err, unix.EIO) {
				t.Fatal(err)
			}
			r.checkDrift()
			got := scrape(r.Proxier, "nftproxy_netlink_errors", "nftproxy_transactions")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("series (-want +got):\n%s", diff)
			}
		})
	}
}

// newFailing returns a reconciler that has to search for stale flows.
func newFailing(t *testing.T, f failing) *reconciler {
	t.Helper()
	c := configtest.Parse(t, "--hostname-override=node-a", "--source=.")
	p, err := New(Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	p.families = []service.Family{service.IPv4}
	r := p.newReconciler(f)
	r.deleteFlows = func(context.Context, service.Family, []service.StaleFlows) (
		int, []service.Frontend, error) {
		return 0, nil, f.do("search for flows")
	}
	udp := service.Frontend{Addr: netip.MustParseAddr("10.96.0.10"), Protocol: service.UDP, Port: 53}
	r.cleanup.flows[udp] = service.Name{Namespace: "default", Name: "dns"}
	return r
}

// scrape returns the lines of /metrics that begin with one of the prefixes.
func scrape(p *Proxier, prefixes ...string) []string {
	w := httptest.NewRecorder()
	p.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

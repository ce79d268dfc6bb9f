package proxier

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"runtime/pprof"

	"k8s.io/apimachinery/pkg/runtime"

	nodecheck "github.com/nftproxy/nftproxy/proxier/check"
	"github.com/nftproxy/nftproxy/proxier/health"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/state"
	"github.com/nftproxy/nftproxy/proxier/support"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// supportPages are the pages of the health and the metrics address, whether these are configured or not, and
// what is too much, or nobody's business, for those who can reach an address.
func (p *Proxier) supportPages() http.Handler {
	mux := http.NewServeMux()
	options := p.metricsOptions()
	options.Flags, options.Version, options.Profiling = p.flags, p.version, false
	mux.Handle("/", health.MetricsHandler(options))
	mux.Handle("/healthz", p.health.Handler())
	mux.Handle("/livez", p.health.Handler())
	page := func(path string, write func(context.Context, io.Writer) error) {
		mux.Handle(path, support.Page(write))
	}
	page("/objects", func(_ context.Context, w io.Writer) error { return writeObjects(w, p.state) })
	page("/check", p.writeCheck)
	page("/diff", p.writeDiff)
	page("/goroutines", func(_ context.Context, w io.Writer) error {
		return pprof.Lookup("goroutine").WriteTo(w, 2)
	})
	page("/log", func(_ context.Context, w io.Writer) error {
		if p.log == nil {
			return errors.New("the log is not kept")
		}
		return p.log.WriteText(w)
	})
	for _, f := range service.Families() {
		page("/table/"+f.String(), func(ctx context.Context, w io.Writer) error {
			return p.writeTable(ctx, w, f)
		})
	}
	return mux
}

// writeObjects writes the objects of a state as a List, which kubectl and --source read.
func writeObjects(w io.Writer, s *state.State) error {
	out := bufio.NewWriter(w)
	before := `{"apiVersion":"v1","kind":"List","items":[`
	err := s.Objects(func(obj runtime.Object) error {
		text, err := json.Marshal(obj)
		if err != nil {
			return err
		}
		out.WriteString(before + "\n")
		before = ","
		_, err = out.Write(text)
		return err
	})
	out.WriteString("\n]}\n")
	return errors.Join(err, out.Flush())
}

func (p *Proxier) writeCheck(ctx context.Context, w io.Writer) error {
	findings, err := nodecheck.Node(ctx, p.config, p.state, nil)
	if err != nil {
		return err
	}
	return nodecheck.WriteText(w, findings)
}

// writeTable writes a table of the kernel, through a connection of its own.
func (p *Proxier) writeTable(ctx context.Context, w io.Writer, f service.Family) error {
	var known []nftables.Chain
	// Without the ruleset the rules are written as expressions, which is less readable but complete.
	unknown := p.ask(ctx, func(r *reconciler) error {
		known = r.builder.Ruleset().Chains(f)
		return nil
	})
	if unknown != nil {
		fmt.Fprintf(w, "# the rules are not known: %v\n", unknown)
	}
	conn, err := kernel.Dial(kernel.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.WriteTable(w, f, known)
}

// maxDiff bounds the elements of a difference that are written: all elements of a table that is gone could be
// more than fits into the memory limit.
const maxDiff = 20_000

// writeDiff writes what a full sync would change now.
func (p *Proxier) writeDiff(ctx context.Context, w io.Writer) error {
	var d *rules.Delta
	if err := p.ask(ctx, func(r *reconciler) (err error) {
		d, err = r.difference()
		return err
	}); err != nil {
		return err
	}
	debug.FreeOSMemory() // the difference took as much as a start
	if d.Empty() {
		_, err := fmt.Fprintln(w, "# the kernel has what nftproxy wants")
		return err
	}
	shown := *d
	shown.Delete, shown.Add = d.Delete[:min(len(d.Delete), maxDiff)], d.Add[:min(len(d.Add), maxDiff)]
	if err := shown.WriteText(w); err != nil {
		return err
	}
	if left := d.Size() - shown.Size(); left > 0 {
		return fmt.Errorf("%d more elements differ, which are left out", left)
	}
	return nil
}

// difference returns what a full sync would change now. It costs as much as one: the kernel is read, and
// nothing is programmed meanwhile. If something differs, a full sync follows at the next check.
func (r *reconciler) difference() (*rules.Delta, error) {
	ruleset := r.builder.Ruleset()
	d, err := r.tables.Diff(ruleset.Families(), func(rules.Slots) *rules.Ruleset { return ruleset })
	if err == nil && d.Size() > 0 {
		r.require(suspicion)
	}
	return d, err
}

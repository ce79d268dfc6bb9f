package status

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/a-h/templ"
)

//go:embed style.css
var style string

// styleElement is the style as an element of a page.
func styleElement() string { return "<style>" + style + "</style>" }

// styleHash names the style in a Content-Security-Policy.
func styleHash() string {
	sum := sha256.Sum256([]byte(style))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// maxRequests bounds the requests that are answered at the same time: each may have the rows of many endpoints
// in memory. Further ones wait until their client gives up.
const maxRequests = 2

// Pages serves /status, /status.json and /status/explain. Nothing on them changes state.
type Pages struct {
	report  func(context.Context, Query) *Report
	explain func(ctx context.Context, target, from string) (string, error)
	turn    chan struct{}
}

// NewPages returns the pages of a node. report makes a report; explain answers, in words, where a client (see
// `nftproxy explain --from`) gets to.
func NewPages(report func(context.Context, Query) *Report,
	explain func(ctx context.Context, target, from string) (string, error)) *Pages {
	return &Pages{report: report, explain: explain, turn: make(chan struct{}, maxRequests)}
}

func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this page can only be read", http.StatusMethodNotAllowed)
		return
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-r.Context().Done():
		return
	}
	switch r.URL.Path {
	case "/status":
		v := view{p.report(r.Context(), ParseQuery(r.URL.Query())), r.URL.Query().Get("refresh") == "on"}
		writePage(w, r, http.StatusOK, page(v))
	case "/status.json":
		p.serveJSON(w, r)
	case "/status/explain":
		p.serveExplain(w, r)
	default:
		http.NotFound(w, r)
	}
}

// serveExplain serves the answer to ?target= and ?from=.
func (p *Pages) serveExplain(w http.ResponseWriter, r *http.Request) {
	target, from := r.URL.Query().Get("target"), cmp.Or(r.URL.Query().Get("from"), "pod")
	code, failure := http.StatusOK, ""
	text, err := p.explain(r.Context(), target, from)
	if err != nil {
		code, failure = http.StatusBadRequest, err.Error()
	}
	writePage(w, r, code, explanation(target, from, text, failure))
}

// writePage writes a page that may use its own style and nothing else: no script, no other address.
func writePage(w http.ResponseWriter, r *http.Request, code int, c templ.Component) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src '"+styleHash()+"'; img-src data:; "+
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = c.Render(r.Context(), w) // fails if the client is gone
}

func (p *Pages) serveJSON(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(p.report(r.Context(), ParseQuery(r.URL.Query()))); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(body.Bytes())
}

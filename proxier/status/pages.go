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
	"runtime"

	"github.com/a-h/templ"
)

const (
	htmlText  = "text/html; charset=utf-8"
	plainText = "text/plain; charset=utf-8"
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

// collectAfter is how many pages leave their garbage, each about 0.5 MB, before it is collected. The collector
// would let it grow by half of what the process keeps, which with 50,000 Services is 50 MB.
const collectAfter = 3

// usualPage is a little more than the bytes of a page with DefaultLimit rows of three endpoints each.
const usualPage = 128 << 10

// Pages serves /status, /status.json and /status/explain. Nothing on them changes state.
type Pages struct {
	report  func(context.Context, Query) *Report
	explain func(ctx context.Context, target, from string) (string, error)
	turn    chan struct{} // one page is made at a time; others wait until their client gives up
	made    int           // pages since garbage was collected; for the one whose turn it is
}

// NewPages returns the pages of a node. report makes a report; explain answers, in words, where a client (see
// `nftproxy explain --from`) gets to.
func NewPages(report func(context.Context, Query) *Report,
	explain func(ctx context.Context, target, from string) (string, error)) *Pages {
	return &Pages{report: report, explain: explain, turn: make(chan struct{}, 1)}
}

func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this page can only be read", http.StatusMethodNotAllowed)
		return
	}
	code, media, body := p.build(r)
	if body == nil {
		return
	}
	// A page may use its own style and nothing else: no script, no other address.
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src '"+styleHash()+"'; img-src data:; "+
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}

// build makes a page when it is its turn. A client that reads slowly keeps nobody waiting.
func (p *Pages) build(r *http.Request) (code int, media string, body *bytes.Buffer) {
	select {
	case p.turn <- struct{}{}:
	case <-r.Context().Done():
		return 0, "", nil
	}
	defer func() {
		if p.made++; p.made == collectAfter {
			p.made = 0
			go runtime.GC()
		}
		<-p.turn
	}()
	body = bytes.NewBuffer(make([]byte, 0, usualPage))
	var err error
	switch r.URL.Path {
	case "/status":
		v := view{p.report(r.Context(), ParseQuery(r.URL.Query())), r.URL.Query().Get("refresh") == "on"}
		code, media, err = http.StatusOK, htmlText, page(v).Render(r.Context(), body)
	case "/status.json":
		encoder := json.NewEncoder(body)
		encoder.SetIndent("", " ")
		err = encoder.Encode(p.report(r.Context(), ParseQuery(r.URL.Query())))
		code, media = http.StatusOK, "application/json"
	case "/status/explain":
		var c templ.Component
		code, c = p.explained(r)
		media, err = htmlText, c.Render(r.Context(), body)
	default:
		code, media = http.StatusNotFound, plainText
		body.WriteString("404 page not found\n")
	}
	if err != nil { // the client is gone
		return 0, "", nil
	}
	return code, media, body
}

// explained returns the answer to ?target= and ?from=.
func (p *Pages) explained(r *http.Request) (code int, c templ.Component) {
	target, from := r.URL.Query().Get("target"), cmp.Or(r.URL.Query().Get("from"), "pod")
	failure := ""
	code = http.StatusOK
	text, err := p.explain(r.Context(), target, from)
	if err != nil {
		code, failure = http.StatusBadRequest, err.Error()
	}
	return code, explanation(target, from, text, failure)
}

package status

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
)

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
	case "/status.json":
		p.serveJSON(w, r)
	default:
		http.NotFound(w, r)
	}
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

package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/nftproxy/nftproxy/proxier/socket"
)

// Path is where the daemon answers questions.
const Path = "/explain"

// Bounds of a question and its answer.
const (
	askTimeout  = 5 * time.Second
	maxQuestion = 4 << 10
	maxAnswer   = 64 << 20
)

// Answer answers a question. Its error is for the one who asks.
type Answer func(context.Context, Question) (*Report, error)

// Handler answers questions: a Question as JSON is posted, and the answer is a Report, or an error in words.
func Handler(answer Answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q Question
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&q); err != nil {
			http.Error(w, "read question: "+err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
		defer cancel()
		report, err := answer(ctx, q)
		switch {
		case errors.Is(err, socket.ErrNoDaemon):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = report.WriteJSON(w) // fails if the client has gone
		}
	})
}

// unready is socket.ErrNoDaemon in the words of the daemon.
type unready string

func (u unready) Error() string { return string(u) }

func (unready) Is(err error) bool { return err == socket.ErrNoDaemon }

// Ask asks the daemon of this network namespace. The error is socket.ErrNoDaemon if none answers, and
// otherwise what the daemon says.
func Ask(ctx context.Context, q Question) (*Report, error) { return askAt(ctx, socket.Name, q) }

func askAt(ctx context.Context, name string, q Question) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*askTimeout)
	defer cancel()
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://nftproxy"+Path,
		bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := socket.Do(name, request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", socket.ErrNoDaemon, err)
	}
	switch text := bytes.TrimSpace(data); response.StatusCode {
	case http.StatusOK:
	case http.StatusServiceUnavailable:
		return nil, unready(text)
	default:
		return nil, errors.New(string(text))
	}
	report := &Report{}
	if err := json.Unmarshal(data, report); err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return report, nil
}

package top

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/nftproxy/nftproxy/proxier/socket"
	"github.com/nftproxy/nftproxy/proxier/status"
)

// Bounds of an answer of the daemon.
const (
	askTimeout = 10 * time.Second
	maxAnswer  = 64 << 20
)

// Ask asks the daemon of this network namespace. The error is socket.ErrNoDaemon if none answers.
func Ask(ctx context.Context, q status.Query) (*status.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	values := url.Values{"q": {q.Filter}, "order": {q.Order},
		"offset": {strconv.Itoa(q.Offset)}, "limit": {strconv.Itoa(q.Limit)}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://nftproxy/status.json?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := socket.Do(socket.Name, request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", socket.ErrNoDaemon, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the daemon answers %s: %s", response.Status, bytes.TrimSpace(body))
	}
	report := &status.Report{}
	if err := json.Unmarshal(body, report); err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return report, nil
}

package support

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/nftproxy/nftproxy/proxier/socket"
)

// Socket is the name at which the daemon serves the pages for the archive.
const Socket = "@nftproxy-support"

// trailer has the error of a page whose contents are already on their way.
const trailer = "Nftproxy-Error"

// Page serves what write writes.
func Page(write func(context.Context, io.Writer) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", trailer)
		if err := write(r.Context(), w); err != nil {
			w.Header().Set(trailer, fmt.Sprintf("%q", err))
		}
	})
}

// Handler serves the pages to those who only read.
func Handler(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// Serve serves the pages until ctx ends, or returns why it cannot.
func Serve(ctx context.Context, pages http.Handler) error {
	return socket.Serve(ctx, Socket, partTimeout, Handler(pages))
}

// ErrNoDaemon means that no daemon answers in this network namespace.
var ErrNoDaemon = errors.New("no answer from the daemon")

// Fetch copies a page of the daemon to w.
func Fetch(ctx context.Context, w io.Writer, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nftproxy"+path, nil)
	if err != nil {
		return err
	}
	response, err := socket.Transport(Socket).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return fmt.Errorf("the daemon has no page %s: it is of another version", path)
	}
	if response.StatusCode != http.StatusOK { // of /healthz and /livez, whose body says why
		fmt.Fprintf(w, "HTTP status %s\n", response.Status)
	}
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("read %s of the daemon: %w", path, err)
	}
	if text := response.Trailer.Get(trailer); text != "" {
		return errors.New("the daemon: " + text)
	}
	return nil
}

package support

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/nftproxy/nftproxy/proxier/socket"
)

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

// Fetch copies a page of the daemon to w. The error is socket.ErrNoDaemon if none answers.
func Fetch(ctx context.Context, w io.Writer, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nftproxy"+path, nil)
	if err != nil {
		return err
	}
	response, err := socket.Do(socket.Name, request)
	if err != nil {
		return err
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

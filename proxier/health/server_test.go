package health

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestServerHardFail(t *testing.T) {
	taken := occupy(t, "127.0.0.1:0")
	s := &Server{Name: "metrics", Addr: taken.Addr().String(), Handler: http.NotFoundHandler(), HardFail: true}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := s.Run(ctx)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "serve metrics: ") {
		t.Errorf("Run = %v, want serve metrics: address in use", err)
	}
}

func TestServerBackoff(t *testing.T) {
	taken := occupy(t, "127.0.0.1:0")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var at []time.Duration
		s := &Server{Name: "metrics", Addr: taken.Addr().String(), Handler: http.NotFoundHandler()}
		s.Failed = func(err error) {
			if !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("Failed(%v), want address in use", err)
			}
			if at = append(at, time.Since(start)); len(at) == 7 {
				time.AfterFunc(time.Second, cancel)
			}
		}
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		const s1 = time.Second
		want := []time.Duration{0, s1 / 2, s1 * 3 / 2, s1 * 7 / 2, s1 * 15 / 2, s1 * 25 / 2, s1 * 35 / 2}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("times of the attempts (-want +got):\n%s", diff)
		}
		if got, want := time.Since(start), s1*37/2; got != want {
			t.Errorf("Run ended after %v, want %v: at once when its context does", got, want)
		}
	})
}

// TestServerRun serves once the address is free, on IPv4 and IPv6, and answers open requests before it stops.
func TestServerRun(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		taken := occupy(t, addr)
		asked, goOn := make(chan struct{}), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		freed := make(chan struct{})
		s := &Server{
			Name: "health",
			Addr: taken.Addr().String(),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(asked)
				<-goOn
				_, _ = io.WriteString(w, "served")
			}),
			Failed: func(error) { _ = taken.Close(); close(freed) },
		}
		ended, body := make(chan error, 1), make(chan string, 1)
		go func() { ended <- s.Run(ctx) }()
		<-freed
		go func() { body <- getUntilServed(t, "http://"+s.Addr) }()
		<-asked
		cancel()
		select {
		case err := <-ended:
			t.Errorf("Run returned %v before the open request was answered", err)
		case <-time.After(50 * time.Millisecond):
		}
		close(goOn)
		if got := <-body; got != "served" {
			t.Errorf("body %q, want served", got)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
}

// getUntilServed asks until the connection is not refused.
func getUntilServed(t *testing.T, url string) string {
	deadline := time.Now().Add(10 * time.Second)
	for ; time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		resp, err := client.Get(url)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			t.Error(err)
			return ""
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return string(body)
	}
	t.Errorf("%s: never served", url)
	return ""
}

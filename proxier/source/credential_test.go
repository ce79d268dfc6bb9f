package source

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"
)

// guarded is an API server with TLS that has one Node and accepts one token. Its connections are in memory.
type guarded struct {
	mu          sync.Mutex
	certificate *tls.Certificate
	token       string
	conns       []net.Conn

	connections chan net.Conn
}

func startGuarded(t *testing.T) *guarded {
	g := &guarded{connections: make(chan net.Conn)}
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.certificate, nil
	}}
	server := &http.Server{Handler: g, TLSConfig: config}
	done := make(chan struct{})
	go func() {
		_ = server.Serve(tls.NewListener(pipeListener{g.connections}, config))
		close(done)
	}()
	t.Cleanup(func() {
		close(g.connections)
		<-done
		_ = server.Close()
	})
	return g
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.Header.Get("Authorization") != "Bearer "+g.token {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","reason":"Unauthorized","code":401}`)
		return
	}
	_, _ = io.WriteString(w,
		`{"kind":"NodeList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"here"}}]}`)
}

func (g *guarded) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	g.mu.Lock()
	g.conns = append(g.conns, theirs)
	g.mu.Unlock()
	select {
	case g.connections <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// renew gives the server another certificate and another token, and breaks its connections. It returns the
// certificate, which signs itself.
func (g *guarded) renew(t *testing.T, token string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "api"},
		DNSNames: []string{"api"}, NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.certificate, g.token = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, token
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.conns = nil
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestCredentialFiles replaces the files of a token and of a certificate authority: the client reads them
// anew, a token after at most a minute and an authority after at most five.
func TestCredentialFiles(t *testing.T) {
	dir := t.TempDir()
	token, ca := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	synctest.Test(t, func(t *testing.T) {
		g := startGuarded(t)
		defer g.renew(t, "") // the connections end with the test
		must(t, os.WriteFile(ca, g.renew(t, "first"), 0o600))
		must(t, os.WriteFile(token, []byte("first"), 0o600))
		client, err := NewClientFor(&rest.Config{Host: "https://api", Dial: g.dial, QPS: -1,
			BearerTokenFile: token, TLSClientConfig: rest.TLSClientConfig{CAFile: ca}})
		must(t, err)
		ask := func(refusal string) {
			t.Helper()
			_, err := client.Node(t.Context(), "here")
			switch {
			case refusal == "":
				must(t, err)
			case err == nil || !strings.Contains(err.Error(), refusal):
				t.Errorf("got the error %v, want one with %q", err, refusal)
			}
		}
		ask("")
		g.mu.Lock()
		g.token = "second"
		g.mu.Unlock()
		must(t, os.WriteFile(token, []byte("second"), 0o600))
		ask("asked for the client to provide credentials")
		time.Sleep(time.Minute)
		ask("")
		must(t, os.WriteFile(ca, g.renew(t, "second"), 0o600))
		ask("certificate signed by unknown authority")
		time.Sleep(5 * time.Minute)
		ask("")
	})
}

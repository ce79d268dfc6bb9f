package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// asCommand makes the test program nftproxy: a test runs the command in a process of its own with it.
const asCommand = "NFTPROXY_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	lab.Main(m)
}

// process returns nftproxy as a process, with a secret in its environment.
func process(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "SECRET=secret-of-the-environment")
	return cmd
}

// startDaemon starts the daemon, which ends with the test.
func startDaemon(t *testing.T, args ...string) {
	t.Helper()
	cmd := process(append([]string{"--hostname-override=node-a", "--oom-score-adj=0"}, args...)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the daemon: %v\n%s", err, log.String())
		}
	})
}

// collect runs nftproxy support-bundle, and returns the files in the archive and what the command said.
func collect(t *testing.T) (files map[string]string, said string) {
	t.Helper()
	cmd := process("support-bundle", "--hostname-override=node-a", "--output=-")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	zip, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, log.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(header.Name, "nftproxy-node-a-2") {
			t.Errorf("file %s, want it in a directory with node and time", header.Name)
		}
		files[path.Base(header.Name)] = string(text)
	}
}

// collectUntil collects until a file has a text, and then once more: the files before this one are older.
func collectUntil(t *testing.T, file, text string) (files map[string]string, said string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		files, _ = collect(t)
		if strings.Contains(files[file], text) {
			return collect(t)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has no %q after 20 s: %s\n%s\n%s", file, text, files[file], files["index.txt"],
				files["log.txt"])
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestSupportBundle asks a daemon that runs, and one that logs as JSON.
func TestSupportBundle(t *testing.T) {
	formats := map[string]string{"text": `] "Starting" version=`, "json": `"msg":"Starting"`}
	for format, starting := range formats {
		t.Run(format, func(t *testing.T) {
			if !lab.Alone(t) {
				return
			}
			startDaemon(t, "--source="+demo, "--cluster-cidr=10.244.0.0/16", "--logging-format="+format)
			files, said := collectUntil(t, "diff.nft", "# the kernel has what nftproxy wants")
			for file, want := range map[string]string{
				"version.txt":    "node node-a\n",
				"sysctls.txt":    "net/ipv4/ip_forward = ",
				"conntrack.txt":  "dropped 0\n",
				"network.txt":    "127.0.0.1/8",
				"check.txt":      "ok ",
				"table-ip.nft":   `comment "default/web:http"`,
				"table-ip6.nft":  "\ttype nat hook prerouting",
				"objects.json":   `"name":"web","namespace":"default"`,
				"configz.json":   `"clusterCIDR":"10.244.0.0/16"`,
				"flagz.txt":      "cluster-cidr=10.244.0.0/16",
				"statusz.txt":    "Binary version: ",
				"healthz.json":   `"healthy":true`,
				"livez.json":     `"healthy":true`,
				"metrics.txt":    "kubeproxy_sync_proxy_rules_duration_seconds_count",
				"log.txt":        starting,
				"goroutines.txt": "answerCommands",
			} {
				if !strings.Contains(files[file], want) {
					t.Errorf("%s has no %q:\n%.2000s", file, want, files[file])
				}
				if !strings.Contains(files["index.txt"], file+" ") {
					t.Errorf("the index has no %s", file)
				}
			}
			if strings.Contains(files["table-ip.nft"], "\t# ") {
				t.Errorf("a rule that the daemon does not know:\n%s", files["table-ip.nft"])
			}
			if strings.Contains(files["index.txt"], "failed") || !strings.Contains(said, "wrote stdout, ") {
				t.Errorf("index:\n%s\nsaid:\n%s", files["index.txt"], said)
			}
		})
	}
}

// TestSupportBundleAlone collects without a daemon, into a file.
func TestSupportBundleAlone(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	files, said := collect(t)
	if !strings.Contains(files["table-ip.nft"], "the kernel has no table ip nftproxy") {
		t.Errorf("table: %s", files["table-ip.nft"])
	}
	noAnswer := strings.Contains(files["index.txt"], "no answer from the daemon")
	if !strings.Contains(files["check.txt"], "ok ") || !noAnswer {
		t.Errorf("check:\n%s\nindex:\n%s", files["check.txt"], files["index.txt"])
	}
	if strings.Count(said, "no nftproxy answers in this network namespace") != 1 {
		t.Errorf("said %q", said)
	}
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	out, err := process("support-bundle", "--output="+file).CombinedOutput()
	info, statErr := os.Stat(file)
	if err != nil || statErr != nil {
		t.Fatalf("errors %v, %v: %s", err, statErr, out)
	}
	size := fmt.Sprintf("wrote %s, %d kB", file, (info.Size()+999)/1000)
	if !strings.Contains(string(out), size) || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, said %s; want %q", info.Mode(), out, size)
	}
}

// TestSupportBundleHasNoSecrets asks a daemon that logs all it can while it sends its credentials to an API
// server: none of them is in a file.
func TestSupportBundleHasNoSecrets(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	const token = "c2VjcmV0-token-of-the-kubeconfig"
	certificate, key := credentials(t)
	encode := base64.StdEncoding.EncodeToString
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s, client-certificate-data: %s, client-key-data: %s}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, token, encode(certificate), encode(key)), 0o600); err != nil {
		t.Fatal(err)
	}
	startDaemon(t, "--kubeconfig="+kubeconfig, "--v=10")
	files, _ := collectUntil(t, "log.txt", "Authorization")
	block, _ := pem.Decode(key)
	keyLine := strings.Split(string(key), "\n")[1]
	for name, text := range files {
		for _, secret := range []string{token, encode(key), encode(block.Bytes), keyLine, "PRIVATE KEY",
			"secret-of-the-environment"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", name, secret)
			}
		}
	}
	if !strings.Contains(files["flagz.txt"], "kubeconfig="+kubeconfig) {
		t.Errorf("the daemon had another kubeconfig: %s", files["flagz.txt"])
	}
}

// credentials returns a client certificate and its key.
func credentials(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// Package controlplane runs a real control plane for tests: etcd and kube-apiserver as processes that listen
// on loopback.
//
// A fake API server would not restart, lose its watches or check permissions as the real one does. There are
// no controllers: a test creates every object that it needs, EndpointSlices included. The processes end with
// the test.
//
// Start reading at Start; Build compiles the binary.
package controlplane

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// The ranges of Service IPs.
const (
	ServiceCIDR4 = "10.96.0.0/16"
	ServiceCIDR6 = "fd00:10:96::/112"
)

// Options are the parameters of a control plane.
type Options struct {
	// Binary is the path that Build returned.
	Binary string
	// Dir is the directory for data, credentials and logs.
	Dir string
}

// ControlPlane is etcd and an API server with RBAC. A test can stop and start each of them.
type ControlPlane struct {
	Etcd      *Process
	APIServer *Process

	// EtcdAddr is the address of etcd, which listens without TLS.
	EtcdAddr string
	// AdminKubeconfig is the path of a kubeconfig for a user with all permissions.
	AdminKubeconfig string
	// ProxyKubeconfig is the path of a kubeconfig for the ServiceAccount kube-system/nftproxy. It has the
	// permissions of every authenticated user until a test grants it more.
	ProxyKubeconfig string

	dir     string
	clients *authority
}

// Start starts etcd and an API server in the network namespace of the calling thread, where lo must be up. It
// returns when the API server is ready. The processes end with Close or with the calling process.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	c, err := prepare(o)
	if err != nil {
		return nil, fmt.Errorf("start control plane: %w", err)
	}
	for _, p := range []*Process{c.Etcd, c.APIServer} {
		if err := p.Start(ctx); err != nil {
			c.Close()
			return nil, fmt.Errorf("start control plane: %w", err)
		}
	}
	return c, nil
}

// Close kills the running processes. It does not delete the directory.
func (c *ControlPlane) Close() {
	c.APIServer.Kill()
	c.Etcd.Kill()
}

// DeleteData deletes all objects of the cluster. etcd must not be running.
func (c *ControlPlane) DeleteData() error {
	if c.Etcd.Running() {
		return errors.New("delete the data of etcd: etcd is running")
	}
	if err := os.RemoveAll(c.dataDir()); err != nil {
		return fmt.Errorf("delete the data of etcd: %w", err)
	}
	return nil
}

// SaveData keeps a copy of all objects of the cluster, in place of the last one. etcd must not be running.
func (c *ControlPlane) SaveData() error {
	if c.Etcd.Running() {
		return errors.New("save the data of etcd: etcd is running")
	}
	if err := os.RemoveAll(c.savedDir()); err != nil {
		return fmt.Errorf("save the data of etcd: %w", err)
	}
	if err := os.CopyFS(c.savedDir(), os.DirFS(c.dataDir())); err != nil {
		return fmt.Errorf("save the data of etcd: %w", err)
	}
	return nil
}

// RestoreData replaces all objects of the cluster, and their revisions, by those that SaveData kept. etcd
// must not be running; the API server must be started anew.
func (c *ControlPlane) RestoreData() error {
	if err := c.DeleteData(); err != nil {
		return err
	}
	if err := os.CopyFS(c.dataDir(), os.DirFS(c.savedDir())); err != nil {
		return fmt.Errorf("restore the data of etcd: %w", err)
	}
	return nil
}

func (c *ControlPlane) savedDir() string { return filepath.Join(c.dir, "etcd-saved") }

func (c *ControlPlane) dataDir() string { return filepath.Join(c.dir, "etcd") }

// prepare chooses ports and writes credentials.
func prepare(o Options) (*ControlPlane, error) {
	var addrs [3]string // etcd for clients, etcd for peers, API server
	for i := range addrs {
		var err error
		if addrs[i], err = freeAddr(); err != nil {
			return nil, err
		}
	}
	c := &ControlPlane{dir: o.Dir, EtcdAddr: addrs[0]}
	files, err := writeCredentials(o.Dir, "https://"+addrs[2])
	if err != nil {
		return nil, err
	}
	c.AdminKubeconfig, c.ProxyKubeconfig, c.clients = files.admin, files.proxy, files.clients
	client, peer := "http://"+addrs[0], "http://"+addrs[1]
	c.Etcd = &Process{
		name: "etcd", binary: o.Binary, log: filepath.Join(o.Dir, "etcd.log"),
		args: []string{
			"--data-dir=" + c.dataDir(), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=default=" + peer,
		},
		ready: func() error { return getOK(addrs[0], "/health", "", nil) },
	}
	_, port, _ := net.SplitHostPort(addrs[2])
	c.APIServer = &Process{
		name: "kube-apiserver", binary: o.Binary, log: filepath.Join(o.Dir, "kube-apiserver.log"),
		args: []string{
			"--etcd-servers=" + client,
			"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=" + port,
			"--cert-dir=" + files.certDir,
			"--token-auth-file=" + files.tokens, "--client-ca-file=" + files.clientCA,
			"--authorization-mode=RBAC",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-signing-key-file=" + files.signingKey,
			"--service-account-key-file=" + files.signingKey,
			"--service-cluster-ip-range=" + ServiceCIDR4 + "," + ServiceCIDR6,
			"--endpoint-reconciler-type=none",            // a loopback address is not a valid endpoint
			"--disable-admission-plugins=ServiceAccount", // no controller creates the accounts
			"--allow-privileged",
			"--shutdown-watch-termination-grace-period=1s", // otherwise Stop takes a minute with open watches
		},
		ready: func() error {
			return getOK(addrs[2], "/readyz", files.adminToken, &tls.Config{InsecureSkipVerify: true})
		},
	}
	return c, nil
}

// freeAddr returns a loopback address with a free port.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// getOK returns nil if the response to a GET has status 200. Unlike net/http, it connects on the calling
// thread, whose network namespace it uses.
func getOK(addr, path, token string, encryption *tls.Config) error {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if encryption != nil {
		conn = tls.Client(conn, encryption)
	}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: " + addr +
		"\r\nAuthorization: Bearer " + token + "\r\nConnection: close\r\n\r\n"
	if _, err := conn.Write([]byte(request)); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: status %s", path, answer.Status)
	}
	return nil
}

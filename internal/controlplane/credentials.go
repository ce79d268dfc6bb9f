package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// credentials are the files for authentication.
type credentials struct {
	certDir    string // the API server puts its self-signed certificate there
	tokens     string
	signingKey string
	clientCA   string // certificate of the authority
	clients    *authority
	admin      string // kubeconfig
	proxy      string // kubeconfig
	adminToken string
}

// writeCredentials writes credentials for the API server at url to dir. The users and the ServiceAccount have
// static tokens. RBAC treats a static token of a ServiceAccount like an issued one, and it is valid at once.
func writeCredentials(dir, url string) (credentials, error) {
	c := credentials{
		certDir:    filepath.Join(dir, "certificates"),
		tokens:     filepath.Join(dir, "tokens.csv"),
		signingKey: filepath.Join(dir, "service-account.key"),
		clientCA:   filepath.Join(dir, "client-ca.crt"),
		admin:      filepath.Join(dir, "admin.kubeconfig"),
		proxy:      filepath.Join(dir, "nftproxy.kubeconfig"),
		adminToken: rand.Text(),
	}
	proxyToken := rand.Text()
	users := fmt.Sprintf("%s,admin,admin,system:masters\n"+
		"%s,system:serviceaccount:kube-system:nftproxy,nftproxy,%q\n",
		c.adminToken, proxyToken, "system:serviceaccounts,system:serviceaccounts:kube-system")
	if err := os.WriteFile(c.tokens, []byte(users), 0o600); err != nil {
		return c, fmt.Errorf("write tokens: %w", err)
	}
	if err := writeKey(c.signingKey); err != nil {
		return c, fmt.Errorf("write signing key: %w", err)
	}
	var err error
	if c.clients, err = newAuthority(c.clientCA); err != nil {
		return c, fmt.Errorf("write the authority of client certificates: %w", err)
	}
	ca := filepath.Join(c.certDir, "apiserver.crt")
	for file, token := range map[string]string{c.admin: c.adminToken, c.proxy: proxyToken} {
		if err := writeKubeconfig(file, url, ca, token); err != nil {
			return c, fmt.Errorf("write kubeconfig: %w", err)
		}
	}
	return c, nil
}

func writeKey(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func writeKubeconfig(file, url, ca, token string) error {
	const name = "test"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: url, CertificateAuthority: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, file)
}

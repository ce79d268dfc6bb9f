package source

import (
	"errors"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// ClientConfig configures the connection to an API server, as kube-proxy's clientConnection and --master do.
// Without Kubeconfig and Master, it is the API server of the cluster in which the process is a pod.
type ClientConfig struct {
	Kubeconfig string // path of a kubeconfig file
	Master     string // URL of the API server, overrides the one in Kubeconfig

	QPS                float32 // requests per second; 0 is client-go's default, negative is unlimited
	Burst              int     // requests at once
	ContentType        string  // of requests; "" is protobuf
	AcceptContentTypes string  // of responses; "" is protobuf or else JSON

	UserAgent string // "" is client-go's default, which contains the name of the program
}

// placeholder stands in manifests/overlays/generic for the address of the API server.
const placeholder = "API-SERVER-ADDRESS"

var errPlaceholder = errors.New("the address of the API server is the placeholder " + placeholder +
	": set it, for example in overlays/generic/api-server.yaml, to an address that works without a service " +
	"proxy, which the ClusterIP of the API server is not")

func (cfg ClientConfig) connection() (*rest.Config, error) {
	var c *rest.Config
	var err error
	if cfg.Kubeconfig == "" && cfg.Master == "" {
		if strings.Contains(os.Getenv("KUBERNETES_SERVICE_HOST"), placeholder) {
			return nil, errPlaceholder
		}
		c, err = rest.InClusterConfig()
	} else {
		c, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: cfg.Kubeconfig},
			&clientcmd.ConfigOverrides{ClusterInfo: clientcmdapi.Cluster{Server: cfg.Master}},
		).ClientConfig()
	}
	if err != nil {
		return nil, err
	}
	if strings.Contains(c.Host, placeholder) {
		return nil, errPlaceholder
	}
	c.QPS, c.Burst, c.UserAgent = cfg.QPS, cfg.Burst, cfg.UserAgent
	c.ContentType, c.AcceptContentTypes = cfg.ContentType, cfg.AcceptContentTypes
	if c.ContentType == "" {
		c.ContentType = runtime.ContentTypeProtobuf
	}
	if c.AcceptContentTypes == "" {
		c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	return c, nil
}

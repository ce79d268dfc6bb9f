package takeover

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// Leftover is something that kube-proxy left outside nftables.
type Leftover struct {
	What   string
	Advice string // the commands that remove it
}

// FindOutside returns what kube-proxy left outside nftables, which nftproxy does not remove.
func FindOutside() (left []Leftover, err error) {
	tables, err := XTables()
	var chains []string
	for _, t := range tables {
		theirs := slices.DeleteFunc(t.Chains, func(c kernel.TableChain) bool { return !ofKubeProxy(c) })
		if n := len(theirs); n > 0 {
			chains = append(chains, fmt.Sprintf("chains KUBE-* of table %s %s (%d)", t.Family, t.Name, n))
		}
	}
	if len(chains) > 0 {
		left = append(left, Leftover{"rules of iptables-legacy: " + strings.Join(chains, ", "),
			"run `kube-proxy --cleanup` from kube-proxy's image on this node"})
	}
	v, ipvsErr := FindIPVS()
	if v.KubeProxy() {
		left = append(left, Leftover{v.String(),
			"when the connections through them have ended, run `ipvsadm --clear` and " +
				"`ip link delete kube-ipvs0`, or `kube-proxy --cleanup` from its image"})
	}
	return left, errors.Join(err, ipvsErr)
}

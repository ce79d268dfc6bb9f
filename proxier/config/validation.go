package config

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/nftproxy/nftproxy/proxier/address"
)

// validate checks the defaulted k as kube-proxy does in mode nftables. The error
// joins one *field.Error for each setting that is wrong, which names the field, the
// value and what is allowed.
func validate(k *v1alpha1.KubeProxyConfiguration) error {
	var v validator
	v.mode(k)
	v.serving(k)
	v.pods(k)
	v.nodePortAddresses(k.NodePortAddresses)
	v.conntrack(&k.Conntrack)
	v.syncPeriods(k)
	v.within("iptables.masqueradeBit", *k.IPTables.MasqueradeBit, 0, 31)
	v.within("nftables.masqueradeBit", *k.NFTables.MasqueradeBit, 0, 31)
	v.within("oomScoreAdj", *k.OOMScoreAdj, -1000, 1000)
	for _, err := range logsapi.Validate(&k.Logging, logFeatures(k.FeatureGates), field.NewPath("logging")) {
		v.errs = append(v.errs, err)
	}
	return errors.Join(v.errs...)
}

type validator struct {
	errs []error
}

func (v *validator) invalid(path string, value any, allowed string) {
	v.errs = append(v.errs, field.Invalid(field.NewPath(path), value, allowed))
}

func (v *validator) within(path string, value, low, high int32) {
	if value < low || value > high {
		v.invalid(path, value, fmt.Sprintf("must be within %d to %d", low, high))
	}
}

func (v *validator) notNegative(path string, d time.Duration) {
	if d < 0 {
		v.invalid(path, d.String(), "must not be negative")
	}
}

func (v *validator) positive(path string, d time.Duration) {
	if d <= 0 {
		v.invalid(path, d.String(), "must be greater than 0")
	}
}

func (v *validator) mode(k *v1alpha1.KubeProxyConfiguration) {
	switch k.Mode {
	case "", ModeNFTables, ModeIPTables, ModeIPVS:
	default:
		v.invalid("mode", k.Mode, "must be nftables, or one of those that nftproxy stands in for: iptables, ipvs or empty")
	}
}

func (v *validator) serving(k *v1alpha1.KubeProxyConfiguration) {
	if _, err := address.ParseAddr(k.BindAddress); err != nil {
		v.invalid("bindAddress", k.BindAddress, "must be an IP address")
	}
	// Empty is what flags that turn the server off leave.
	if err := checkAddrPort(k.HealthzBindAddress); err != nil && k.HealthzBindAddress != "" {
		v.invalid("healthzBindAddress", k.HealthzBindAddress, "must be IP:port: "+err.Error())
	}
	if err := checkAddrPort(k.MetricsBindAddress); err != nil && k.MetricsBindAddress != "" {
		v.invalid("metricsBindAddress", k.MetricsBindAddress, "must be IP:port: "+err.Error())
	}
	if k.ClientConnection.Burst < 0 {
		v.invalid("clientConnection.burst", k.ClientConnection.Burst, "must not be negative")
	}
	v.positive("configSyncPeriod", k.ConfigSyncPeriod.Duration)
}

// pods checks what tells the traffic of this cluster's pods from other traffic.
func (v *validator) pods(k *v1alpha1.KubeProxyConfiguration) {
	switch k.DetectLocalMode {
	case LocalModeClusterCIDR:
		v.clusterCIDR(k.ClusterCIDR)
	case LocalModeNodeCIDR:
	case LocalModeBridgeInterface:
		v.interfaceName("detectLocal.bridgeInterface", k.DetectLocal.BridgeInterface, k.DetectLocalMode)
	case LocalModeInterfaceNamePrefix:
		v.interfaceName("detectLocal.interfaceNamePrefix", k.DetectLocal.InterfaceNamePrefix, k.DetectLocalMode)
	default:
		v.invalid("detectLocalMode", k.DetectLocalMode, fmt.Sprintf("must be %s, %s, %s or %s",
			LocalModeClusterCIDR, LocalModeNodeCIDR, LocalModeBridgeInterface, LocalModeInterfaceNamePrefix))
	}
}

func (v *validator) clusterCIDR(list string) {
	if list == "" {
		return
	}
	const allowed = "must be one CIDR, or one of each family with a comma between (e.g. 10.244.0.0/16,fd00:10:244::/56)"
	var v4, v6 int
	for s := range strings.SplitSeq(list, ",") {
		p, err := address.ParsePrefix(s)
		if err != nil {
			v.invalid("clusterCIDR", list, allowed+": "+err.Error())
			return
		}
		if p.Addr().Is4() {
			v4++
		} else {
			v6++
		}
	}
	if v4 > 1 || v6 > 1 {
		v.invalid("clusterCIDR", list, allowed)
	}
}

// interfaceName checks a name, or the beginning of names, of network interfaces. The
// kernel has at most 15 bytes for them.
func (v *validator) interfaceName(path, name string, mode v1alpha1.LocalMode) {
	switch {
	case name == "":
		v.errs = append(v.errs, field.Required(field.NewPath(path), fmt.Sprintf("detectLocalMode %s needs it", mode)))
	case len(name) > 15 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || strings.ContainsRune("/:\"\\*\x7f", r) }):
		v.invalid(path, name, "must be the name of a network interface: at most 15 bytes, no blanks, none of / : \" \\ *")
	}
}

func (v *validator) nodePortAddresses(list []string) {
	for i, s := range list {
		if s == nodePortsPrimary || s == nodePortsLocalhost || s == nodePortsAll {
			continue
		}
		if _, err := address.ParsePrefix(s); err != nil {
			v.invalid(fmt.Sprintf("nodePortAddresses[%d]", i), s,
				"must be a CIDR, or one of the keywords primary, localhost and all")
		}
	}
}

func (v *validator) conntrack(c *v1alpha1.KubeProxyConntrackConfiguration) {
	if *c.MaxPerCore < 0 {
		v.invalid("conntrack.maxPerCore", *c.MaxPerCore, "must not be negative")
	}
	if *c.Min < 0 {
		v.invalid("conntrack.min", *c.Min, "must not be negative")
	}
	v.notNegative("conntrack.tcpEstablishedTimeout", c.TCPEstablishedTimeout.Duration)
	v.notNegative("conntrack.tcpCloseWaitTimeout", c.TCPCloseWaitTimeout.Duration)
	v.notNegative("conntrack.udpTimeout", c.UDPTimeout.Duration)
	v.notNegative("conntrack.udpStreamTimeout", c.UDPStreamTimeout.Duration)
}

func (v *validator) syncPeriods(k *v1alpha1.KubeProxyConfiguration) {
	full, least := k.NFTables.SyncPeriod.Duration, k.NFTables.MinSyncPeriod.Duration
	v.positive("nftables.syncPeriod", full)
	v.notNegative("nftables.minSyncPeriod", least)
	if least > full && full > 0 {
		v.invalid("nftables.minSyncPeriod", least.String(), fmt.Sprintf("must not be greater than nftables.syncPeriod, %s", full))
	}
}

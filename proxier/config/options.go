package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// Options are the flags before they are a Config.
type Options struct {
	kube             v1alpha1.KubeProxyConfiguration // what settings and logging write to
	configFile       string
	writeConfigTo    string
	master           string
	hostnameOverride string
	initOnly         bool
	cleanup          bool
	source           string
	dryRun           bool
	ownTables        bool
	takeOver         bool
	healthzPort      int32
	metricsPort      int32

	settings *pflag.FlagSet // flags that stand for fields of the file
	logging  *pflag.FlagSet // those of component-base, for the field logging
}

// NewOptions returns Options with every flag at its default.
func NewOptions() *Options {
	o := &Options{
		healthzPort: healthzPort,
		metricsPort: metricsPort,
		settings:    pflag.NewFlagSet("settings", pflag.ContinueOnError),
		logging:     pflag.NewFlagSet("logging", pflag.ContinueOnError),
	}
	setDefaults(&o.kube)
	return o
}

// Complete builds the Config after the flags were parsed: it reads the file of
// --config if there is one, applies the flags over it that win over it, fills in
// defaults and validates. The warnings are for the log, one line each: what was given
// and does not take effect, or not as with kube-proxy. An error about settings names
// every one that is wrong.
func (o *Options) Complete() (*Config, []string, error) {
	c := &Config{
		WriteConfigTo: o.writeConfigTo,
		Master:        o.master,
		InitOnly:      o.initOnly,
		Cleanup:       o.cleanup,
		Source:        o.source,
		DryRun:        o.dryRun,
		OwnTables:     o.ownTables,
		TakeOver:      o.takeOver,
	}
	var warnings []string
	if o.configFile == "" {
		warnings = o.applyFlags(c)
	} else {
		var err error
		if warnings, err = c.load(o.configFile); err != nil {
			return nil, nil, err
		}
		warnings = append(warnings, o.overrideSettings(c)...)
		if err := overrideLogging(&c.Kube.Logging, o.logging); err != nil {
			return nil, nil, err
		}
	}
	if o.hostnameOverride != "" {
		name := strings.ToLower(strings.TrimSpace(o.hostnameOverride))
		if name == "" {
			return nil, nil, errors.New("--hostname-override must not be blank")
		}
		c.Kube.HostnameOverride = name
	}
	setLateDefaults(&c.Kube)
	if err := validate(&c.Kube); err != nil {
		return nil, nil, fmt.Errorf("invalid configuration:\n%w", err)
	}
	c.Kube.Mode = ModeNFTables
	return c, append(warnings, loopbackWarnings(&c.Kube)...), nil
}

// applyFlags makes the flags the configuration of c.
func (o *Options) applyFlags(c *Config) (warnings []string) {
	c.Kube = *o.kube.DeepCopy()
	c.MinSyncPeriodSet = o.settings.Changed("iptables-min-sync-period")
	if o.settings.Changed("proxy-mode") && c.Kube.Mode != ModeNFTables {
		warnings = append(warnings, modeWarning(c.Kube.Mode))
	}
	for _, server := range []struct {
		address   *string
		port      int32
		flag, use string
	}{
		{&c.Kube.HealthzBindAddress, o.healthzPort, "healthz-port", "healthz-bind-address"},
		{&c.Kube.MetricsBindAddress, o.metricsPort, "metrics-port", "metrics-bind-address"},
	} {
		switch before := *server.address; {
		case server.port == 0:
			*server.address = ""
		case before == "":
		default:
			*server.address = withPort(before, server.port)
			if o.settings.Changed(server.flag) && *server.address == before {
				warnings = append(warnings, fmt.Sprintf("--%s has no effect beside the port of --%s, %s",
					server.flag, server.use, before))
			}
		}
	}
	return append(warnings, withoutEffect(&c.Kube, false)...)
}

// rulesetFlag is a flag that wins over the file, unlike with kube-proxy.
type rulesetFlag struct {
	flag, field string
	copy        func(to, from *v1alpha1.KubeProxyConfiguration)
}

func rulesetFlags() []rulesetFlag {
	type kube = v1alpha1.KubeProxyConfiguration
	return []rulesetFlag{
		{"cluster-cidr", "clusterCIDR", func(to, from *kube) { to.ClusterCIDR = from.ClusterCIDR }},
		{"detect-local-mode", "detectLocalMode", func(to, from *kube) { to.DetectLocalMode = from.DetectLocalMode }},
		{"pod-bridge-interface", "detectLocal.bridgeInterface",
			func(to, from *kube) { to.DetectLocal.BridgeInterface = from.DetectLocal.BridgeInterface }},
		{"pod-interface-name-prefix", "detectLocal.interfaceNamePrefix",
			func(to, from *kube) { to.DetectLocal.InterfaceNamePrefix = from.DetectLocal.InterfaceNamePrefix }},
		{"nodeport-addresses", "nodePortAddresses",
			func(to, from *kube) { to.NodePortAddresses = slices.Clone(from.NodePortAddresses) }},
		{"masquerade-all", "nftables.masqueradeAll",
			func(to, from *kube) { to.NFTables.MasqueradeAll = from.NFTables.MasqueradeAll }},
		{"iptables-masquerade-bit", "nftables.masqueradeBit",
			func(to, from *kube) { *to.NFTables.MasqueradeBit = *from.NFTables.MasqueradeBit }},
	}
}

// overrideSettings applies to c, which came from a file, those of the given flags
// that the ruleset depends on, and tells what becomes of every other one.
func (o *Options) overrideSettings(c *Config) (warnings []string) {
	flags := rulesetFlags()
	o.settings.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		i := slices.IndexFunc(flags, func(r rulesetFlag) bool { return r.flag == f.Name })
		if i < 0 {
			warnings = append(warnings, fmt.Sprintf("--%s is passed over: with --config the file counts", f.Name))
			return
		}
		flags[i].copy(&c.Kube, &o.kube)
		warnings = append(warnings, fmt.Sprintf(
			"--%s wins over %s of the configuration file; kube-proxy would have passed it over", f.Name, flags[i].field))
	})
	return warnings
}

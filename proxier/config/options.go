package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/pflag"

	"github.com/nftproxy/nftproxy/proxier/address"
)

// hostnameFlag overrides the file in kube-proxy, too, so that all nodes can share a file.
const hostnameFlag = "hostname-override"

// Options are the flags, from which Complete makes a Config.
type Options struct {
	config           Config // what most flags set
	hostnameOverride string
	healthzPort      int32
	metricsPort      int32

	settings *pflag.FlagSet // the flags for fields of the file, except hostnameFlag and logging
	logging  *pflag.FlagSet // the flags of component-base, for the field logging
}

// NewOptions returns Options with every flag at its default.
func NewOptions() *Options {
	o := &Options{
		settings: pflag.NewFlagSet("settings", pflag.ContinueOnError),
		logging:  pflag.NewFlagSet("logging", pflag.ContinueOnError),
	}
	setDefaults(&o.config.Kube)
	for _, s := range settings() {
		if s.variable != nil && s.def != nil {
			setDefault(reflect.ValueOf(s.variable(o)).Elem(), s.def)
		}
	}
	return o
}

// Complete builds the Config after the flags were parsed: it reads the file of --config if there is one,
// applies the flags that override it, fills in defaults and validates. The warnings are for the log, one line
// each, about every setting that has no effect or a different one than in kube-proxy. An error about settings
// names every invalid one.
func (o *Options) Complete() (*Config, []string, error) {
	c := o.config
	c.options = o
	c.Kube = *o.config.Kube.DeepCopy()
	var warnings []string
	if c.ConfigFile == "" {
		warnings = o.completeFlags(&c)
	} else {
		var err error
		if warnings, err = c.load(); err != nil {
			return nil, nil, err
		}
		warnings = append(warnings, o.override(&c)...)
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
	for _, s := range c.AllowedExternalCIDRs {
		if _, err := address.ParsePrefix(s); err != nil {
			return nil, nil, fmt.Errorf("--allowed-external-cidrs: %w", err)
		}
	}
	warnings = append(warnings, withoutEffect(&c.Kube)...)
	warnings = append(warnings, c.adoptScheduler()...)
	setLateDefaults(&c.Kube)
	if err := validate(&c.Kube); err != nil {
		return nil, nil, fmt.Errorf("invalid configuration:\n%w", err)
	}
	c.Kube.Mode = ModeNFTables
	warnings = append(warnings, interfaceWarnings(&c)...)
	return &c, append(warnings, loopbackWarnings(&c.Kube)...), nil
}

// completeFlags completes c where the flags alone are its configuration.
func (o *Options) completeFlags(c *Config) (warnings []string) {
	c.MinSyncPeriodSet = o.settings.Changed("iptables-min-sync-period")
	if o.settings.Changed("proxy-mode") && c.Kube.Mode != ModeNFTables {
		warnings = append(warnings, modeWarning(c.Kube.Mode))
	}
	for _, server := range []struct {
		address            *string
		port               int32
		portFlag, addrFlag string
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
			if o.settings.Changed(server.portFlag) && *server.address == before {
				warnings = append(warnings, fmt.Sprintf("--%s has no effect: --%s has a port, %s",
					server.portFlag, server.addrFlag, before))
			}
		}
	}
	return warnings
}

// override applies the flags that override the file to c, which came from the file. It returns a warning for
// each flag that was given: kube-proxy ignores all of them.
func (o *Options) override(c *Config) (warnings []string) {
	flags := o.config.Kube.DeepCopy()
	for _, s := range settings() {
		switch {
		case s.flag == "" || !o.settings.Changed(s.flag):
		case s.overrides:
			plain(fieldOf(&c.Kube, s.field)).Set(plain(fieldOf(flags, s.field)))
			warnings = append(warnings, fmt.Sprintf("--%s overrides %s of the configuration file; "+
				"kube-proxy would ignore the flag", s.flag, s.field))
		default:
			warnings = append(warnings, fmt.Sprintf("--%s is ignored: --config is set", s.flag))
		}
	}
	return warnings
}

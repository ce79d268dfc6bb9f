package config

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
)

// LogFeatures are the feature gates of logging as featureGates sets them, for
// logsapi.ValidateAndApply. They are the only feature gates that mean anything here.
func (c *Config) LogFeatures() featuregate.FeatureGate {
	return logFeatures(c.Kube.FeatureGates)
}

func logFeatures(set map[string]bool) featuregate.FeatureGate {
	gate := featuregate.NewFeatureGate()
	known := map[string]bool{}
	for name, enabled := range set {
		if isLogFeature(name) {
			known[name] = enabled
		}
	}
	if err := logsapi.AddFeatureGates(gate); err != nil {
		panic(err) // a new gate takes any feature
	}
	if err := gate.SetFromMap(known); err != nil {
		panic(err) // and knows those just added
	}
	return gate
}

func isLogFeature(name string) bool {
	switch featuregate.Feature(name) {
	case logsapi.ContextualLogging, logsapi.LoggingAlphaOptions, logsapi.LoggingBetaOptions:
		return true
	}
	return false
}

// overrideLogging sets in to what the logging flags say that were given. Patterns of
// --vmodule go before those already there, so that they are the first to match.
func overrideLogging(to *logsapi.LoggingConfiguration, given *pflag.FlagSet) error {
	vmodule := to.VModule
	to.VModule = nil
	options := to.Options
	target := pflag.NewFlagSet("logging", pflag.ContinueOnError)
	logsapi.AddFlags(to, target)
	to.Options = options // AddFlags puts back some defaults
	var err error
	given.VisitAll(func(f *pflag.Flag) {
		if err != nil || !f.Changed {
			return
		}
		if setErr := target.Set(f.Name, f.Value.String()); setErr != nil {
			err = fmt.Errorf("--%s over the configuration file: %w", f.Name, setErr)
		}
	})
	to.VModule = append(to.VModule, vmodule...)
	return err
}

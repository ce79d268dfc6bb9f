package config

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
)

// LogFeatures returns the feature gates of logging with the values of featureGates, for
// logsapi.ValidateAndApply. No other feature gate has an effect.
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
		panic(err) // adding features to a new gate cannot fail
	}
	if err := gate.SetFromMap(known); err != nil {
		panic(err) // the gate knows each of them
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

// overrideLogging applies the logging flags that were given to the logging section of a file. Patterns of
// --vmodule go before those of the file, because klog uses the first one that matches.
func overrideLogging(to *logsapi.LoggingConfiguration, given *pflag.FlagSet) error {
	vmodule := to.VModule
	to.VModule = nil
	options := to.Options
	target := pflag.NewFlagSet("logging", pflag.ContinueOnError)
	logsapi.AddFlags(to, target)
	to.Options = options // AddFlags resets some of them to their defaults
	var err error
	given.VisitAll(func(f *pflag.Flag) {
		if err != nil || !f.Changed {
			return
		}
		if setErr := target.Set(f.Name, f.Value.String()); setErr != nil {
			err = fmt.Errorf("apply --%s to the configuration file: %w", f.Name, setErr)
		}
	})
	to.VModule = append(to.VModule, vmodule...)
	return err
}

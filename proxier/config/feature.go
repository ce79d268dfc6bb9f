package config

import (
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	zpages "k8s.io/component-base/zpages/features"
)

// Features returns the feature gates that have an effect, with the values of featureGates: those of logging,
// for logsapi.ValidateAndApply, and those of the pages /flagz and /statusz.
func (c *Config) Features() featuregate.MutableFeatureGate {
	return features(c.Kube.FeatureGates)
}

// ServeFlagz reports whether /flagz is served.
func (c *Config) ServeFlagz() bool { return c.Features().Enabled(zpages.ComponentFlagz) }

// ServeStatusz reports whether /statusz is served.
func (c *Config) ServeStatusz() bool { return c.Features().Enabled(zpages.ComponentStatusz) }

func features(set map[string]bool) featuregate.MutableFeatureGate {
	gate := featuregate.NewFeatureGate()
	known := map[string]bool{}
	for name, enabled := range set {
		if isFeature(name) {
			known[name] = enabled
		}
	}
	if err := logsapi.AddFeatureGates(gate); err != nil {
		panic(err) // adding features to a new gate cannot fail
	}
	if err := zpages.AddFeatureGates(gate); err != nil {
		panic(err) // likewise
	}
	if err := gate.SetFromMap(known); err != nil {
		panic(err) // the gate knows each of them
	}
	return gate
}

func isFeature(name string) bool {
	switch featuregate.Feature(name) {
	case logsapi.ContextualLogging, logsapi.LoggingAlphaOptions, logsapi.LoggingBetaOptions,
		zpages.ComponentFlagz, zpages.ComponentStatusz:
		return true
	}
	return false
}

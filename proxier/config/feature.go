package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	zpages "k8s.io/component-base/zpages/features"
	"k8s.io/klog/v2"
)

// allowServiceExternalIPs is the feature gate of KEP-5707: externalIPs are programmed only if it is on. It is
// on by default in kube-proxy 1.37; the KEP turns it off in 1.40.
const allowServiceExternalIPs featuregate.Feature = "AllowServiceExternalIPs"

// kubeProxyNFTablesLocalhostNodePorts is the feature gate of KEP-6032: nodePorts on loopback addresses in
// nftables mode. It is off by default in kube-proxy 1.37. Here it is on, as nodePortAddresses has to name
// loopback anyway.
const kubeProxyNFTablesLocalhostNodePorts featuregate.Feature = "KubeProxyNFTablesLocalhostNodePorts"

// Features returns the feature gates of kube-proxy with the values of featureGates.
func (c *Config) Features() featuregate.MutableFeatureGate {
	gate := newGate()
	if err := gate.SetFromMapWithLogger(klog.Logger{}, c.Kube.FeatureGates); err != nil {
		panic("configuration was not validated: " + err.Error())
	}
	return gate
}

// AllowServiceExternalIPs reports whether the externalIPs of Services are programmed.
func (c *Config) AllowServiceExternalIPs() bool { return c.Features().Enabled(allowServiceExternalIPs) }

// ServeFlagz reports whether /flagz is served.
func (c *Config) ServeFlagz() bool { return c.Features().Enabled(zpages.ComponentFlagz) }

// ServeStatusz reports whether /statusz is served.
func (c *Config) ServeStatusz() bool { return c.Features().Enabled(zpages.ComponentStatusz) }

func (c *Config) localhostNodePorts() bool { return localhostNodePorts(c.Kube.FeatureGates) }

// localhostNodePorts reports whether nodePorts are served on loopback addresses that nodePortAddresses names.
func localhostNodePorts(gates map[string]bool) bool {
	enabled, set := gates[string(kubeProxyNFTablesLocalhostNodePorts)]
	return enabled || !set
}

// isEffective reports whether a feature gate has an effect in nftproxy. The gates of all alpha and of all
// beta features turn on those of logging.
func isEffective(name string) bool {
	switch featuregate.Feature(name) {
	case allowServiceExternalIPs, kubeProxyNFTablesLocalhostNodePorts, "AllAlpha", "AllBeta",
		zpages.ComponentFlagz, zpages.ComponentStatusz,
		logsapi.ContextualLogging, logsapi.LoggingAlphaOptions, logsapi.LoggingBetaOptions:
		return true
	}
	return false
}

// gateSetter is a gate that does not have to log, for example that a gate is deprecated: nftproxy has its own
// warnings, and logs them once.
type gateSetter interface {
	featuregate.MutableFeatureGate
	SetFromMapWithLogger(logger klog.Logger, set map[string]bool) error
}

// newGate returns the gates of kube-proxy at their defaults.
func newGate() gateSetter {
	gate := featuregate.NewFeatureGate()
	specs := map[featuregate.Feature]featuregate.FeatureSpec{}
	for _, g := range knownGates() {
		for _, name := range strings.Fields(g.names) {
			specs[featuregate.Feature(name)] = g.spec
		}
	}
	dependencies := map[featuregate.Feature][]featuregate.Feature{}
	for line := range strings.Lines(gateDependencies()) {
		name, needs, _ := strings.Cut(line, ": ")
		for _, need := range strings.Fields(needs) {
			feature := featuregate.Feature(name)
			dependencies[feature] = append(dependencies[feature], featuregate.Feature(need))
		}
	}
	if err := gate.Add(specs); err != nil {
		panic(err) // the tables do not depend on any input
	}
	if err := gate.AddDependencies(dependencies); err != nil {
		panic(err)
	}
	return gate
}

// featureGates refuses what kube-proxy refuses, in its words: unknown gates, gates that are locked to their
// default, and gates that depend on others that are off.
func featureGates() rule {
	const must = "must be known to kube-proxy 1.37.1, and not locked to another value"
	return rule{must, func(k *kubeConfig, path *field.Path, _ reflect.Value) (errs field.ErrorList) {
		gate := newGate()
		known := gate.GetAll()
		for _, name := range slices.Sorted(maps.Keys(k.FeatureGates)) {
			spec, ok := known[featuregate.Feature(name)]
			value := k.FeatureGates[name]
			switch {
			case !ok:
				errs = append(errs, field.Invalid(path, name, "unrecognized feature gate: "+name))
			case spec.LockToDefault && spec.Default != value:
				errs = append(errs, field.Invalid(path, fmt.Sprintf("%s=%t", name, value), fmt.Sprintf(
					"cannot set feature gate %s to %t, feature is locked to %t", name, value, spec.Default)))
			}
		}
		if len(errs) > 0 {
			return errs
		}
		err := gate.SetFromMapWithLogger(klog.Logger{}, k.FeatureGates)
		if all, ok := errors.AsType[utilerrors.Aggregate](err); ok {
			for _, err := range all.Errors() {
				errs = append(errs, field.Invalid(path, fmt.Sprint(k.FeatureGates), err.Error()))
			}
		}
		slices.SortFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Detail, b.Detail) })
		return errs
	}}
}

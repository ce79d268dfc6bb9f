package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/nftproxy/nftproxy/proxier/address"
)

// validate checks the defaulted k as kube-proxy does in mode nftables. The error joins a *field.Error for
// each invalid setting, with the field, its value and the valid values.
func validate(k *kubeConfig) error {
	var errs []error
	add := func(list field.ErrorList) {
		for _, err := range list {
			errs = append(errs, err)
		}
	}
	for _, s := range settings() {
		// An empty mode of the file is iptables.
		if s.mode == "" || s.mode == ModeNFTables || s.mode == cmp.Or(k.Mode, ModeIPTables) {
			add(s.invalid(k))
		}
	}
	gate := newGate()
	_ = gate.SetFromMapWithLogger(klog.Logger{}, k.FeatureGates) // the rule of featureGates reports an error
	add(logsapi.Validate(&k.Logging, gate, field.NewPath("logging")))
	return errors.Join(errs...)
}

// invalid checks the setting in the defaulted k.
func (s *setting) invalid(k *kubeConfig) field.ErrorList {
	if s.valid.check == nil {
		return nil
	}
	return s.valid.check(k, field.NewPath(s.field), plain(fieldOf(k, s.field)))
}

// dropInvalid removes invalid values from the nftables section of a file that was written for another mode:
// kube-proxy does not read the section then. It returns a warning for each.
func dropInvalid(k *kubeConfig) (warnings []string) {
	if k.Mode == ModeNFTables {
		return nil
	}
	for _, s := range settings() {
		if s.mode != ModeNFTables {
			continue
		}
		defaulted := k.DeepCopy()
		setDefaults(defaulted)
		for _, err := range s.invalid(defaulted) {
			warnings = append(warnings, fmt.Sprintf("%s is ignored: %v", s.field, err))
			fieldOf(k, s.field).SetZero()
		}
	}
	return warnings
}

type kubeConfig = v1alpha1.KubeProxyConfiguration

// rule says which values of a setting are valid.
type rule struct {
	must  string // "must ...", for errors, the help and the documentation
	check func(k *kubeConfig, path *field.Path, value reflect.Value) field.ErrorList
}

// valueRule is a rule that depends on nothing but the value.
func valueRule(must string, valid func(reflect.Value) bool) rule {
	return rule{must, func(_ *kubeConfig, path *field.Path, v reflect.Value) field.ErrorList {
		if valid(v) {
			return nil
		}
		return invalid(path, v, must)
	}}
}

func invalid(path *field.Path, v reflect.Value, detail string) field.ErrorList {
	value := v.Interface()
	if d, ok := value.(time.Duration); ok {
		value = d.String()
	}
	return field.ErrorList{field.Invalid(path, value, detail)}
}

func notNegative() rule {
	return valueRule("must not be negative", func(v reflect.Value) bool { return v.Int() >= 0 })
}

func positive() rule {
	return valueRule("must be greater than 0", func(v reflect.Value) bool { return v.Int() > 0 })
}

func within(low, high int64) rule {
	return valueRule(fmt.Sprintf("must be within %d to %d", low, high),
		func(v reflect.Value) bool { return v.Int() >= low && v.Int() <= high })
}

func oneOf[T ~string](values ...T) rule {
	names := make([]string, len(values))
	for i, value := range values {
		if names[i] = string(value); value == "" {
			names[i] = "empty"
		}
	}
	last := len(names) - 1
	must := fmt.Sprintf("must be %s or %s", strings.Join(names[:last], ", "), names[last])
	return valueRule(must, func(v reflect.Value) bool {
		for _, value := range values {
			if v.String() == string(value) {
				return true
			}
		}
		return false
	})
}

func ipAddress() rule {
	return valueRule("must be an IP address", func(v reflect.Value) bool {
		_, err := address.ParseAddr(v.String())
		return err == nil
	})
}

// addressAndPort also accepts an empty value, to which flags set the address of a server that is turned off.
func addressAndPort() rule {
	const must = "must be IP or IP:port"
	return rule{must, func(_ *kubeConfig, path *field.Path, v reflect.Value) field.ErrorList {
		if err := checkAddrPort(v.String()); err != nil && v.String() != "" {
			return invalid(path, v, must+": "+err.Error())
		}
		return nil
	}}
}

// clusterCIDR is not checked where detectLocalMode does not use it, as in kube-proxy.
func clusterCIDR() rule {
	const must = "must be a CIDR, or a CIDR of each IP family separated by a comma " +
		"(e.g. 10.244.0.0/16,fd00:10:244::/56)"
	return rule{must, func(k *kubeConfig, path *field.Path, v reflect.Value) field.ErrorList {
		if k.DetectLocalMode != LocalModeClusterCIDR || k.ClusterCIDR == "" {
			return nil
		}
		families := map[bool]bool{}
		for s := range strings.SplitSeq(k.ClusterCIDR, ",") {
			p, err := address.ParsePrefix(s)
			if err != nil {
				return invalid(path, v, must+": "+err.Error())
			}
			if families[p.Addr().Is4()] {
				return invalid(path, v, must)
			}
			families[p.Addr().Is4()] = true
		}
		return nil
	}}
}

// interfaceName is the rule for the name of a network interface, or for a prefix of names, that mode needs.
// As in kube-proxy, it may be one that no interface can have; see PodInterface.
func interfaceName(mode v1alpha1.LocalMode) rule {
	must := fmt.Sprintf("must not be empty if detectLocalMode is %s", mode)
	return rule{must, func(k *kubeConfig, path *field.Path, v reflect.Value) field.ErrorList {
		if k.DetectLocalMode == mode && v.String() == "" {
			return field.ErrorList{field.Required(path, fmt.Sprintf("detectLocalMode %s needs it", mode))}
		}
		return nil
	}}
}

func nodePortAddresses() rule {
	const must = "must be a CIDR, or one of the keywords primary, localhost and all"
	const each = "each address " + must + ", and each keyword only once"
	return rule{each, func(k *kubeConfig, path *field.Path, _ reflect.Value) (errs field.ErrorList) {
		for i, s := range k.NodePortAddresses {
			if s == nodePortsPrimary || s == nodePortsLocalhost || s == nodePortsAll {
				if slices.Contains(k.NodePortAddresses[:i], s) {
					errs = append(errs, field.Duplicate(path.Index(i), s))
				}
				continue
			}
			if _, err := address.ParsePrefix(s); err != nil {
				errs = append(errs, field.Invalid(path.Index(i), s, must))
			}
		}
		return errs
	}}
}

// minSyncPeriod is the rule for a period that must not be greater than another one.
func minSyncPeriod(syncPeriod string) rule {
	most := "must not be greater than " + syncPeriod
	return rule{"must not be negative, and " + most,
		func(k *kubeConfig, path *field.Path, v reflect.Value) field.ErrorList {
			full := plain(fieldOf(k, syncPeriod)).Int()
			switch least := v.Int(); {
			case least < 0:
				return invalid(path, v, "must not be negative")
			case least > full && full > 0:
				return invalid(path, v, fmt.Sprintf("%s, %s", most, time.Duration(full)))
			}
			return nil
		}}
}

func cidrs() rule {
	const must = "must be a CIDR"
	return rule{"each " + must, func(_ *kubeConfig, path *field.Path, v reflect.Value) (errs field.ErrorList) {
		for i := range v.Len() {
			if _, err := address.ParsePrefix(v.Index(i).String()); err != nil {
				errs = append(errs, field.Invalid(path.Index(i), v.Index(i).String(), must))
			}
		}
		return errs
	}}
}

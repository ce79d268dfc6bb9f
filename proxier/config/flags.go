package config

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// AddFlags adds kube-proxy's flags and nftproxy's own to fs, and returns them in groups for the help. Call it
// once.
func (o *Options) AddFlags(fs *pflag.FlagSet) cliflag.NamedFlagSets {
	var groups cliflag.NamedFlagSets
	for _, g := range ledger() {
		set := groups.FlagSet(g.name)
		if g.name == logs {
			logsapi.AddFlags(&o.config.Kube.Logging, o.logging)
			set.AddFlagSet(o.logging)
		} else {
			o.addGroup(set, g.settings)
		}
		fs.AddFlagSet(set)
	}
	return groups
}

func (o *Options) addGroup(fs *pflag.FlagSet, settings []setting) {
	for _, s := range settings {
		if s.flag == "" {
			continue
		}
		addFlag(fs, &s, o.pointer(&s))
		if s.deprecated != "" {
			_ = fs.MarkDeprecated(s.flag, s.deprecated) // fails only for a flag that does not exist
		}
		if s.field != "" && s.flag != hostnameFlag {
			o.settings.AddFlag(fs.Lookup(s.flag))
		}
	}
}

// pointer returns a pointer to what the flag of s sets.
func (o *Options) pointer(s *setting) any {
	if s.variable != nil {
		return s.variable(o)
	}
	return plain(fieldOf(&o.config.Kube, s.field)).Addr().Interface()
}

// addFlag adds the flag of s, which sets what pointer points to. Its default is the present value.
func addFlag(fs *pflag.FlagSet, s *setting, pointer any) {
	name, usage := s.flag, s.usage()
	switch p := pointer.(type) {
	case *string:
		if s.value != nil {
			fs.Var(s.value(p), name, usage)
		} else {
			fs.StringVar(p, name, *p, usage)
		}
	case *v1alpha1.LocalMode:
		fs.Var(stringValue{(*string)(p), "LocalMode"}, name, usage)
	case *v1alpha1.ProxyMode:
		fs.Var(stringValue{(*string)(p), "ProxyMode"}, name, usage)
	case *bool:
		fs.BoolVar(p, name, *p, usage)
	case *int32:
		fs.Int32Var(p, name, *p, usage)
	case *float32:
		fs.Float32Var(p, name, *p, usage)
	case *time.Duration:
		fs.DurationVar(p, name, *p, usage)
	case *[]string:
		fs.StringSliceVar(p, name, *p, usage)
	case *map[string]bool:
		fs.Var(cliflag.NewMapStringBool(p), name, usage)
	default:
		panic(fmt.Sprintf("--%s: no flag for a %T", name, pointer))
	}
}

package config

import (
	"fmt"

	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"
)

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

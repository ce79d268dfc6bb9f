package main

import (
	"cmp"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier"
	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/proxier/support"
)

// run runs the daemon, or the mode that a flag selects.
func run(cmd *cobra.Command, options *config.Options) error {
	kept := &support.Log{}
	c, err := completeWith(options, &logsapi.LoggingOptions{
		ErrorStream: io.MultiWriter(os.Stderr, kept), InfoStream: io.MultiWriter(os.Stdout, kept)})
	if err != nil {
		return err
	}
	switch {
	case c.WriteConfigTo != "":
		return c.Write(c.WriteConfigTo)
	case c.Cleanup:
		return cleanup(cmd)
	case c.InitOnly:
		return proxier.Init(c)
	case c.DryRun && c.Source == "":
		return errors.New("--dry-run needs --source: a file or directory of manifests")
	case c.DryRun:
		return render(cmd, c)
	}
	o := proxier.Options{Config: c, Check: canConnect, Version: version(), Flags: flagValues(cmd.Flags()),
		Log: kept}
	if c.Source == "" {
		if o.Client, err = client(c); err != nil {
			return err
		}
	}
	p, err := proxier.New(o)
	if err != nil {
		return err
	}
	boundMemory(cmd.Context())
	klog.InfoS("Starting", "version", version(), "source", cmp.Or(c.Source, "API server"))
	return p.Run(cmd.Context())
}

// canConnect returns why there is no client for a configuration: its kubeconfig is missing, for example.
func canConnect(c *config.Config) error {
	if c.Source != "" {
		return nil
	}
	_, err := client(c)
	return err
}

// flagValues returns the value of each flag.
func flagValues(flags *pflag.FlagSet) map[string]string {
	values := map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) { values[f.Name] = f.Value.String() })
	return values
}

// client returns a client for the configured API server.
func client(c *config.Config) (*source.Client, error) {
	k := c.Kube.ClientConnection
	return source.NewClient(source.ClientConfig{
		Kubeconfig: k.Kubeconfig, Master: c.Master, QPS: k.QPS, Burst: int(k.Burst),
		ContentType: k.ContentType, AcceptContentTypes: k.AcceptContentTypes,
	})
}

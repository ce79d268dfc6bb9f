package config

import (
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"
)

// kind of the configuration file; its apiVersion is that of v1alpha1.
const kind = "KubeProxyConfiguration"

// decode reads a KubeProxyConfiguration from YAML or JSON, as it stands there: no
// defaults, no validation. An unknown field is passed over and of a duplicate one the
// last counts, each with a warning.
func decode(data []byte) (*v1alpha1.KubeProxyConfiguration, []string, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, nil, err
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme,
		json.SerializerOptions{Yaml: true, Strict: true})
	object, gvk, err := decoder.Decode(data, nil, nil)
	var warnings []string
	// With an error of strictness comes the object as a lenient decoder would have
	// read it.
	if strict, ok := runtime.AsStrictDecodingError(err); ok && object != nil {
		for _, e := range strict.Errors() {
			oneLine := strings.Join(strings.Fields(e.Error()), " ")
			warnings = append(warnings, "configuration file is read leniently: "+oneLine)
		}
		err = nil
	}
	want := v1alpha1.SchemeGroupVersion.WithKind(kind)
	switch {
	case runtime.IsMissingKind(err), runtime.IsMissingVersion(err):
		return nil, nil, fmt.Errorf("apiVersion and kind must be given: want %s, %s", want.GroupVersion(), want.Kind)
	case runtime.IsNotRegisteredError(err) && gvk != nil:
		return nil, nil, fmt.Errorf("apiVersion %s, kind %s: want %s, %s",
			gvk.GroupVersion(), gvk.Kind, want.GroupVersion(), want.Kind)
	case err != nil:
		return nil, nil, err
	}
	kube, ok := object.(*v1alpha1.KubeProxyConfiguration)
	if !ok {
		return nil, nil, fmt.Errorf("decoded a %T: want %s", object, want.Kind)
	}
	return kube, warnings, nil
}

// parse turns the content of a configuration file into the defaulted, not yet
// validated configuration of c, and returns warnings on what does not take effect.
func (c *Config) parse(data []byte) ([]string, error) {
	kube, warnings, err := decode(data)
	if err != nil {
		return nil, err
	}
	c.loaded = data
	c.MinSyncPeriodSet = kube.NFTables.MinSyncPeriod.Duration != 0
	adopted := adoptIPTables(kube)
	setDefaults(kube)
	if kube.Mode != ModeNFTables {
		warnings = append(warnings, modeWarning(kube.Mode))
	}
	c.Kube = *kube
	return append(warnings, withoutEffect(kube, adopted)...), nil
}

// adoptIPTables takes over what the iptables section says about masquerading if the
// file was written for iptables or ipvs, which use that section, and says nothing for
// nftables. It tells whether that is so.
func adoptIPTables(k *v1alpha1.KubeProxyConfiguration) bool {
	if k.Mode == ModeNFTables || k.NFTables != (v1alpha1.KubeProxyNFTablesConfiguration{}) {
		return false
	}
	k.NFTables.MasqueradeBit = k.IPTables.MasqueradeBit
	k.NFTables.MasqueradeAll = k.IPTables.MasqueradeAll
	return true
}

// load reads path into c.
func (c *Config) load(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	warnings, err := c.parse(data)
	if err != nil {
		return nil, fmt.Errorf("decode configuration %s: %w", path, err)
	}
	c.ConfigFile = path
	return warnings, nil
}

// Write writes the complete configuration as YAML to path, for --config to read. Two
// things that only flags can say are not in it, and read as the default: that a server
// is turned off, and a minSyncPeriod of 0.
func (c *Config) Write(path string) error {
	data, err := yaml.Marshal(&c.Kube)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

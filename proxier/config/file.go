package config

import (
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/rules/service"
)

// kind is the kind of the configuration file, whose apiVersion is that of v1alpha1.
const kind = "KubeProxyConfiguration"

// decode reads a KubeProxyConfiguration from YAML or JSON, without defaults and validation. It ignores
// unknown fields and takes the last of duplicate ones, with a warning for each.
func decode(data []byte) (*v1alpha1.KubeProxyConfiguration, []string, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, nil, err
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme,
		json.SerializerOptions{Yaml: true, Strict: true})
	object, gvk, err := decoder.Decode(data, nil, nil)
	var warnings []string
	// Together with a strict decoding error, the decoder returns the object that a lenient decoder reads.
	if strict, ok := runtime.AsStrictDecodingError(err); ok && object != nil {
		for _, e := range strict.Errors() {
			oneLine := strings.Join(strings.Fields(e.Error()), " ")
			warnings = append(warnings, "configuration file: "+oneLine)
		}
		err = nil
	}
	want := v1alpha1.SchemeGroupVersion.WithKind(kind)
	switch {
	case runtime.IsMissingKind(err), runtime.IsMissingVersion(err):
		return nil, nil, fmt.Errorf("apiVersion or kind is missing: want %s, %s",
			want.GroupVersion(), want.Kind)
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

// load reads the file of --config into c: defaulted, but not yet validated.
func (c *Config) load() ([]string, error) {
	data, err := os.ReadFile(c.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	kube, warnings, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("decode configuration %s: %w", c.ConfigFile, err)
	}
	c.loaded = data
	warnings = append(warnings, dropInvalid(kube)...)
	c.MinSyncPeriodSet = kube.NFTables.MinSyncPeriod.Duration != 0
	adopted := adoptIPTables(kube)
	setDefaults(kube)
	if kube.Mode != ModeNFTables {
		warnings = append(warnings, modeWarning(kube.Mode))
	}
	if !adopted {
		for _, s := range changed(kube, isIPTablesMasquerading) {
			warnings = append(warnings,
				s.name()+" has no effect: mode is nftables, or the nftables section is not empty")
		}
	}
	c.Kube = *kube
	return warnings, nil
}

// adoptIPTables copies the masquerading settings of the iptables section to an empty nftables section, if the
// file was written for mode iptables or ipvs, which use the iptables section. It reports whether it did.
func adoptIPTables(k *v1alpha1.KubeProxyConfiguration) bool {
	if k.Mode == ModeNFTables || k.NFTables != (v1alpha1.KubeProxyNFTablesConfiguration{}) {
		return false
	}
	k.NFTables.MasqueradeBit = k.IPTables.MasqueradeBit
	k.NFTables.MasqueradeAll = k.IPTables.MasqueradeAll
	return true
}

// adoptScheduler takes over the scheduler of a configuration that was written for mode ipvs. It returns a
// warning if nftproxy does not have it. An empty one stays at random, though it is rr in kube-proxy: nobody
// asked for it.
func (c *Config) adoptScheduler() []string {
	k := &c.Kube
	if k.IPVS.Scheduler == "" {
		return nil
	}
	const name = "ipvs.scheduler (--ipvs-scheduler)"
	if k.Mode != ModeIPVS {
		return []string{name + " has no effect: mode is not ipvs"}
	}
	var err error
	if c.Scheduler, err = service.ParseScheduler(k.IPVS.Scheduler); err != nil {
		return []string{fmt.Sprintf("%s: %v; connections choose at random", name, err)}
	}
	return nil
}

func isIPTablesMasquerading(s *setting) bool {
	return s.field == "iptables.masqueradeBit" || s.field == "iptables.masqueradeAll"
}

// Write writes the complete configuration as YAML to path, for --config to read. It loses two things that
// only flags can set, which read as their defaults then: a server that is turned off, and a minSyncPeriod of
// 0. Its mode is nftables, so that ipvs.scheduler has no effect any more.
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

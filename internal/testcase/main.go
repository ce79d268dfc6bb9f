// Command testcase makes a regression case of a user's cluster: of the archive of nftproxy support-bundle, or
// of what kubectl prints. It replaces names and addresses, and keeps the structure: what was equal stays
// equal, addresses in one prefix stay in one, and names keep their order.
//
//	nftproxy support-bundle --output bundle.tar.gz
//	make case FROM=bundle.tar.gz NAME=two-load-balancers
//
//	kubectl get services,endpointslices,nodes,servicecidrs -A -o yaml > cluster.yaml
//	make case FROM=cluster.yaml NODE=worker-1 CONFIG=config.conf NAME=two-load-balancers
//
// It writes testdata/clusters/NAME, of which make golden writes the rules.
//
// Start reading at makeCase; anonymiser.go has what is replaced, and address.go how addresses are.
package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// options say what to make a case of.
type options struct {
	from, node, config, services, about string
}

func main() {
	var o options
	flag.StringVar(&o.from, "from", "", "archive of nftproxy support-bundle, or manifests")
	flag.StringVar(&o.node, "node", "", "name of the node; an archive has it")
	flag.StringVar(&o.config, "config", "", "configuration file; an archive has it")
	flag.StringVar(&o.services, "services", "", "only these Services: NAMESPACE/NAME,...")
	flag.StringVar(&o.about, "about", "A user's cluster.", "the first line: what the case shows")
	out := flag.String("out", "", "directory to write")
	flag.Parse()
	if err := makeCase(o, *out); err != nil {
		fmt.Fprintln(os.Stderr, "testcase:", err)
		os.Exit(1)
	}
}

// makeCase writes input.yaml, config.yaml and flags into a directory, which must not exist.
func makeCase(o options, dir string) error {
	if o.from == "" || dir == "" {
		return errors.New("-from and -out are needed")
	}
	in, err := read(o)
	if err != nil {
		return err
	}
	if o.services != "" {
		in.objects = only(in.objects, strings.Split(o.services, ","))
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	files, err := newAnonymiser(key, in).files(o.about)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make the case: %w", err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return fmt.Errorf("make the case: %w", err)
		}
	}
	return nil
}

// only returns the Services of that names, their EndpointSlices, and the objects of other kinds.
func only(objects []runtime.Object, names []string) (out []runtime.Object) {
	chosen := map[string]bool{}
	for _, name := range names {
		chosen[name] = true
	}
	for _, obj := range objects {
		switch obj := obj.(type) {
		case *corev1.Service:
			if !chosen[obj.Namespace+"/"+obj.Name] {
				continue
			}
		case *discoveryv1.EndpointSlice:
			if !chosen[obj.Namespace+"/"+obj.Labels[discoveryv1.LabelServiceName]] {
				continue
			}
		}
		out = append(out, obj)
	}
	return out
}

// files returns the files of the case.
func (a *anonymiser) files(about string) (map[string][]byte, error) {
	input := []byte("# " + about + "\n")
	for _, obj := range a.in.objects {
		copied := a.object(obj)
		if copied == nil {
			continue
		}
		text, err := encode(copied)
		if err != nil {
			return nil, err
		}
		input = append(append(input, "---\n"...), text...)
	}
	config, err := encode(a.config())
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"input.yaml": input, "config.yaml": config}
	if flags := a.flags(); flags != "" {
		files["flags"] = []byte(flags + "\n")
	}
	return files, nil
}

// encode returns a value as YAML, without the fields that are not set.
func encode(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	prune(fields)
	return yaml.Marshal(fields)
}

// prune removes fields without a value, and reports whether nothing is left.
func prune(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		for _, item := range v {
			prune(item)
		}
		return len(v) == 0
	case map[string]any:
		for name, field := range v {
			if name != "labels" && prune(field) { // a label without a value counts
				delete(v, name)
			}
		}
		return len(v) == 0
	}
	return false
}

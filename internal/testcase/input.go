package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	kubeproxyconfig "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/proxier/source"
)

// input is what a case is made of.
type input struct {
	node     string
	objects  []runtime.Object
	config   kubeproxyconfig.KubeProxyConfiguration
	external []string // --allowed-external-cidrs
}

// read reads an archive, whose name ends in gz, or manifests.
func read(o options) (*input, error) {
	in := &input{node: o.node}
	manifests := o.from
	if strings.HasSuffix(o.from, "gz") {
		dir, err := os.MkdirTemp("", "nftproxy-testcase-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		if err := in.unpack(o.from, dir); err != nil {
			return nil, fmt.Errorf("read %s: %w", o.from, err)
		}
		manifests = filepath.Join(dir, "objects.json")
	}
	if o.config != "" {
		text, err := os.ReadFile(o.config)
		if err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
		if err := yaml.Unmarshal(text, &in.config); err != nil {
			return nil, fmt.Errorf("read %s: %w", o.config, err)
		}
	}
	if in.node == "" {
		return nil, errors.New("-node is needed: the manifests do not say which node is meant")
	}
	var problems []error
	var err error
	in.objects, problems, err = source.NewDir(manifests).Load()
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		if !errors.As(p, new(source.Ignored)) {
			fmt.Fprintln(os.Stderr, "testcase: left out:", p)
		}
	}
	return in, nil
}

// unpack reads an archive, and writes its objects to a file in a directory.
func (in *input) unpack(file, dir string) error {
	archive, err := os.Open(file)
	if err != nil {
		return err
	}
	defer archive.Close()
	zip, err := gzip.NewReader(archive)
	if err != nil {
		return err
	}
	found := false
	for files := tar.NewReader(zip); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) && !found {
			return errors.New("it has no objects.json: no nftproxy answered when it was made")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		switch path.Base(header.Name) {
		case "objects.json":
			found = len(text) > 0
			err = os.WriteFile(filepath.Join(dir, "objects.json"), text, 0o600)
		case "configz.json":
			err = in.readConfigz(text)
		case "flagz.txt":
			in.external = flagOf(text, "allowed-external-cidrs")
		case "version.txt":
			in.readNode(text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

func (in *input) readConfigz(text []byte) error {
	var configz map[string]kubeproxyconfig.KubeProxyConfiguration
	if err := json.Unmarshal(text, &configz); err != nil {
		return err
	}
	in.config = configz["kubeproxy.config.k8s.io"]
	return nil
}

// readNode takes the name of the node, unless it is chosen already.
func (in *input) readNode(version []byte) {
	for line := range strings.Lines(string(version)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "node "); ok && in.node == "" {
			in.node = name
		}
	}
}

// flagOf returns the values of a flag that is a list: name=[a,b].
func flagOf(flagz []byte, name string) []string {
	for line := range strings.Lines(string(flagz)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return strings.FieldsFunc(strings.Trim(value, "[]"), func(r rune) bool { return r == ',' })
		}
	}
	return nil
}

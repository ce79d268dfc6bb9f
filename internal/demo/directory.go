package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/proxier/source"
)

// directory is a temporary directory with a copy of the manifests.
type directory struct {
	origin string // the directory that was copied
	root   string
}

// newDirectory copies a directory of manifests. The caller must call remove.
func newDirectory(manifests string) (*directory, error) {
	root, err := os.MkdirTemp("", "nftproxy-demo-")
	if err != nil {
		return nil, fmt.Errorf("copy manifests: %w", err)
	}
	d := &directory{manifests, root}
	if err := os.CopyFS(d.manifests(), os.DirFS(manifests)); err != nil {
		d.remove()
		return nil, fmt.Errorf("copy manifests of %s: %w", manifests, err)
	}
	return d, nil
}

func (d *directory) remove() { os.RemoveAll(d.root) }

// manifests returns the path of the copy, which the daemon reads.
func (d *directory) manifests() string { return filepath.Join(d.root, "manifests") }

// endpointSlices returns the EndpointSlices of all manifests.
func (d *directory) endpointSlices() ([]*discoveryv1.EndpointSlice, error) {
	objects, problems, err := source.NewDir(d.manifests()).Load()
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		return nil, problems[0]
	}
	var found []*discoveryv1.EndpointSlice
	for _, object := range objects {
		if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
			found = append(found, slice)
		}
	}
	return found, nil
}

// edit changes the EndpointSlices in files. It replaces each file atomically, so that the daemon never reads
// half of one.
func (d *directory) edit(change func(*discoveryv1.EndpointSlice), files ...string) error {
	for _, file := range files {
		path := filepath.Join(d.manifests(), file)
		objects, problems, err := source.NewDir(path).Load()
		if err != nil {
			return err
		}
		if len(problems) > 0 {
			return problems[0]
		}
		var documents [][]byte
		for _, object := range objects {
			if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
				change(slice)
			}
			document, err := yaml.Marshal(object)
			if err != nil {
				return fmt.Errorf("edit %s: %w", file, err)
			}
			documents = append(documents, document)
		}
		edited := filepath.Join(d.root, file)
		if err := os.WriteFile(edited, bytes.Join(documents, []byte("---\n")), 0o644); err != nil {
			return fmt.Errorf("edit %s: %w", file, err)
		}
		if err := os.Rename(edited, path); err != nil {
			return fmt.Errorf("edit %s: %w", file, err)
		}
	}
	return nil
}

// endpoint is a pod that becomes an endpoint of Services or stops being one.
type endpoint struct {
	node   string
	v4, v6 string
}

func (e endpoint) addr(slice *discoveryv1.EndpointSlice) string {
	if slice.AddressType == discoveryv1.AddressTypeIPv6 {
		return e.v6
	}
	return e.v4
}

func (e endpoint) addTo(slice *discoveryv1.EndpointSlice) {
	yes, no := true, false
	slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
		Addresses:  []string{e.addr(slice)},
		Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
		NodeName:   &e.node,
	})
}

func (e endpoint) removeFrom(slice *discoveryv1.EndpointSlice) {
	slice.Endpoints = slices.DeleteFunc(slice.Endpoints, func(other discoveryv1.Endpoint) bool {
		return slices.Contains(other.Addresses, e.addr(slice))
	})
}

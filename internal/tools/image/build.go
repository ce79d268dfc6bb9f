package main

import (
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nftproxy/nftproxy/internal/tools/licence"
)

const program = "./cmd/nftproxy"

// options are what an image is made of.
type options struct {
	module  string // directory
	version string
	time    time.Time
}

func architectures() []string { return []string{"amd64", "arm64"} }

// build returns the image of all architectures. It works in dir, where its layers stay.
func build(o options, dir string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range architectures() {
		image, err := buildOne(o, arch, filepath.Join(dir, arch))
		if err != nil {
			return nil, fmt.Errorf("build for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return mutate.Annotations(index, o.annotations()).(v1.ImageIndex), nil
}

func buildOne(o options, arch, dir string) (v1.Image, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	env := environment(arch)
	binary := filepath.Join(dir, "nftproxy")
	if err := compile(o, env, binary); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	modules, err := licence.Collect(o.module, program, env)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "layer.tar")
	if _, err := writeTar(file, contents(data, modules), o.time); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
	if err != nil {
		return nil, err
	}
	return configure(o, arch, layer)
}

// environment is that of go: what could change what it makes is set.
func environment(arch string) []string {
	return append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0",
		"CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
}

func compile(o options, env []string, binary string) error {
	abs, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X main.release="+o.version, "-o", abs, program)
	cmd.Dir, cmd.Env, cmd.Stderr = o.module, env, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	return nil
}

// configure makes an image of a layer.
func configure(o options, arch string, layer v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(image, mutate.Addendum{Layer: layer,
		History: v1.History{Created: v1.Time{Time: o.time}, CreatedBy: "internal/tools/image"}})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: o.time}
	config.Config = v1.Config{Entrypoint: []string{"/nftproxy"}, Labels: o.annotations()}
	return mutate.ConfigFile(image, config)
}

// annotations are what the OCI image specification has names for.
func (o options) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "nftproxy",
		"org.opencontainers.image.description": "A replacement for kube-proxy on nftables",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.source":      "https://github.com/nftproxy/nftproxy",
		"org.opencontainers.image.version":     o.version,
	}
}

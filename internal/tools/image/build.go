package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
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

// options are the inputs of an image. The image depends on them, the sources and the Go release only.
type options struct {
	module  string // directory
	version string
	time    time.Time
}

func architectures() []string { return []string{"amd64", "arm64"} }

// build returns an index with the image of each architecture. It compiles into dir.
func build(o options, dir string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range architectures() {
		image, err := buildOne(o, arch, filepath.Join(dir, "nftproxy-"+arch))
		if err != nil {
			return nil, fmt.Errorf("build for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return mutate.Annotations(index, o.annotations()).(v1.ImageIndex), nil
}

// buildOne returns the image of an architecture. It compiles to the file binary.
func buildOne(o options, arch, binary string) (v1.Image, error) {
	env := environment(arch)
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
	files, err := tarOf(contents(data, modules), o.time)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil }
	layer, err := tarball.LayerFromOpener(open,
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
	if err != nil {
		return nil, err
	}
	return configure(o, arch, layer)
}

// environment returns the environment of go for an architecture. It sets every variable that changes the
// binary.
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

// configure returns the image with layer as its only layer.
func configure(o options, arch string, layer v1.Layer) (v1.Image, error) {
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image, err := mutate.Append(mutate.ConfigMediaType(base, types.OCIConfigJSON), mutate.Addendum{Layer: layer,
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

// annotations returns the annotations of the image under the names of the OCI image specification.
func (o options) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "nftproxy",
		"org.opencontainers.image.description": "A replacement for kube-proxy on nftables",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.source":      "https://github.com/nftproxy/nftproxy",
		"org.opencontainers.image.version":     o.version,
	}
}

package main

import (
	"fmt"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// archive returns the image as a tar archive of the OCI image layout, which it writes to dir first.
func archive(index v1.ImageIndex, o options, dir string) ([]byte, error) {
	target, err := layout.Write(dir, empty.Index)
	if err != nil {
		return nil, fmt.Errorf("write image layout: %w", err)
	}
	names := layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": o.version,
		// The name under which containerd imports the image. It expands nftproxy:VERSION, as the manifests
		// have it, to this name.
		"io.containerd.image.name": "docker.io/library/nftproxy:" + o.version,
	})
	if err := target.AppendIndex(index, names); err != nil {
		return nil, fmt.Errorf("write image layout: %w", err)
	}
	files := map[string]entry{}
	root := os.DirFS(dir)
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		files[name] = entry{data, 0o644}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read image layout: %w", err)
	}
	return tarOf(files, o.time)
}

// report prints the digest and the compressed size of the image of each architecture, and the digest of the
// index.
func report(index v1.ImageIndex) error {
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, m := range manifest.Manifests {
		image, err := index.Image(m.Digest)
		if err != nil {
			return err
		}
		inner, err := image.Manifest()
		if err != nil {
			return err
		}
		fmt.Printf("%-12s %5.1f MB  %s\n", m.Platform, float64(inner.Layers[0].Size)/1e6, m.Digest)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%-12s %8s  %s\n", "all", "", digest)
	return nil
}

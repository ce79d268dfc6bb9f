package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// archive writes the image as a tar archive with the OCI image layout, and returns how long it is. It works in dir.
func archive(index v1.ImageIndex, o options, dir, file string) (int64, error) {
	dir = filepath.Join(dir, "layout")
	target, err := layout.Write(dir, empty.Index)
	if err != nil {
		return 0, fmt.Errorf("write image layout: %w", err)
	}
	names := layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": o.version,
		// What containerd calls the image when it imports the archive: what the unqualified
		// name nftproxy:VERSION of the manifests means to it.
		"io.containerd.image.name": "docker.io/library/nftproxy:" + o.version,
	})
	if err := target.AppendIndex(index, names); err != nil {
		return 0, fmt.Errorf("write image layout: %w", err)
	}
	files := map[string]entry{}
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = entry{data, 0o644}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read image layout: %w", err)
	}
	size, err := writeTar(file, files, o.time)
	if err != nil {
		return 0, fmt.Errorf("write archive: %w", err)
	}
	return size, nil
}

// report prints the digest and the size of the image of each architecture, as a registry would have it, and the digest
// of them all.
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
		layers, err := image.Layers()
		if err != nil {
			return err
		}
		var size int64
		for _, l := range layers {
			n, err := l.Size()
			if err != nil {
				return err
			}
			size += n
		}
		fmt.Printf("%-12s %5.1f MB  %s\n", m.Platform, float64(size)/1e6, m.Digest)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%-12s %8s  %s\n", "all", "", digest)
	return nil
}

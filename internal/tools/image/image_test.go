package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestImage builds the image twice, and looks into it.
func TestImage(t *testing.T) {
	o := options{module: "../../..", version: "v1.2.3", time: time.Unix(1000, 0).UTC()}
	index := mustBuild(t, o)
	want, got := digest(t, index), digest(t, mustBuild(t, o))
	if want != got {
		t.Errorf("built twice it is %s and %s", want, got)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, image, m.Platform.Architecture)
	}
	if !slices.Equal(platforms, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("platforms %v", platforms)
	}
}

func mustBuild(t *testing.T, o options) v1.ImageIndex {
	t.Helper()
	index, err := build(o, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func digest(t *testing.T, index v1.ImageIndex) v1.Hash {
	t.Helper()
	d, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func checkImage(t *testing.T, image v1.Image, arch string) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != arch || !slices.Equal(config.Config.Entrypoint, []string{"/nftproxy"}) {
		t.Errorf("architecture %s, entrypoint %v", config.Architecture, config.Config.Entrypoint)
	}
	files := unpack(t, image)
	if !bytes.HasPrefix(files["nftproxy"], []byte("\x7fELF")) || !bytes.Contains(files["nftproxy"], []byte("v1.2.3")) {
		t.Error("nftproxy is not a program of that version")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"]) {
		t.Error("no certificate can be read")
	}
	if len(files["licenses/github.com/nftproxy/nftproxy/LICENSE"]) == 0 || len(files["licenses/go/LICENSE"]) == 0 {
		t.Error("licences are missing")
	}
	known := regexp.MustCompile(`^(nftproxy|etc/ssl/certs/ca-certificates\.crt|licenses/.*/(LICEN[SC]E|COPYING|NOTICE|PATENTS)[^/]*)$`)
	for name := range files {
		if !known.MatchString(name) {
			t.Errorf("%s is in the image", name)
		}
	}
}

// unpack returns the files of the image's only layer.
func unpack(t *testing.T, image v1.Image) map[string][]byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers: %v", len(layers), err)
	}
	stream, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1000 {
			t.Errorf("%s is of %d:%d, at %s", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		if strings.HasSuffix(h.Name, "/") {
			continue
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestArchive: the archive is the same when it is written again.
func TestArchive(t *testing.T) {
	files := map[string]entry{"b/c": {[]byte("c"), 0o644}, "a": {[]byte("a"), 0o755}}
	var sums []string
	for _, name := range []string{"one.tar", "two.tar"} {
		file := filepath.Join(t.TempDir(), name)
		if _, err := writeTar(file, files, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, readAll(t, file))
	}
	if sums[0] != sums[1] {
		t.Error("archives differ")
	}
}

func readAll(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

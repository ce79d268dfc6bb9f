package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// TestImage builds the image twice and checks that both have the same digest and the expected contents.
func TestImage(t *testing.T) {
	o := options{module: "../../..", version: "v1.2.3", time: time.Unix(1000, 0).UTC()}
	index := mustBuild(t, o)
	want, got := digest(t, index), digest(t, mustBuild(t, o))
	if want != got {
		t.Errorf("two builds have the digests %s and %s", want, got)
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
	binary := files["nftproxy"]
	if !bytes.HasPrefix(binary, []byte("\x7fELF")) || !bytes.Contains(binary, []byte("v1.2.3")) {
		t.Error("nftproxy is not a binary of that version")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"]) {
		t.Error("the file of root certificates has none")
	}
	for _, name := range []string{
		"licenses/github.com/nftproxy/nftproxy/LICENSE",
		"licenses/go/LICENSE",
		"licenses/k8s.io/apimachinery/third_party/forked/golang/LICENSE",
	} {
		if len(files[name]) == 0 {
			t.Errorf("the image lacks %s", name)
		}
	}
	known := regexp.MustCompile(`^(nftproxy|etc/ssl/certs/ca-certificates\.crt|` +
		`licenses/.*/(LICEN[SC]E|COPYING|NOTICE|PATENTS)[^/]*)$`)
	for name := range files {
		if !known.MatchString(name) {
			t.Errorf("unexpected file %s", name)
		}
	}
}

// unpack returns the files of the only layer of the image.
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
			t.Errorf("%s has owner %d:%d and time %s", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		if strings.HasSuffix(h.Name, "/") {
			continue
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTar checks that an archive has its files in order, and that a second one has the same bytes.
func TestTar(t *testing.T) {
	files := map[string]entry{"b/c": {[]byte("c"), 0o644}, "a": {[]byte("a"), 0o755}}
	one, err := tarOf(files, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	two, err := tarOf(files, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("the archives differ")
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(one)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"a", "b/", "b/c"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
}

// TestArchive checks that the archive is an OCI image layout with the name of the image, and that a second
// one has the same bytes.
func TestArchive(t *testing.T) {
	o := options{version: "v1.2.3", time: time.Unix(0, 0)}
	index, err := random.Index(10, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	one, err := archive(index, o, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	two, err := archive(index, o, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("the archives differ")
	}
	for _, text := range []string{"oci-layout", "docker.io/library/nftproxy:v1.2.3", digest(t, index).Hex} {
		if !bytes.Contains(one, []byte(text)) {
			t.Errorf("the archive lacks %s", text)
		}
	}
}

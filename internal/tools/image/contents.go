package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/nftproxy/nftproxy/internal/tools/licence"
)

// entry is a file of a tar archive.
type entry struct {
	data []byte
	mode int64
}

// contents returns the files of the image by path.
func contents(binary []byte, modules []licence.Module) map[string]entry {
	files := map[string]entry{
		"nftproxy":                          {binary, 0o755},
		"etc/ssl/certs/ca-certificates.crt": {certificates(), 0o644},
	}
	for _, m := range modules {
		for _, text := range m.Texts {
			files[path.Join("licenses", m.Path, text.Name)] = entry{text.Data, 0o644}
		}
	}
	return files
}

// certificates returns the root certificates that Mozilla trusts, for API servers with a public certificate.
//
// They come from a Go module and not from the machine that builds, so that the image is the same everywhere.
// They are a file and not linked, so that a cluster can mount another file over them. Roots that Mozilla
// trusts only under conditions are left out, because the file format cannot express the conditions.
func certificates() []byte {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			// Writing to a buffer does not fail.
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return text.Bytes()
}

// tarOf returns a tar archive of files and the directories above them, sorted by path, all with the same
// time.
func tarOf(files map[string]entry, t time.Time) ([]byte, error) {
	all := maps.Clone(files)
	for file := range files {
		for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
			all[dir+"/"] = entry{mode: 0o755}
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		e := all[file]
		header := &tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: e.mode, Size: int64(len(e.data)),
			ModTime: t, Format: tar.FormatPAX}
		if file[len(file)-1] == '/' {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("archive %s: %w", file, err)
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, fmt.Errorf("archive %s: %w", file, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	return out.Bytes(), nil
}

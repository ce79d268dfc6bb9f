package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"maps"
	"os"
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

// contents returns the files of the image by their paths.
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

// certificates returns the root certificates that Mozilla trusts, for API servers with a public certificate. They come from
// a Go module, not from the machine that builds, so that the image is the same everywhere. They are a file, not part
// of the program, so that another file can be mounted over it. Those that are trusted under conditions only are left
// out: a file cannot say the conditions.
func certificates() []byte {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes it
		}
	}
	return text.Bytes()
}

// writeTar writes files, and the directories that they are in, in the order of their paths and all with that time. It returns
// how long the archive is.
func writeTar(name string, files map[string]entry, t time.Time) (int64, error) {
	out, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	for file := range maps.Clone(files) {
		for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
			files[dir+"/"] = entry{mode: 0o755}
		}
	}
	w := tar.NewWriter(out)
	for _, file := range slices.Sorted(maps.Keys(files)) {
		e := files[file]
		header := &tar.Header{Name: file, Mode: e.mode, Size: int64(len(e.data)), ModTime: t, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if file[len(file)-1] == '/' {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return 0, err
		}
		if _, err := w.Write(e.data); err != nil {
			return 0, err
		}
	}
	if err := w.Close(); err != nil {
		return 0, err
	}
	info, err := out.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), out.Close()
}

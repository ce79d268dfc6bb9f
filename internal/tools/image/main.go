// Command image writes an OCI image archive with nftproxy for amd64 and arm64.
//
// The image has a single layer and no base image: the static binary, root certificates and the licence texts
// of all linked code. The build needs neither a container runtime nor a registry. The same sources, version
// and Go release give the same bytes. containerd imports the archive under the image name in the manifests.
//
// ko does not replace this program. Version 0.19.1, run on ./cmd/nftproxy, lacks the following:
//   - An image without a base. ko pulls the base from a registry or the Docker daemon and takes "scratch" for
//     docker.io/library/scratch. A build then needs the network, and the result depends on the registry. Root
//     certificates can only come from the base.
//   - An archive with two architectures. --tarball fails ("failed to interpret ... result as image").
//     --oci-layout-path writes a directory, without the name and the version of the image.
//   - Files from the build, such as licence texts. ko only copies the directory kodata next to the sources of
//     the program, to /var/run/ko.
//
// Start reading at build.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.module, "module", ".", "`directory` of the module of nftproxy")
	flag.StringVar(&o.version, "version", "unknown", "version that nftproxy --version prints")
	out := flag.String("out", "nftproxy-image.tar", "`file` to write, relative to the module")
	flag.Parse()
	if err := run(o, *out); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(o options, out string) error {
	var err error
	if o.time, err = sourceTime(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nftproxy-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	index, err := build(o, dir)
	if err != nil {
		return err
	}
	if err := report(index); err != nil {
		return err
	}
	data, err := archive(index, o, filepath.Join(dir, "layout"))
	if err != nil {
		return err
	}
	file := filepath.Join(o.module, out)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	fmt.Printf("%-12s %5.1f MB\n", out, float64(len(data))/1e6)
	return nil
}

// sourceTime returns the time of the image and the files in it: SOURCE_DATE_EPOCH, or 1970 without it.
func sourceTime() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("parse SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Command image writes an OCI image archive with nftproxy for each architecture. It needs no container runtime and asks
// no image registry: the image is a layer on nothing. The same sources, version and Go give the same bytes.
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
	flag.StringVar(&o.module, "module", ".", "directory of nftproxy's module")
	flag.StringVar(&o.version, "version", "unknown", "version, as nftproxy --version is to print it")
	out := flag.String("out", "nftproxy-image.tar", "file to write, from the module's directory")
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
	file := filepath.Join(o.module, out)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	size, err := archive(index, o, dir, file)
	if err != nil {
		return err
	}
	fmt.Printf("%-12s %5.1f MB\n", out, float64(size)/1e6)
	return nil
}

// sourceTime returns the time that files and the image are said to be of: SOURCE_DATE_EPOCH, else 1970.
func sourceTime() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

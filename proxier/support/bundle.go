package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/proxier/socket"
)

// maxPart bounds the size of a part in bytes before compression. The table of 50,000 Services with three
// endpoints has 12 MB.
const maxPart = 256 << 20

// Part is one file of the archive.
type Part struct {
	Name  string
	About string
	// Write writes the contents. What it has written before an error stays.
	Write func(context.Context, io.Writer) error
}

// Result is what became of a part.
type Result struct {
	Part
	Size int64 // before compression
	Err  error
}

// Write writes a gzipped tar archive with the parts in a directory, and behind them an index, which says what
// each part is and what could not be read. Only an error of w is an error.
func Write(ctx context.Context, w io.Writer, dir string, parts []Part) ([]Result, error) {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	var results []Result
	for _, p := range parts {
		r, err := writePart(ctx, archive, dir, p)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", p.Name, err)
		}
		results = append(results, r)
	}
	index := Part{"index.txt", "", func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, indexOf(results))
		return err
	}}
	if _, err := writePart(ctx, archive, dir, index); err != nil {
		return nil, fmt.Errorf("write the index: %w", err)
	}
	return results, errors.Join(archive.Close(), zip.Close())
}

// writePart writes a part. Its header has its size, so all of it must be read first: compressed, because the
// memory counts towards the limit of the pod that the command runs in.
func writePart(ctx context.Context, archive *tar.Writer, dir string, p Part) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, socket.Timeout)
	defer cancel()
	var spool bytes.Buffer
	zip, err := gzip.NewWriterLevel(&spool, gzip.BestSpeed)
	if err != nil {
		return Result{}, err
	}
	limited := &limit{to: zip, max: maxPart}
	clean := newSecrets(limited)
	failed := p.Write(ctx, clean)
	failed = errors.Join(failed, clean.Close())
	if err := zip.Close(); err != nil {
		return Result{}, err
	}
	header := &tar.Header{Name: dir + "/" + p.Name, Mode: 0o600, Size: limited.size, ModTime: time.Now()}
	if err := archive.WriteHeader(header); err != nil {
		return Result{}, err
	}
	text, err := gzip.NewReader(&spool)
	if err != nil {
		return Result{}, err
	}
	_, err = io.Copy(archive, text)
	return Result{p, limited.size, failed}, err
}

// limit counts bytes, and refuses what is more than max.
type limit struct {
	to        io.Writer
	size, max int64
}

func (l *limit) Write(text []byte) (int, error) {
	if l.size+int64(len(text)) > l.max {
		return 0, fmt.Errorf("the rest is left out: more than %d bytes", l.max)
	}
	n, err := l.to.Write(text)
	l.size += int64(n)
	return n, err
}

func indexOf(results []Result) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%-16s %9d bytes  %s\n", r.Name, r.Size, r.About)
		if r.Err != nil {
			fmt.Fprintf(&b, "%-16s failed: %s\n", "", strings.ReplaceAll(r.Err.Error(), "\n", "; "))
		}
	}
	return b.String()
}

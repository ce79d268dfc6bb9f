package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archive writes an initramfs: a cpio archive in the format newc
// (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
type archive struct {
	out  *bufio.Writer
	dirs map[string]bool
	size int // of what is written
	err  error
}

func newArchive(w io.Writer) *archive {
	return &archive{out: bufio.NewWriter(w), dirs: map[string]bool{".": true, "/": true}}
}

// write adds an entry and the directories above it.
func (a *archive) write(name string, mode fs.FileMode, size int, content io.Reader) {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if parent := path.Dir(name); !a.dirs[parent] {
		a.dirs[parent] = true
		a.write(parent, fs.ModeDir|0o755, 0, strings.NewReader(""))
	}
	kind := 0o100000
	switch mode.Type() {
	case fs.ModeDir:
		kind = 0o040000
	case fs.ModeSymlink:
		kind = 0o120000
	}
	a.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 0, kind|int(mode.Perm()),
		0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	if a.err != nil {
		return
	}
	n, err := io.Copy(a.out, content)
	if err == nil && int(n) != size {
		err = fmt.Errorf("%s has %d bytes instead of %d", name, n, size)
	}
	a.size += int(n)
	a.fail(err)
	a.pad()
}

func (a *archive) printf(format string, args ...any) {
	n, err := fmt.Fprintf(a.out, format, args...)
	a.size += n
	a.fail(err)
}

// pad fills up to a multiple of four bytes.
func (a *archive) pad() {
	for a.size%4 != 0 {
		a.fail(a.out.WriteByte(0))
		a.size++
	}
}

// text adds a file that can be executed.
func (a *archive) text(name, content string) {
	a.write(name, 0o755, len(content), strings.NewReader(content))
}

// file adds a file or symbolic link of this machine.
func (a *archive) file(name, from string) {
	info, err := os.Lstat(from)
	if err != nil {
		a.fail(err)
		return
	}
	if info.Mode().Type() == fs.ModeSymlink {
		target, err := os.Readlink(from)
		a.fail(err)
		a.write(name, info.Mode(), len(target), strings.NewReader(target))
		return
	}
	f, err := os.Open(from)
	if err != nil {
		a.fail(err)
		return
	}
	defer f.Close()
	a.write(name, info.Mode(), int(info.Size()), f)
}

// tree adds the files below a directory of this machine that keep accepts, under name.
func (a *archive) tree(name, from string, keep func(file string) bool) {
	a.each(from, func(file string) {
		if keep(file) {
			a.file(path.Join(name, strings.TrimPrefix(file, from)), file)
		}
	})
}

// each calls add with the files below a directory of this machine, until there is an error.
func (a *archive) each(from string, add func(file string)) {
	a.fail(filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			add(file)
			err = a.err
		}
		return err
	}))
}

// fail keeps the first error.
func (a *archive) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// close ends the archive.
func (a *archive) close() error {
	a.write("TRAILER!!!", 0, 0, strings.NewReader(""))
	if a.err != nil {
		return a.err
	}
	return a.out.Flush()
}

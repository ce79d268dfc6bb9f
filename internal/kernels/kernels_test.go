package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompareVersions(t *testing.T) {
	want := []string{"linux-image-5.10.0-9", "linux-image-5.10.0-46", "linux-image-6.1.0-50",
		"linux-image-6.18.9+deb13", "linux-image-6.18.15+deb13", "linux-image-7.3.4+deb13"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareVersions)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// guestOutput is what a guest prints: the third step fails, and the machine stops in the fourth.
const guestOutput = `[    0.3] a message of the kernel
#1 SMP Debian 5.10.262-1 (2026-07-31)

=== begin 0
ok       kernel

=== end 0 1

=== begin 1
nftables v1.0.6 (Lester Gooch #5)
=== RUN   TestOwnedTable
=== ATTR  TestOwnedTable owned-tables no
--- PASS: TestOwnedTable (0.03s)
--- PASS: TestClean (0.06s)
    --- PASS: TestClean/one (0.03s)
    --- PASS: TestClean/two (0.03s)
PASS

=== end 0 23

=== begin 2
nftables v1.0.6 (Lester Gooch #5)
--- FAIL: TestListedCases (0.06s)
    --- PASS: TestListedCases/nodeport (0.03s)
    --- FAIL: TestListedCases/no-endpoints (0.03s)
FAIL

=== end 1 7

=== begin 3
panic: a test
`

func TestParse(t *testing.T) {
	steps := []step{{title: "check"}, {title: "tables"}, {title: "cases"}, {title: "lab"}}
	got := parse(guestOutput, steps)
	wantTable := `|  | 5.10.262 |
|---|---|
| check | ok |
| tables, nft 1.0.6 | 3 of 3 |
| cases, nft 1.0.6 | 1 of 2 |
| lab | did not end |
| connections listed by status (5.15) | not tested |
| tables with an owner that persist (6.9) | no |
| number of elements of a set (6.16) | not tested |
`
	if diff := cmp.Diff(wantTable, table([]result{got})); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	want := []string{"cases: 1 of 2, exit code 1 TestListedCases/no-endpoints", "lab: did not end"}
	if diff := cmp.Diff(want, got.failures()); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	if err := verdict([]result{got}); err == nil || !strings.Contains(err.Error(), "kernel 5.10.262: cases") {
		t.Errorf("verdict: %v", err)
	}
	if err := verdict([]result{parse(guestOutput, steps[:2])}); err != nil {
		t.Errorf("verdict without the failed steps: %v", err)
	}
}

// TestArchive reads an initramfs as the kernel does: headers and contents start at multiples of four.
func TestArchive(t *testing.T) {
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "data"), []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("data", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "not this"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	a := newArchive(&b)
	a.text("init", "#!/bin/sh\n")
	a.tree("deep/tree", from, func(file string) bool { return filepath.Base(file) != "not this" })
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"init 100755 #!/bin/sh\n", "deep 40755 ", "deep/tree 40755 ", "deep/tree/data 100644 12345",
		"deep/tree/link 120777 data", "TRAILER!!! 100000 "}
	if diff := cmp.Diff(want, entries(t, b.Bytes())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	a = newArchive(&b)
	a.file("bin/missing", filepath.Join(from, "missing"))
	if err := a.close(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that does not exist: error %v", err)
	}
}

// entries returns the name, the mode and the content of each entry.
func entries(t *testing.T, b []byte) (out []string) {
	t.Helper()
	for at := 0; at < len(b); {
		var ino, mode, uid, gid, links, mtime, size, major, minor, rmajor, rminor, length, check int
		if _, err := fmt.Sscanf(string(b[at:at+110]), "070701%8x%8x%8x%8x%8x%8x%8x%8x%8x%8x%8x%8x%8x", &ino, &mode,
			&uid, &gid, &links, &mtime, &size, &major, &minor, &rmajor, &rminor, &length, &check); err != nil {
			t.Fatalf("header at %d: %v", at, err)
		}
		name := string(b[at+110 : at+110+length-1])
		content := (at + 110 + length + 3) / 4 * 4
		out = append(out, fmt.Sprintf("%s %o %s", name, mode, b[content:content+size]))
		at = (content + size + 3) / 4 * 4
	}
	return out
}

// TestChoose selects kernels by the prefix of their version.
func TestChoose(t *testing.T) {
	all := kernels("amd64")
	got, err := choose(kernels("amd64"), []string{"7", "5.10"})
	if err != nil || len(got) != 2 || got[0] != all[0] || got[1] != all[len(all)-1] {
		t.Errorf("%v, error %v", got, err)
	}
	if got, err := choose(kernels("amd64"), nil); err != nil || len(got) != len(all) {
		t.Errorf("%v, error %v", got, err)
	}
	if _, err := choose(kernels("amd64"), []string{"2.6"}); err == nil {
		t.Error("a kernel that does not exist")
	}
}

// TestUnreachableMirror says what is needed when nothing can be downloaded, and caches nothing.
func TestUnreachableMirror(t *testing.T) {
	dir := t.TempDir()
	nowhere := source{dir: dir, arch: "amd64", mirror: "file:" + filepath.Join(dir, "none")}
	r := run{module: dir, arch: "amd64", source: nowhere}
	err := r.fetch(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "needs the") {
		t.Errorf("error %v, want one that says what is needed", err)
	}
	if found, err := filepath.Glob(r.cache("nft-*")); err != nil || len(found) > 0 {
		t.Errorf("cached %v, error %v", found, err)
	}
}

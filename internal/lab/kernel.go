package lab

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Feature reports whether the kernel has a feature, as has says, and fails the test if the kernel lacks it
// although Linux has it since a version such as 6.9. An older kernel can have it, because distributions
// backport. The attribute name of the test shows the answer in the table that make kernels prints.
func Feature(t testing.TB, name string, has bool, major, minor int) bool {
	t.Helper()
	var uname unix.Utsname
	var haveMajor, haveMinor int
	if err := unix.Uname(&uname); err != nil {
		t.Fatalf("kernel version: %v", err)
	}
	release := unix.ByteSliceToString(uname.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &haveMajor, &haveMinor); err != nil {
		t.Fatalf("kernel version %q: %v", release, err)
	}
	newer := haveMajor > major || haveMajor == major && haveMinor >= minor
	if newer && !has {
		t.Fatalf("Linux %s does not have %s, which is part of Linux since %d.%d", release, name, major, minor)
	}
	t.Attr(name, map[bool]string{true: "yes", false: "no"}[has])
	return has
}

package host

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelRelease returns the release of the running kernel, as uname -r prints it.
func KernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("read kernel release: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

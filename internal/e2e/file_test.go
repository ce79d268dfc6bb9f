//go:build e2e

package e2e

import "os"

// appendFile adds text to a file: it writes another file and renames that.
func appendFile(path, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(data, text...), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

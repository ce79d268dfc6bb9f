//go:build e2e

package e2e

import "os"

// replaceFile gives a file another content: it writes another file and renames that.
func replaceFile(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

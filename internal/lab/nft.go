package lab

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
)

// Nft runs nft with the arguments in the namespace, with input as its standard input, and returns what it
// prints. Without arguments it runs the commands of the input. An error has what nft says about it.
func (n *Namespace) Nft(input string, args ...string) (string, error) {
	if len(args) == 0 {
		args = []string{"-f", "-"}
	}
	path, err := exec.LookPath("nft")
	if err != nil {
		return "", fmt.Errorf("nft is needed, to compare with: install it with `make tools`, "+
			"or install the package nftables: %w", err)
	}
	var stdout, stderr bytes.Buffer
	err = n.Do(func() error {
		cmd := exec.Command(path, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		return "", fmt.Errorf("nft %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

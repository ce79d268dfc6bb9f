package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/explain"
)

// node is a lab whose node runs nftproxy with manifests.
type node struct {
	lab *lab.Lab
	dir string // of the manifests
}

// newNode starts nftproxy on the node of a new lab, with more flags.
func newNode(t *testing.T, manifests string, flags ...string) *node {
	t.Helper()
	l, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	n := &node{lab: l, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(n.dir, "all.yaml"), []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	flags = append(flags, "--source="+n.dir, "--hostname-override=node-a", "--oom-score-adj=0",
		"--cluster-cidr=10.244.0.0/16,fd00:10:244::/56")
	_, log := n.start(t, flags...)
	for deadline := time.Now().Add(10 * time.Second); ; {
		out, _, err := n.try("explain", "10.96.0.10:80")
		if err == nil && strings.Contains(out, "succeeded") {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s: explain says %s\nthe daemon %s", out, log)
		}
	}
}

// start starts the command on the node. It ends with the test.
func (n *node) start(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := process(args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := n.lab.Node().Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, &log
}

// run runs the command on the node to its end, and returns what it prints and its exit code.
func (n *node) run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	out, code, err := n.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out, code
}

// try is run, with an error if the command cannot answer.
func (n *node) try(args ...string) (out string, code int, err error) {
	cmd := process(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = n.lab.Node().Do(cmd.Run)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code, err = exit.ExitCode(), nil
	}
	if err == nil && stderr.Len() > 0 {
		err = fmt.Errorf("%v: %s", args, stderr.String())
	}
	return stdout.String(), code, err
}

// explain runs nftproxy explain on the node.
func (n *node) explain(t *testing.T, args ...string) (report explain.Report, code int) {
	t.Helper()
	out, code := n.run(t, append([]string{"explain", "-o=json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return report, code
}

// Package architecture holds the tests of the import rule: imports run one way,
// cmd -> proxier -> proxier/* -> rules, and packages beside each other under proxier
// do not import each other.
package architecture

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/nftproxy/nftproxy/"

// imports returns what each package of the module imports, without its tests.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		packages[strings.TrimPrefix(fields[0], module)] = fields[1:]
	}
	if packages["rules"] == nil || packages["proxier"] == nil {
		t.Fatalf("go list found only %v", packages)
	}
	return packages
}

// layer returns how high a package stands: it may import lower ones only.
func layer(pkg string) int {
	switch {
	case pkg == "rules", pkg == "internal/netfilter": // what everything stands on
		return 0
	case strings.HasPrefix(pkg, "proxier/"):
		return 1
	case pkg == "proxier":
		return 2
	}
	return 3 // cmd, internal
}

func TestImportsRunOneWay(t *testing.T) {
	for pkg, list := range imports(t) {
		for _, path := range list {
			imported, ours := strings.CutPrefix(path, module)
			if !ours || layer(pkg) == 3 {
				continue
			}
			if layer(imported) >= layer(pkg) {
				t.Errorf("%s must not import %s", pkg, imported)
			}
		}
	}
}

// TestRulesIsPure keeps the kernel, Kubernetes, time and concurrency out of rules.
func TestRulesIsPure(t *testing.T) {
	for _, path := range imports(t)["rules"] {
		switch {
		case strings.Contains(path, "."), path == "os", path == "net", path == "sync", path == "context", path == "syscall":
			t.Errorf("rules must not import %s", path)
		}
	}
}

// TestOnlyNFTSpeaksNetlinkToNFTables keeps google/nftables in one place.
func TestOnlyNFTSpeaksNetlinkToNFTables(t *testing.T) {
	for pkg, list := range imports(t) {
		for _, path := range list {
			if strings.HasPrefix(path, "github.com/google/nftables") && pkg != "proxier/nft" {
				t.Errorf("%s must not import %s", pkg, path)
			}
		}
	}
}

// maxProgram is how large the program may be, in bytes. Most of it becomes resident on every node.
const maxProgram = 24 << 20

// TestProgramIsSmall keeps out of the program what makes it large for nothing: of client-go the Clientset, which links
// every API there is, and gentype, which links fakes and OpenAPI; and text/template, for which the linker
// keeps every method of every type, because a template may call it. Cobra links it for the sake of SetVersionTemplate and the like.
func TestProgramIsSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"cmd/nftproxy").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		pkg := strings.TrimSpace(line)
		if strings.HasPrefix(pkg, "k8s.io/client-go/kubernetes") || pkg == "k8s.io/client-go/testing" {
			t.Errorf("cmd/nftproxy depends on %s", pkg)
		}
	}
	program := filepath.Join(t.TempDir(), "nftproxy")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, module+"cmd/nftproxy").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxProgram {
		t.Errorf("the program has %d bytes, want at most %d: see go tool nm -size -sort size, and go build -ldflags=-dumpdep for <ReflectMethod>", info.Size(), maxProgram)
	}
}

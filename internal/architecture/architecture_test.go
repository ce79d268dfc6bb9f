// Package architecture holds the tests of the layout of packages: who may import whom, which packages are
// pure, and how large the program may be.
//
// The rule stands here as code, because a rule that only a document states is soon broken. Imports go one
// way, so a reader can understand a package with the packages below it, and none above.
//
// Start reading at levels.
package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nftproxy/nftproxy/"

// levels returns the packages of the product, the lowest first. A package imports packages of lower levels
// only. Packages in internal are not part of the product: no level has them, and they may import all.
func levels() [][]string {
	return [][]string{
		{"rules/service"},
		{"rules/nftables"},
		{"rules", "rules/interpreter"},
		{"proxier/address", "proxier/filewatch", "proxier/netlink", "proxier/socket"},
		{"proxier/config", "proxier/conntrack", "proxier/health", "proxier/host",
			"proxier/kernel", "proxier/localhost", "proxier/metrics", "proxier/source", "proxier/state",
			"proxier/trace"},
		{"proxier/desired", "proxier/probe", "proxier/takeover"},
		{"proxier/check", "proxier/explain", "proxier/status", "proxier/support"},
		{"proxier", "proxier/top"},
		{"cmd/nftproxy"},
	}
}

// level returns the level of a package, and -1 for a package without one.
func level(pkg string) int {
	return slices.IndexFunc(levels(), func(level []string) bool { return slices.Contains(level, pkg) })
}

// product returns the imports of each package of the product, without those of its tests.
func product(t *testing.T) map[string][]string {
	t.Helper()
	const format = `{{.ImportPath}} {{join .Imports " "}}`
	out, err := exec.Command("go", "list", "-f", format, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if pkg := strings.TrimPrefix(fields[0], module); !strings.HasPrefix(pkg, "internal/") {
			packages[pkg] = fields[1:]
		}
	}
	return packages
}

func TestImportsGoDown(t *testing.T) {
	packages := product(t)
	for _, pkg := range slices.Concat(levels()...) {
		if _, found := packages[pkg]; !found {
			t.Errorf("levels has %s, which does not exist", pkg)
		}
	}
	for pkg, imports := range packages {
		if level(pkg) < 0 {
			t.Errorf("%s has no level", pkg)
		}
		for _, path := range imports {
			imported, ours := strings.CutPrefix(path, module)
			if ours && (level(imported) < 0 || level(imported) >= level(pkg)) {
				t.Errorf("%s must not import %s", pkg, imported)
			}
		}
	}
}

// The kernel's expressions are types of google/nftables. Its transport is not used.
func TestExpressionsOnly(t *testing.T) {
	const library = "github.com/google/nftables"
	for pkg, imports := range product(t) {
		for _, path := range imports {
			if strings.HasPrefix(path, library) && path != library+"/expr" {
				t.Errorf("%s must not import %s", pkg, path)
			}
		}
	}
}

// Rules are pure: no I/O, no clock, no goroutines, no Kubernetes.
func TestRulesArePure(t *testing.T) {
	impure := regexp.MustCompile(`^(context|log|math/rand|net|os|runtime|sync|syscall|unsafe)(/|$)`)
	allowed := []string{"net/netip", "github.com/google/nftables/expr", "golang.org/x/sys/unix"}
	for pkg, imports := range product(t) {
		if pkg != "rules" && !strings.HasPrefix(pkg, "rules/") {
			continue
		}
		for _, path := range imports {
			first, _, _ := strings.Cut(path, "/")
			foreign := strings.Contains(first, ".") && !strings.HasPrefix(path, module+"rules/")
			if (foreign || impure.MatchString(path)) && !slices.Contains(allowed, path) {
				t.Errorf("%s must not import %s", pkg, path)
			}
		}
		checkSource(t, pkg)
	}
}

// checkSource fails for goroutines, and for calls of functions in the packages time and unix: rules use only
// types and constants of these.
func checkSource(t *testing.T, pkg string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", pkg, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no files, error %v", pkg, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s must not start a goroutine", name)
			case *ast.CallExpr:
				checkCall(t, name, n)
			}
			return true
		})
	}
}

func checkCall(t *testing.T, file string, call *ast.CallExpr) {
	t.Helper()
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name == "Duration" { // a conversion
		return
	}
	if of, ok := f.X.(*ast.Ident); ok && (of.Name == "time" || of.Name == "unix") {
		t.Errorf("%s must not call %s.%s", file, of.Name, f.Sel.Name)
	}
}

// maxProgram is the largest size of the program in bytes. Most of it becomes resident on every node.
const maxProgram = 24 << 20

// TestProgramIsSmall keeps large dependencies out of the program: the Clientset of client-go, which links all
// APIs; gentype, which links fakes and OpenAPI; and text/template, for which the linker keeps every method of
// every type, because a template may call it. Cobra links text/template if SetVersionTemplate or a similar
// function is called.
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
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, module+"cmd/nftproxy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxProgram {
		t.Errorf("the program has %d bytes, want at most %d: see go tool nm -size -sort size, "+
			"and go build -ldflags=-dumpdep for <ReflectMethod>", info.Size(), maxProgram)
	}
}

// The specification and the interpreter of bytecode must not make a mistake of the product with it: they
// share no code with the rules.
func TestProofIsIndependent(t *testing.T) {
	for pkg, allowed := range map[string][]string{
		"internal/proof/spec":     nil,
		"internal/proof/bytecode": {module + "proxier/netlink"},
	} {
		out, err := exec.Command("go", "list", "-f", `{{join .Imports " "}}`, module+pkg).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for _, path := range strings.Fields(string(out)) {
			first, _, _ := strings.Cut(path, "/")
			known := strings.HasPrefix(path, "k8s.io/api/") || path == "golang.org/x/sys/unix"
			if strings.Contains(first, ".") && !known && !slices.Contains(allowed, path) {
				t.Errorf("%s must not import %s", pkg, path)
			}
		}
	}
}

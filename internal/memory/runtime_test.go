package memory

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestGoMemoryLimit shows that the Go runtime has its limit from the cgroup, of either version, and that the
// environment takes precedence. The files are the test's own, mounted over the kernel's, because a kernel has
// the controller in one version only.
func TestGoMemoryLimit(t *testing.T) {
	program := build(t)
	v1, v2 := kernelFiles{
		"cgroup": "4:memory:/kubepods/pod\n0::/other\n",
		"mountinfo": "30 1 0:30 / DIR rw - cgroup cgroup rw,memory\n" +
			"31 1 0:31 / DIR/none rw - cgroup2 cgroup2 rw\n",
		"kubepods/pod/memory.limit_in_bytes": "209715200\n",
		"kubepods/pod/memory.stat":           "cache 1\nhierarchical_memory_limit 104857600\n",
	}, kernelFiles{
		"cgroup":                  "0::/kubepods/pod\n",
		"mountinfo":               "30 1 0:30 / DIR rw - cgroup2 cgroup2 rw\n",
		"kubepods/pod/memory.max": "max\n",
		"kubepods/memory.max":     "104857600\n",
	}
	none := kernelFiles{"cgroup": "0::/\n", "mountinfo": "30 1 0:30 / DIR rw - cgroup2 cgroup2 rw\n"}
	for _, c := range []struct {
		name  string
		files kernelFiles
		env   string
		want  string // of the metric
	}{
		{"version 1", v1, "", "8.388608e+07"},
		{"version 2", v2, "", "8.388608e+07"},
		{"no limit", none, "", "9.223372036854776e+18"},
		{"GOMEMLIMIT", v2, "GOMEMLIMIT=50MiB", "5.24288e+07"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := lab.TestNamespace(t)
			cmd := exec.Command(program, "--source="+writeManifests(t, 1))
			cmd.Env = append(os.Environ(), c.env)
			c.files.mount(t, cmd)
			d := startCommand(t, ns, cmd)
			d.awaitHealthy(t)
			want := "\ngo_gc_gomemlimit_bytes " + c.want + "\n"
			if _, metrics := d.get(t, "http://127.0.0.1:10249/metrics"); !strings.Contains(metrics, want) {
				_, got, _ := strings.Cut(metrics, "\ngo_gc_gomemlimit_bytes ")
				t.Errorf("go_gc_gomemlimit_bytes is %.25q, want %s", got, c.want)
			}
		})
	}
}

// kernelFiles are files of cgroups by their path, and those named cgroup and mountinfo in /proc/self. DIR in
// them is the directory that has the others.
type kernelFiles map[string]string

// mount makes a command start with the files in place of the kernel's.
func (f kernelFiles) mount(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	dir := t.TempDir()
	for path, text := range f {
		path = filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644))
	}
	script := `mount --make-rprivate / &&
		mount --bind "$0/cgroup" /proc/$$/cgroup && mount --bind "$0/mountinfo" /proc/$$/mountinfo && exec "$@"`
	cmd.Args = append([]string{"sh", "-c", script, dir, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
}

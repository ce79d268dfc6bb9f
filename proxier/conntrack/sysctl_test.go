package conntrack

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

func TestSysctls(t *testing.T) {
	kernel := map[string]string{
		"nf_conntrack_max":                     "262144",
		"nf_conntrack_buckets":                 "65536",
		"nf_conntrack_tcp_timeout_established": "432000",
		"nf_conntrack_tcp_timeout_close_wait":  "60",
		"nf_conntrack_udp_timeout":             "30",
		"nf_conntrack_udp_timeout_stream":      "120",
		"nf_conntrack_tcp_be_liberal":          "0",
	}
	for _, tt := range []struct {
		name string
		set  Sysctls
		cpus int
		want map[string]string // values that differ from the kernel's
	}{
		{"nothing", Sysctls{}, 4, nil},
		{"Min alone means nothing", Sysctls{Min: 1000}, 4, nil},
		{"for each CPU", Sysctls{MaxPerCore: 100000, Min: 1000}, 4,
			map[string]string{"nf_conntrack_max": "400000", "nf_conntrack_buckets": "100000"}},
		{"at least", Sysctls{MaxPerCore: 1000, Min: 300000}, 4,
			map[string]string{"nf_conntrack_max": "300000", "nf_conntrack_buckets": "75000"}},
		{"at most", Sysctls{MaxPerCore: 100000, Min: 2000000}, 64,
			map[string]string{"nf_conntrack_max": "1048576", "nf_conntrack_buckets": "262144"}},
		{"less than the kernel has", Sysctls{MaxPerCore: 32768, Min: 131072}, 2,
			map[string]string{"nf_conntrack_max": "131072"}},
		{"the rest", Sysctls{TCPEstablishedTimeout: 24 * time.Hour, TCPCloseWaitTimeout: time.Hour,
			UDPTimeout: 1500 * time.Millisecond, UDPStreamTimeout: 2 * time.Minute, TCPBeLiberal: true}, 4,
			map[string]string{
				"nf_conntrack_tcp_timeout_established": "86400",
				"nf_conntrack_tcp_timeout_close_wait":  "3600",
				"nf_conntrack_udp_timeout":             "1",
				"nf_conntrack_tcp_be_liberal":          "1",
			}},
	} {
		t.Run(tt.name, func(t *testing.T) { testSysctls(t, kernel, tt.set, tt.cpus, tt.want) })
	}
}

// testSysctls sets sysctls that have the kernel's values and compares them with those values and the changed
// ones.
func testSysctls(t *testing.T, kernel map[string]string, set Sysctls, cpus int, changed map[string]string) {
	dir, want := t.TempDir(), map[string]string{}
	for name, value := range kernel {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		want[name] = value + "\n" // a file that Set does not write keeps its newline
		if value, ok := changed[name]; ok {
			want[name] = value
		}
	}
	if errs := set.set(dir, cpus); len(errs) > 0 {
		t.Errorf("errors: %v", errs)
	}
	got := map[string]string{}
	for name := range kernel {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got[name] = string(text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sysctls (-want +got):\n%s", diff)
	}
}

// TestSysctlsInNamespace writes the real files. Only the host's namespace can set the number of flows.
func TestSysctlsInNamespace(t *testing.T) {
	ns := lab.TestNamespace(t)
	create(t, ns, nil)
	err := ns.Do(func() error {
		set := Sysctls{MaxPerCore: 12345, UDPTimeout: 77 * time.Second, TCPBeLiberal: true}
		errs := set.Set("/proc/sys/net")
		for _, err := range errs {
			if !errors.Is(err, fs.ErrPermission) ||
				!strings.Contains(err.Error(), "net.netfilter.nf_conntrack_") {
				t.Errorf("error %v, want permission denied", err)
			}
		}
		if len(errs) == 0 {
			t.Error("no error for nf_conntrack_max")
		}
		for name, want := range map[string]string{
			"nf_conntrack_udp_timeout": "77\n", "nf_conntrack_tcp_be_liberal": "1\n",
		} {
			if got, err := os.ReadFile(filepath.Join("/proc/sys/net/netfilter", name)); string(got) != want {
				t.Errorf("%s is %q, error %v; want %q", name, got, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSysctlsReadOnly(t *testing.T) {
	errs := make(chan []error)
	go func() {
		defer close(errs)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for _, err := range []error{
			unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS),
			unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND|unix.MS_REC, ""),
			unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
		} {
			if err != nil {
				t.Errorf("make /proc/sys read-only: %v", err)
				return
			}
		}
		errs <- Sysctls{UDPTimeout: 77 * time.Second, TCPBeLiberal: true}.Set("/proc/sys/net")
	}()
	got := <-errs
	if len(got) != 2 || !errors.Is(got[0], unix.EROFS) || !errors.Is(got[1], unix.EROFS) {
		t.Errorf("errors %v, want two of %v", got, unix.EROFS)
	}
}

func TestCountCPUs(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int
	}{
		{"0\n", 1},
		{"0-3\n", 4},
		{"0-3,8,10-11\n", 7},
		{"x\n", runtime.NumCPU()},
		{"0-\n", runtime.NumCPU()},
	} {
		path := filepath.Join(t.TempDir(), "online")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := countCPUs(path); got != tt.want {
			t.Errorf("%q: %d CPUs, want %d", tt.text, got, tt.want)
		}
	}
	if got := countCPUs(filepath.Join(t.TempDir(), "none")); got != runtime.NumCPU() {
		t.Errorf("no list: %d CPUs, want %d", got, runtime.NumCPU())
	}
}

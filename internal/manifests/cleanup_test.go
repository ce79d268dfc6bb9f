package manifests

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

func cleanupPod(t *testing.T) corev1.PodSpec {
	t.Helper()
	all := objects(t, filepath.Join(root, "cleanup"))
	if len(all) != 1 {
		t.Fatalf("%d objects, want 1", len(all))
	}
	return of[*appsv1.DaemonSet](t, all).Spec.Template.Spec
}

// TestCleanup checks that the init container has the privileges of nftproxy, in the network namespace of the
// host, and that the container that waits has none.
func TestCleanup(t *testing.T) {
	pod := cleanupPod(t)
	if len(pod.InitContainers) != 1 || len(pod.Containers) != 1 || !pod.HostNetwork {
		t.Fatalf("%d init containers, %d containers, hostNetwork %v",
			len(pod.InitContainers), len(pod.Containers), pod.HostNetwork)
	}
	checkSecurity(t, &pod.InitContainers[0], nil)
	want := &corev1.SecurityContext{
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		Privileged:               ptr.To(false),
		AllowPrivilegeEscalation: ptr.To(false),
		ReadOnlyRootFilesystem:   ptr.To(true),
		RunAsUser:                ptr.To[int64](65532),
		RunAsGroup:               ptr.To[int64](65532),
	}
	if diff := cmp.Diff(want, pod.Containers[0].SecurityContext); diff != "" {
		t.Errorf("securityContext of the container that waits (-want +got):\n%s", diff)
	}
}

// command returns the command of a container, with a binary in place of the one of the image.
func command(c *corev1.Container, binary string) *exec.Cmd {
	line := slices.Concat(c.Command, c.Args)
	if line[0] != "/nftproxy" || c.Image != "nftproxy:VERSION" {
		return exec.Command("/wrong/image/" + c.Image + line[0])
	}
	return exec.Command(binary, line[1:]...)
}

// TestCleanupRuns runs the containers of the pod on a node with nftproxy's tables, in the order of the
// kubelet: the first one ends and says what it removed, the second one stays until the pod is deleted.
func TestCleanupRuns(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	binary := filepath.Join(t.TempDir(), "nftproxy")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/nftproxy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	run := func(cmd *exec.Cmd) string {
		t.Helper()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		return string(out)
	}
	pod := cleanupPod(t)
	for _, family := range []string{"ip", "ip6"} {
		run(exec.Command("nft", "add", "table", family, "nftproxy"))
	}
	const want = "removed table ip nftproxy\nremoved table ip6 nftproxy\n"
	if got := run(command(&pod.InitContainers[0], binary)); got != want {
		t.Errorf("the log of the init container is %q, want %q", got, want)
	}
	if tables := run(exec.Command("nft", "list", "tables")); strings.Contains(tables, "nftproxy") {
		t.Errorf("left over: %s", tables)
	}

	wait := command(&pod.Containers[0], binary)
	var output bytes.Buffer
	wait.Stdout, wait.Stderr = &output, &output
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- wait.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("the container ended: %v\n%s", err, &output)
	case <-time.After(time.Second):
	}
	if err := wait.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || output.Len() > 0 {
		t.Errorf("after SIGTERM the container ended with %v, its log is %q", err, &output)
	}
}

package manifests

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/proxier/source"
)

// TestOverlays checks what all overlays have in common.
func TestOverlays(t *testing.T) {
	kinds := []string{"ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"}
	for _, name := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			all := objects(t, filepath.Join(root, "overlays", name))
			want := kinds
			ds := of[*appsv1.DaemonSet](t, all)
			if volume(t, ds).Name == "kube-proxy" { // the ConfigMap that the cluster has already
				want = slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return k == "ConfigMap" })
			}
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(all))); diff != "" {
				t.Errorf("kinds (-want +got):\n%s", diff)
			}
			for kind, obj := range all {
				m, err := meta.Accessor(obj)
				if err != nil {
					t.Fatal(err)
				}
				namespace := "kube-system"
				if strings.HasPrefix(kind, "Cluster") {
					namespace = ""
				}
				if m.GetName() != "nftproxy" || m.GetNamespace() != namespace {
					t.Errorf("%s has the name %s/%s", kind, m.GetNamespace(), m.GetName())
				}
			}
			checkPod(t, &ds.Spec.Template.Spec)
			if got := ds.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String(); got != "10%" {
				t.Errorf("maxUnavailable %s", got)
			}
			if !maps.Equal(ds.Spec.Selector.MatchLabels, ds.Spec.Template.Labels) {
				t.Errorf("selector %v, labels %v", ds.Spec.Selector.MatchLabels, ds.Spec.Template.Labels)
			}
			checkBinding(t, of[*rbacv1.ClusterRoleBinding](t, all))
		})
	}
}

// volume returns the ConfigMap volume with the configuration. The only other volume has the sysctls of the
// host's network.
func volume(t *testing.T, ds *appsv1.DaemonSet) *corev1.ConfigMapVolumeSource {
	t.Helper()
	volumes := ds.Spec.Template.Spec.Volumes
	if len(volumes) != 2 || volumes[0].ConfigMap == nil {
		t.Fatalf("volumes %v, want a ConfigMap and the sysctls", volumes)
	}
	path := &corev1.HostPathVolumeSource{Path: "/proc/sys/net", Type: ptr.To(corev1.HostPathDirectory)}
	want := corev1.Volume{Name: "sysctls", VolumeSource: corev1.VolumeSource{HostPath: path}}
	if diff := cmp.Diff(want, volumes[1]); diff != "" {
		t.Errorf("volume (-want +got):\n%s", diff)
	}
	return volumes[0].ConfigMap
}

func checkPod(t *testing.T, pod *corev1.PodSpec) {
	t.Helper()
	if !pod.HostNetwork || pod.PriorityClassName != "system-node-critical" ||
		pod.ServiceAccountName != "nftproxy" {
		t.Errorf("hostNetwork %v, priorityClassName %q, serviceAccountName %q",
			pod.HostNetwork, pod.PriorityClassName, pod.ServiceAccountName)
	}
	tolerations := []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	if diff := cmp.Diff(tolerations, pod.Tolerations); diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
	profile := &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	if diff := cmp.Diff(profile, pod.SecurityContext.SeccompProfile); diff != "" {
		t.Errorf("seccompProfile (-want +got):\n%s", diff)
	}
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 1 {
		t.Fatalf("%d containers and %d init containers", len(pod.Containers), len(pod.InitContainers))
	}
	checkInit(t, &pod.InitContainers[0])
	c := &pod.Containers[0]
	checkSecurity(t, c, nil)
	// internal/memory shows that the limit holds for 10,000 Services.
	resources := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")},
		Limits:   corev1.ResourceList{"memory": resource.MustParse("128Mi")},
	}
	if !equality.Semantic.DeepEqual(resources, c.Resources) {
		t.Errorf("resources %v, want %v", c.Resources, resources)
	}
	live, ready := c.LivenessProbe.HTTPGet, c.ReadinessProbe.HTTPGet
	if live.Path != "/livez" || live.Port.IntValue() != 10256 ||
		ready.Path != "/healthz" || ready.Port.IntValue() != 10256 {
		t.Errorf("probes %v and %v", live, ready)
	}
	if got := checkArgs(t, c).Lookup("hostname-override").Value.String(); got != "$(NODE_NAME)" {
		t.Errorf("--hostname-override=%s", got)
	}
	if len(c.VolumeMounts) != 1 {
		t.Errorf("volume mounts %v, want only the configuration", c.VolumeMounts)
	}
	nodeName := &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}
	node := corev1.EnvVar{Name: "NODE_NAME", ValueFrom: nodeName}
	if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return cmp.Equal(e, node) }) {
		t.Errorf("env lacks NODE_NAME: %v", c.Env)
	}
}

// checkInit checks that the init container sets sysctls, which it can write at another path than /proc/sys.
func checkInit(t *testing.T, c *corev1.Container) {
	t.Helper()
	checkSecurity(t, c, &corev1.SELinuxOptions{Type: "spc_t"})
	flags := checkArgs(t, c)
	if flags.Lookup("init-only").Value.String() != "true" {
		t.Errorf("args %q, want --init-only", c.Args)
	}
	dir := flags.Lookup("sysctl-dir").Value.String()
	want := corev1.VolumeMount{Name: "sysctls", MountPath: dir}
	if len(c.VolumeMounts) != 2 || !cmp.Equal(c.VolumeMounts[1], want) || strings.HasPrefix(dir, "/proc/") {
		t.Errorf("volume mounts %v, want the configuration and %v", c.VolumeMounts, want)
	}
}

// checkSecurity checks that the container runs as root with CAP_NET_ADMIN and no other privilege.
func checkSecurity(t *testing.T, c *corev1.Container, selinux *corev1.SELinuxOptions) {
	t.Helper()
	want := &corev1.SecurityContext{
		SELinuxOptions: selinux,
		Capabilities: &corev1.Capabilities{
			Drop: []corev1.Capability{"ALL"},
			Add:  []corev1.Capability{"NET_ADMIN"},
		},
		Privileged:               ptr.To(false),
		AllowPrivilegeEscalation: ptr.To(false),
		ReadOnlyRootFilesystem:   ptr.To(true),
		RunAsUser:                ptr.To[int64](0),
		RunAsGroup:               ptr.To[int64](0),
	}
	if diff := cmp.Diff(want, c.SecurityContext); diff != "" {
		t.Errorf("securityContext (-want +got):\n%s", diff)
	}
}

// checkArgs parses the arguments of a container as nftproxy does, and checks that its first volume has the
// file of --config.
func checkArgs(t *testing.T, c *corev1.Container) *pflag.FlagSet {
	t.Helper()
	for _, resource := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if c.Resources.Requests.Name(resource, "").IsZero() {
			t.Errorf("container %s: no request for %s", c.Name, resource)
		}
	}
	flags := pflag.NewFlagSet("nftproxy", pflag.ContinueOnError)
	config.NewOptions().AddFlags(flags)
	if err := flags.Parse(c.Args); err != nil {
		t.Fatalf("args %q: %v", c.Args, err)
	}
	dir := filepath.Dir(flags.Lookup("config").Value.String())
	want := corev1.VolumeMount{Name: "config", MountPath: dir, ReadOnly: true}
	if len(c.VolumeMounts) == 0 || !cmp.Equal(c.VolumeMounts[0], want) {
		t.Errorf("volume mounts %v, want %v", c.VolumeMounts, want)
	}
	if !slices.Equal(c.Command, []string{"/nftproxy"}) || c.Image != "nftproxy:VERSION" {
		t.Errorf("command %q of image %s", c.Command, c.Image)
	}
	return flags
}

func checkBinding(t *testing.T, b *rbacv1.ClusterRoleBinding) {
	t.Helper()
	want := rbacv1.ClusterRoleBinding{
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "nftproxy"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "nftproxy", Namespace: "kube-system"}},
	}
	got := rbacv1.ClusterRoleBinding{RoleRef: b.RoleRef, Subjects: b.Subjects}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("binding (-want +got):\n%s", diff)
	}
}

// TestConfig checks that nftproxy accepts the configuration in the manifests without warnings.
func TestConfig(t *testing.T) {
	all := objects(t, filepath.Join(root, "overlays/generic"))
	cm := of[*corev1.ConfigMap](t, all)
	if got := volume(t, of[*appsv1.DaemonSet](t, all)).Name; got != cm.Name {
		t.Errorf("the pods mount %s", got)
	}
	file := filepath.Join(t.TempDir(), "config.conf")
	if err := os.WriteFile(file, []byte(cm.Data["config.conf"]), 0o600); err != nil {
		t.Fatal(err)
	}
	flags, options := pflag.NewFlagSet("nftproxy", pflag.ContinueOnError), config.NewOptions()
	options.AddFlags(flags)
	if err := flags.Parse([]string{"--config=" + file}); err != nil {
		t.Fatal(err)
	}
	_, warnings, err := options.Complete()
	if err != nil || len(warnings) > 0 {
		t.Errorf("error %v, warnings %q", err, warnings)
	}
}

// TestGenericReachesAPIServer checks that the address of the API server overrides the ClusterIP from
// Kubernetes.
func TestGenericReachesAPIServer(t *testing.T) {
	pod := of[*appsv1.DaemonSet](t, objects(t, filepath.Join(root, "overlays/generic"))).Spec.Template.Spec
	for _, want := range []corev1.EnvVar{
		{Name: "KUBERNETES_SERVICE_HOST", Value: "API-SERVER-ADDRESS"},
		{Name: "KUBERNETES_SERVICE_PORT", Value: "6443"},
	} {
		if !slices.Contains(pod.Containers[0].Env, want) {
			t.Errorf("env lacks %v", want)
		}
		t.Setenv(want.Name, want.Value)
	}
	// nftproxy refuses the value until it is replaced.
	_, err := source.NewClient(source.ClientConfig{})
	if err == nil || !strings.Contains(err.Error(), "overlays/generic/api-server.yaml") {
		t.Errorf("error %v, want one that names the file to change", err)
	}
}

// TestPilot checks that nftproxy runs exactly on the nodes from which the patch removes kube-proxy.
func TestPilot(t *testing.T) {
	pod := of[*appsv1.DaemonSet](t, objects(t, filepath.Join(root, "overlays/pilot"))).Spec.Template.Spec
	affinity := patched(t, "pilot").Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	want := []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
		Key:      "nftproxy.dev/proxy",
		Operator: corev1.NodeSelectorOpNotIn,
		Values:   []string{pod.NodeSelector["nftproxy.dev/proxy"]},
	}}}}
	if diff := cmp.Diff(want, affinity.NodeSelectorTerms); diff != "" {
		t.Errorf("nodes of kube-proxy (-want +got):\n%s", diff)
	}
}

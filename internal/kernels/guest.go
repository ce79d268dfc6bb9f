package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// step is a command that the guest runs.
type step struct {
	title   string // in the table
	dir     string // in which it runs, relative to the module
	command string
	nft     string // the suite whose nft is in its PATH
}

// testPackages are the packages whose tests show what a kernel does.
func testPackages() []string {
	return []string{"internal/lab", "proxier", "proxier/conntrack", "proxier/kernel", "proxier/netlink",
		"proxier/trace"}
}

// testBinary returns the path of the tests of a package, in the cache and in the guest.
func testBinary(pkg string) string { return "bin/" + strings.ReplaceAll(pkg, "/", "-") + ".test" }

// check runs in a network of its own, because it wants sysctls that other steps inherit.
const check = "sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && " +
	"nftproxy check --cluster-cidr 10.244.0.0/16,fd00:10:244::/56"

// steps returns what the guest runs, with the nft of each suite.
func steps(nfts []string) []step {
	first := nfts[0]
	test := func(title, pkg, args string) step {
		return step{title, pkg, "/" + testBinary(pkg) + " -test.v " + args, first}
	}
	all := []step{
		{"`nftproxy check`", ".", "unshare -n sh -c '" + check + "'", first},
		{"`make demo`", ".", "demo --nftproxy /bin/nftproxy", first},
		test("tests of netlink", "proxier/netlink", ""),
		test("tests of the tables", "proxier/kernel", ""),
		test("tests of connection tracking", "proxier/conntrack", ""),
		test("tests of tracing", "proxier/trace", ""),
		test("tests of the lab", "internal/lab", ""),
		test("golden cases: traffic", "proxier", "-test.run '^TestKernelCases$'"),
	}
	// Listing takes as long as traffic. These cases have all chains and sets.
	listed := test("golden cases: list, save and load", "proxier",
		"-test.run '^TestListedCases$/(affinity|all-kinds|source-ranges|policy-local|masquerade|no-endpoints)'")
	listed.command = "nft --version && " + listed.command
	for _, listed.nft = range nfts {
		all = append(all, listed)
	}
	// From here on the lab uses SCTP sockets instead of packets of its own.
	all = append(all,
		step{"SCTP sockets: tests of the lab", "internal/lab",
			"modprobe sctp && /" + testBinary("internal/lab") + " -test.v", first},
		test("SCTP sockets: flows and golden cases", "proxier",
			"-test.run '^TestFlows$|^TestKernelCases$/(sctp|protocols)'"))
	return all
}

// The guest prints a line with beginStep and the number of a step before its output, and a line with endStep,
// the exit code and the seconds that it took after it.
const (
	beginStep = "=== begin "
	endStep   = "=== end "
)

// script returns the first process of the guest, which runs the steps and turns the machine off.
func script(steps []step) string {
	var b strings.Builder
	b.WriteString(prologue)
	for i, s := range steps {
		fmt.Fprintf(&b, "step %d '%s' '%s' \"%s\"\n", i, s.dir, s.nft, s.command)
	}
	b.WriteString("poweroff -f\n")
	return b.String()
}

// prologue prepares the machine. /etc/protocols has the names that nft needs to list what others programmed.
const prologue = `#!/bin/busybox sh
PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp /run /sbin /etc
ln -s /bin/busybox /sbin/modprobe
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
exec < /dev/null > /dev/console 2>&1
printf 'icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n' > /etc/protocols
ip link set lo up
depmod
uname -v
step() {
	cd "/module/$2"
	echo
	echo "` + beginStep + `$1"
	start=$(cut -d. -f1 /proc/uptime)
	PATH="/nft/$3:/bin" sh -c "$4"
	status=$?
	echo
	echo "` + endStep + `$status $(($(cut -d. -f1 /proc/uptime) - start))"
}
`

// modules matches the modules that the tests load, and those that these need.
var modules = regexp.MustCompile(`/modules\.[^/]*$|/kernel/(net|crypto|lib|arch/[^/]+/(crypto|lib))/|` +
	`/kernel/drivers/net/[^/]+$`)

// image writes the initramfs.
func (r *run) image(file string, k kernel) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	a := newArchive(f)
	a.text("init", script(r.steps))
	a.file("bin/busybox", filepath.Join(r.cache("busybox"), "bin/busybox"))
	for _, suite := range nftSuites() {
		a.nft(suite, r.cache("nft-"+suite))
	}
	for _, program := range []string{"bin/nftproxy", "bin/demo"} {
		a.file(program, r.cache(program))
	}
	for _, pkg := range testPackages() {
		a.file(testBinary(pkg), r.cache(testBinary(pkg)))
	}
	for _, dir := range append(testPackages(), ".") {
		name := path.Join("module", dir)
		a.write(name, fs.ModeDir|0o755, 0, strings.NewReader(""))
		if from := filepath.Join(r.module, dir, "testdata"); exists(from) {
			a.tree(name+"/testdata", from, func(string) bool { return true })
		}
	}
	a.tree("lib/modules/"+filepath.Base(k.modules), k.modules, modules.MatchString)
	return a.close()
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// nft adds the nft of a suite, unpacked in root, as a script that runs it with the libraries of the suite.
func (a *archive) nft(suite, root string) {
	dir, loader := "nft/"+suite+"/lib", ""
	a.each(root, func(file string) {
		name := filepath.Base(file)
		switch library := strings.HasSuffix(filepath.Dir(file), "-linux-gnu"); {
		case library && strings.HasPrefix(name, "ld-linux"):
			loader = name
			a.file(path.Join(dir, name), file)
		case library && strings.Contains(name, ".so"), strings.HasSuffix(file, "/sbin/nft"):
			a.file(path.Join(dir, name), file)
		}
	})
	const format = "#!/bin/sh\nexec /%[1]s/%[2]s --library-path /%[1]s /%[1]s/nft \"$@\"\n"
	a.text("nft/"+suite+"/nft", fmt.Sprintf(format, dir, loader))
}

package support

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
)

// NodeParts are the parts that need no daemon: the program, the kernel and the network of the node.
func NodeParts(version, node string) []Part {
	return []Part{
		{"version.txt", "version and build of this program, kernel, node, time",
			func(_ context.Context, w io.Writer) error { return writeVersion(w, version, node) }},
		{"sysctls.txt", "sysctls of connection tracking, forwarding, and local ports", writeSysctls},
		{"conntrack.txt", "packets that connection tracking dropped since the boot", writeLosses},
		{"network.txt", "links, addresses and routes", writeNetwork},
	}
}

func writeVersion(w io.Writer, version, node string) error {
	var u unix.Utsname
	err := unix.Uname(&u)
	fmt.Fprintf(w, "nftproxy %s\nnode %s\ntime %s\nkernel %s %s %s\ncpus %d\n", version, node,
		time.Now().UTC().Format(time.RFC3339), unix.ByteSliceToString(u.Release[:]),
		unix.ByteSliceToString(u.Version[:]), unix.ByteSliceToString(u.Machine[:]), runtime.NumCPU())
	if info, ok := debug.ReadBuildInfo(); ok {
		fmt.Fprintf(w, "\n%s", info)
	}
	return err
}

// writeSysctls writes those of this network namespace.
func writeSysctls(_ context.Context, w io.Writer) error {
	const dir = "/proc/sys/net"
	var errs error
	for _, pattern := range []string{"netfilter/nf_conntrack_*", "ipv4/ip_forward",
		"ipv6/conf/all/forwarding", "ipv4/conf/*/route_localnet", "ipv4/conf/*/rp_filter",
		"ipv4/ip_local_port_range",
		"ipv4/ip_local_reserved_ports", "bridge/bridge-nf-call-*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		errs = errors.Join(errs, err)
		for _, name := range names {
			value, err := os.ReadFile(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // a link has gone meanwhile
				errs = errors.Join(errs, err)
			}
			name = strings.TrimPrefix(name, "/proc/sys/")
			fmt.Fprintf(w, "%s = %s\n", name, strings.TrimSpace(string(value)))
		}
	}
	return errs
}

func writeLosses(_ context.Context, w io.Writer) error {
	losses, err := conntrack.ReadLosses()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "dropped %d\nnot inserted %d\n", losses.Dropped, losses.Insert)
	return err
}

func writeNetwork(_ context.Context, w io.Writer) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs error
	for _, l := range links {
		a := l.Attrs()
		fmt.Fprintf(w, "%d: %s type %s state %s mtu %d master %d %s\n",
			a.Index, a.Name, l.Type(), a.OperState, a.MTU, a.MasterIndex, a.Flags)
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		errs = errors.Join(errs, err)
		for _, addr := range addrs {
			fmt.Fprintf(w, "    %s\n", addr)
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	for _, r := range routes {
		fmt.Fprintf(w, "route %s\n", r)
	}
	return errors.Join(errs, err)
}

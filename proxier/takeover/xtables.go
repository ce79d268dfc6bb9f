package takeover

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// xtables is what differs between the families: linux/netfilter_ipv4/ip_tables.h and
// linux/netfilter_ipv6/ip6_tables.h.
type xtables struct {
	family       string
	names        string // the file that lists the tables of the network namespace
	domain       int
	level        int
	targetOffset int // where an entry has the offset of its target; the offset of the next entry follows
}

func xtablesFamilies() []xtables {
	return []xtables{
		{"ip", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 88},
		{"ip6", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 140},
	}
}

// Socket options and sizes, the same in both families.
const (
	getInfo        = 64 // IPT_SO_GET_INFO
	getEntries     = 65 // IPT_SO_GET_ENTRIES
	infoSize       = 84 // struct ipt_getinfo
	infoEntries    = 80 // in it, the size of all entries
	entriesHeader  = 40 // struct ipt_get_entries without the entries
	tableNameSize  = 32
	targetHeader   = 32 // struct xt_entry_target: size, name, revision
	targetName     = 2
	targetNameSize = 29
	errorNameSize  = 30 // XT_FUNCTION_MAXNAMELEN
)

// XTables returns the tables of iptables-legacy, which nftables does not show, with the chains that are not
// built in. It needs CAP_NET_ADMIN if there are any.
func XTables() ([]kernel.Table, error) {
	var tables []kernel.Table
	for _, x := range xtablesFamilies() {
		// The kernel creates a table when it is asked for it, so this asks only for tables that exist.
		names, err := os.ReadFile(x.names)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the kernel has no iptables-legacy for the family
		}
		if err != nil {
			return nil, fmt.Errorf("list tables of iptables-legacy: %w", err)
		}
		for _, name := range strings.Fields(string(names)) {
			chains, err := x.chains(name)
			if err != nil {
				return nil, fmt.Errorf("read table %s %s of iptables-legacy: %w", x.family, name, err)
			}
			t := kernel.Table{Family: x.family, Name: name}
			for _, chain := range chains {
				t.Chains = append(t.Chains, kernel.TableChain{Name: chain})
			}
			tables = append(tables, t)
		}
	}
	return tables, nil
}

// chains returns the names of the chains of a table that are not built in.
func (x xtables) chains(table string) ([]string, error) {
	fd, err := unix.Socket(x.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	entries, err := x.entries(fd, table)
	if err != nil {
		return nil, err
	}
	return x.chainNames(entries), nil
}

// entries returns all entries of a table. It asks for the size first; if the table has changed before it is
// read, the kernel answers EAGAIN.
func (x xtables) entries(fd int, table string) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		info := make([]byte, infoSize)
		copy(info[:tableNameSize-1], table)
		if err := getsockopt(fd, x.level, getInfo, info); err != nil {
			return nil, err
		}
		size := binary.NativeEndian.Uint32(info[infoEntries:])
		request := make([]byte, entriesHeader+int(size))
		copy(request[:tableNameSize-1], table)
		binary.NativeEndian.PutUint32(request[tableNameSize:], size)
		err := getsockopt(fd, x.level, getEntries, request)
		if err == nil {
			return request[entriesHeader:], nil
		}
		if !errors.Is(err, unix.EAGAIN) || attempt == 5 {
			return nil, err
		}
	}
}

// chainNames returns the names in the entries with the target ERROR: each starts a chain and has its name.
// The last one ends the table and has the name ERROR.
func (x xtables) chainNames(entries []byte) (names []string) {
	for len(entries) >= x.targetOffset+4 {
		target := int(binary.NativeEndian.Uint16(entries[x.targetOffset:]))
		next := int(binary.NativeEndian.Uint16(entries[x.targetOffset+2:]))
		if next <= target || target+targetHeader > next || next > len(entries) {
			break
		}
		t := entries[target:next]
		if text(t[targetName:targetName+targetNameSize]) == "ERROR" && len(t) >= targetHeader+errorNameSize {
			names = append(names, text(t[targetHeader:targetHeader+errorNameSize]))
		}
		entries = entries[next:]
	}
	if n := len(names); n > 0 {
		return names[:n-1]
	}
	return nil
}

func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// getsockopt reads an option into value, which also holds the request.
func getsockopt(fd, level, option int, value []byte) error {
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return fmt.Errorf("getsockopt %d: %w", option, errno)
	}
	return nil
}

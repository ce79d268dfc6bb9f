package takeover

import (
	"encoding/binary"
	"runtime"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/kernel"
)

// TestXTables creates chains with the kernel's interface of iptables-legacy.
func TestXTables(t *testing.T) {
	inNamespace(t, func() {
		tables, err := XTables()
		if err != nil || len(tables) != 0 {
			t.Fatalf("in a new namespace: %v, %v", tables, err)
		}
		v4, v6 := xtablesFamilies()[0], xtablesFamilies()[1]
		addChains(t, v4, "nat", "KUBE-SERVICES", "KUBE-SVC-LOLE4ISW44XBNF3G")
		addChains(t, v4, "filter")
		addChains(t, v6, "filter", "KUBE-FORWARD")
		if tables, err = XTables(); err != nil {
			t.Fatal(err)
		}
		want := map[string][]kernel.TableChain{
			"ip nat":     {{Name: "KUBE-SERVICES"}, {Name: "KUBE-SVC-LOLE4ISW44XBNF3G"}},
			"ip filter":  nil,
			"ip6 filter": {{Name: "KUBE-FORWARD"}},
		}
		got := map[string][]kernel.TableChain{}
		for _, table := range tables {
			got[table.Family+" "+table.Name] = table.Chains
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
	})
}

// addChains creates a table with empty chains, as iptables-legacy does: it reads the whole table and replaces
// it.
func addChains(t *testing.T, x xtables, table string, names ...string) {
	t.Helper()
	fd, err := unix.Socket(x.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	info := make([]byte, infoSize)
	copy(info, table)
	if err := getsockopt(fd, x.level, getInfo, info); err != nil {
		t.Fatal(err)
	}
	entries, err := x.entries(fd, table)
	if err != nil {
		t.Fatal(err)
	}
	count := binary.NativeEndian.Uint32(info[76:])
	target := 112 // size of an entry without its target
	if x.family == "ip6" {
		target = 168
	}
	entry := func(targetSize int, name string) []byte {
		e := make([]byte, target+targetSize)
		binary.NativeEndian.PutUint16(e[x.targetOffset:], uint16(target))
		binary.NativeEndian.PutUint16(e[x.targetOffset+2:], uint16(len(e)))
		binary.NativeEndian.PutUint16(e[target:], uint16(targetSize))
		copy(e[target+targetName:], name)
		return e
	}
	const errorSize, standardSize = 64, 40
	last := entries[len(entries)-target-errorSize:]
	replaced := append([]byte(nil), entries[:len(entries)-len(last)]...)
	for _, name := range names {
		begin, end := entry(errorSize, "ERROR"), entry(standardSize, "")
		copy(begin[target+targetHeader:], name)
		verdict := int32(-5) // XT_RETURN
		binary.NativeEndian.PutUint32(end[target+targetHeader:], uint32(verdict))
		replaced = append(append(replaced, begin...), end...)
	}
	replaced = append(replaced, last...)
	replace(t, fd, x, table, info, replaced, count, count+2*uint32(len(names)))
}

// replace sends a struct ipt_replace.
func replace(t *testing.T, fd int, x xtables, table string, info, entries []byte, before, after uint32) {
	t.Helper()
	counters := make([]byte, 16*before)
	var pin runtime.Pinner
	pin.Pin(&counters[0])
	defer pin.Unpin()
	r := make([]byte, 96, 96+len(entries))
	copy(r, table)
	copy(r[32:36], info[32:36]) // valid hooks
	binary.NativeEndian.PutUint32(r[36:], after)
	binary.NativeEndian.PutUint32(r[40:], uint32(len(entries)))
	copy(r[44:84], info[36:76]) // hook entries and underflows
	binary.NativeEndian.PutUint32(r[84:], before)
	binary.NativeEndian.PutUint64(r[88:], uint64(uintptr(unsafe.Pointer(&counters[0]))))
	r = append(r, entries...)
	if err := unix.SetsockoptString(fd, x.level, 64, string(r)); err != nil {
		t.Fatalf("replace table %s %s: %v", x.family, table, err)
	}
}

// TestChainNamesCutOff cuts a table off at every byte: nothing is read beyond the end.
func TestChainNamesCutOff(t *testing.T) {
	inNamespace(t, func() {
		x := xtablesFamilies()[0]
		addChains(t, x, "nat", "KUBE-SERVICES")
		fd, err := unix.Socket(x.domain, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		entries, err := x.entries(fd, "nat")
		if err != nil {
			t.Fatal(err)
		}
		for n := range entries {
			if names := x.chainNames(entries[:n]); len(names) > 1 {
				t.Fatalf("%d bytes: %v", n, names)
			}
		}
	})
}

package takeover

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func TestCountServers(t *testing.T) {
	const list = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB rr
  -> C0000202:192B      Masq    1      0          0
UDP  0A60000A:0035 rr persistent 10800
  -> 0AF4020B:14E9      Masq    1      0          0
  -> 0AF4020C:14E9      Masq    1      0          0
TCP  [fd00:0010:0096:0000:0000:0000:0000:000a]:0050 rr
`
	if got := countServers(list); got != 3 {
		t.Errorf("got %d virtual servers, want 3", got)
	}
}

func TestFindIPVS(t *testing.T) {
	inNamespace(t, func() {
		found, err := FindIPVS()
		if err != nil || found.KubeProxy() {
			t.Fatalf("in a new namespace: %v, %v", found, err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = ipvsInterface
		// kube-proxy's interface is a dummy, which not every kernel supports.
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			t.Fatal(err)
		}
		if found, err = FindIPVS(); err != nil || !found.KubeProxy() {
			t.Errorf("with %s: %v, %v", ipvsInterface, found, err)
		}
	})
}

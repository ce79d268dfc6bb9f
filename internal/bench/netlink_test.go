package main

import "testing"

func TestNetlinkBytes(t *testing.T) {
	for _, test := range []struct {
		line           string
		sent, received int
	}{
		{"write(7<NETLINK:[NETFILTER:1523]>, \"\"..., 412) = 412\n", 412, 0},
		{"sendto(3<NETLINK:[29596457]>, ..., 20, 0, {sa_family=AF_NETLINK, nl_pid=0}, 12) = 20\n", 20, 0},
		{"recvfrom(7<NETLINK:[NETFILTER:1523]>, \"\"..., 65536, 0, NULL, NULL) = 36\n", 0, 36},
		{"recvfrom(7<NETLINK:[NETFILTER:1523]>, NULL, 0, MSG_PEEK|MSG_TRUNC, NULL, NULL) = 36\n", 0, 0},
		{"recvmsg(3<NETLINK:[NETFILTER:1]>, {msg_namelen=12}, 0) = -1 EAGAIN (Try again)\n", 0, 0},
		{"recvmsg(3<NETLINK:[ROUTE:1]>, {msg_namelen=12}, 0) = 100\n", 0, 0},
		{"write(5<TCP:[127.0.0.1:4->127.0.0.1:6443]>, \"\"..., 99) = 99\n", 0, 0},
		{"--- SIGURG {si_signo=SIGURG, si_code=SI_TKILL} ---\n", 0, 0},
	} {
		sent, received := netlinkBytes([]byte(test.line))
		if sent != test.sent || received != test.received {
			t.Errorf("%q: %d sent and %d received, want %d and %d",
				test.line, sent, received, test.sent, test.received)
		}
	}
}

package address

import (
	"net/netip"
	"testing"
)

func TestParseAddr(t *testing.T) {
	for _, tt := range []struct{ text, want, err string }{
		{"192.0.2.1", "192.0.2.1", ""},
		{"010.001.0.09", "10.1.0.9", ""}, // decimal, as with kube-proxy
		{"2001:db8::1", "2001:db8::1", ""},
		{"::ffff:192.0.2.1", "192.0.2.1", ""},
		{"", "", `"" is not an IP address`},
		{"host", "", `"host" is not an IP address`},
		{"192.0.2.1/24", "", `"192.0.2.1/24" is not an IP address`},
		{"192.0.2.256", "", `"192.0.2.256" is not an IP address`},
		{"fe80::1%eth0", "", `"fe80::1%eth0" is not an IP address`},
	} {
		got, err := ParseAddr(tt.text)
		var want netip.Addr
		if tt.want != "" {
			want = netip.MustParseAddr(tt.want)
		}
		if got != want || message(err) != tt.err {
			t.Errorf("ParseAddr(%q) = %v, %q; want %v, %q", tt.text, got, message(err), want, tt.err)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for _, tt := range []struct{ text, want, err string }{
		{"10.0.0.0/8", "10.0.0.0/8", ""},
		{"010.1.2.3/16", "10.1.0.0/16", ""},
		{"0.0.0.0/0", "0.0.0.0/0", ""},
		{"fd00::1/64", "fd00::/64", ""},
		{"::/0", "::/0", ""},
		{"", "", `"" is not a CIDR`},
		{"10.0.0.0", "", `"10.0.0.0" is not a CIDR`},
		{"10.0.0.0/33", "", `"10.0.0.0/33" is not a CIDR`},
		{"::ffff:10.1.0.0/104", "10.0.0.0/8", ""},
		{"::ffff:10.1.0.0/96", "0.0.0.0/0", ""},
		{"::ffff:10.1.0.0/95", "::fffe:0:0/95", ""},
		{"::ffff:10.1.0.0/0", "::/0", ""},
	} {
		got, err := ParsePrefix(tt.text)
		var want netip.Prefix
		if tt.want != "" {
			want = netip.MustParsePrefix(tt.want)
		}
		if got != want || message(err) != tt.err {
			t.Errorf("ParsePrefix(%q) = %v, %q; want %v, %q", tt.text, got, message(err), want, tt.err)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

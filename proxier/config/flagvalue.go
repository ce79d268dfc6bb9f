package config

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/nftproxy/nftproxy/proxier/address"
)

var (
	_ pflag.Value = stringValue{}
	_ pflag.Value = counterValue{}
	_ pflag.Value = addressValue{}
	_ pflag.Value = addressPortValue{}
)

// stringValue is a flag that the help shows with a type of its own, and that Complete validates.
type stringValue struct {
	to       *string
	typeName string
}

func (v stringValue) Set(s string) error { *v.to = s; return nil }
func (v stringValue) Type() string       { return v.typeName }
func (v stringValue) String() string     { return deref(v.to) }

// addressValue is a flag for an IP address. An empty one keeps the default.
type addressValue struct{ to *string }

func (v addressValue) Type() string   { return "ip" }
func (v addressValue) String() string { return deref(v.to) }

func (v addressValue) Set(s string) error {
	if s == "" {
		return nil
	}
	if _, err := address.ParseAddr(s); err != nil {
		return err
	}
	*v.to = s
	return nil
}

// addressPortValue is a flag for an IP address with or without a port. An empty one turns off the server.
type addressPortValue struct{ to *string }

func (v addressPortValue) Type() string   { return "ipport" }
func (v addressPortValue) String() string { return deref(v.to) }

func (v addressPortValue) Set(s string) error {
	if _, err := address.ParseAddr(s); err != nil && s != "" {
		if err := checkAddrPort(s); err != nil {
			return fmt.Errorf("%w: want an IP address or IP:port", err)
		}
	}
	*v.to = s
	return nil
}

// deref is for pflag, which calls String on the zero value of a flag's type.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

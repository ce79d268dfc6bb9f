package nftables

import "fmt"

// Class is a number of nft's type classid, major:minor in hexadecimal. It names a shape or a backend. The
// type is that of the packet's priority, which rules use as a register.
type Class uint32

// NewClass returns major:minor.
func NewClass(major, minor uint16) Class { return Class(major)<<16 | Class(minor) }

// String prints the number as nft does.
func (c Class) String() string {
	switch c {
	case 0:
		return "none"
	case 0xffffffff:
		return "root"
	}
	return fmt.Sprintf("%x:%x", uint32(c)>>16, uint32(c)&0xffff)
}

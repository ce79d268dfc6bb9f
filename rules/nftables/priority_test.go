package nftables

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// The expressions of session affinity are those that nft 1.0.6 lists with --debug=netlink, in the same
// registers: nft cannot read a rule that has a key or data elsewhere.
func TestAffinityExpressions(t *testing.T) {
	writePriority := &expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: 1}
	readPriority := &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: 2}
	recall := []expr.Any{
		&expr.Lookup{SourceRegister: 1, SetName: "affinity", IsDestRegSet: true, DestRegister: 1}, writePriority,
	}
	update := &expr.Dynset{
		Operation: unix.NFT_DYNSET_OP_UPDATE, SetName: "affinity", SrcRegKey: 1, SrcRegData: 2,
		Timeout: 3 * time.Hour,
	}
	drop := &expr.Dynset{Operation: 2, SetName: "affinity", SrcRegKey: 1, SrcRegData: 2} // NFT_DYNSET_OP_DELETE
	clients := map[service.Family][]expr.Any{
		service.IPv4: {
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4, DestRegister: 1},
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4, DestRegister: 9},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 10},
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 11},
		},
		service.IPv6: {
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16, DestRegister: 2},
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16, DestRegister: 3},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 4},
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 21},
			&expr.Hash{
				SourceRegister: 2, DestRegister: 1, Length: 40, Modulus: 4294967295, Seed: 0x6e667470,
				Type: expr.HashTypeJenkins,
			},
		},
	}
	remember := Remember{Map: "affinity", Timeout: 3 * time.Hour}
	for f, client := range clients {
		for _, tt := range []struct {
			statement Statement
			want      []expr.Any
		}{
			{Recall{Map: "affinity"}, slices.Concat(client, recall)},
			{remember, slices.Concat(client, []expr.Any{readPriority, update})},
			{Forget{Map: "affinity"}, slices.Concat(client, []expr.Any{readPriority, drop})},
			{ClearPriority{}, []expr.Any{&expr.Immediate{Register: 1, Data: make([]byte, 4)}, writePriority}},
		} {
			if diff := cmp.Diff(tt.want, tt.statement.expressions(f)); diff != "" {
				t.Errorf("%s %T (-want +got):\n%s", f, tt.statement, diff)
			}
		}
	}
}

// SetPriority looks up the whole key from register 1 on, and takes the number from there.
func TestSetPriorityExpressions(t *testing.T) {
	want := []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16, DestRegister: 1},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 2},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 13},
		&expr.Numgen{Modulus: 3, Type: unix.NFT_NG_RANDOM, Register: 14},
		&expr.Lookup{SourceRegister: 1, SetName: "sticky-slots", IsDestRegSet: true, DestRegister: 1},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: 1},
	}
	got := SetPriority{Key: SlotKey(3), Map: "sticky-slots"}.expressions(service.IPv6)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("expressions (-want +got):\n%s", diff)
	}
}

// What a column is a hash of is loaded where nft 1.0.6 loads it, behind a register for the result and those of
// the key.
func TestHashExpressions(t *testing.T) {
	for f, want := range map[service.Family][]expr.Any{
		service.IPv4: {
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4, DestRegister: 3},
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2, DestRegister: 17},
			&expr.Hash{SourceRegister: 3, DestRegister: 11, Length: 8, Modulus: 251, Seed: 0x6d676c76,
				Type: expr.HashTypeJenkins},
		},
		service.IPv6: {
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16, DestRegister: 19},
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2, DestRegister: 23},
			&expr.Hash{SourceRegister: 19, DestRegister: 14, Length: 20, Modulus: 251, Seed: 0x6d676c76,
				Type: expr.HashTypeJenkins},
		},
	} {
		got := DNAT{Key: SlotKeyBy(FlowHash(251)), Map: "endpoints"}.expressions(f)[3:6]
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", f, diff)
		}
	}
}

// A client of a frontend is one key: in IPv4 of the size of the map's key, in IPv6 a hash of everything in
// it.
func TestClientKey(t *testing.T) {
	for _, f := range service.Families() {
		size := 0
		for _, field := range ClientKey(f) {
			size += (field.Size(f) + 3) &^ 3
		}
		if want := (SetID{f, Affinity}).KeySize(); size != want {
			t.Errorf("the key of a client in table %s has %d bytes, the map's %d", f, size, want)
		}
	}
}

func TestClass(t *testing.T) {
	for number, want := range map[Class]string{
		0: "none", 0xffffffff: "root", NewClass(0x4c00, 3): "4c00:3", NewClass(0xffff, 0xfffe): "ffff:fffe",
		NewClass(0, 1): "0:1", NewClass(1, 0): "1:0", 0x0af40102: "af4:102",
	} {
		if got := number.String(); got != want {
			t.Errorf("number %#x is printed as %q, want %q", uint32(number), got, want)
		}
	}
}

package lab

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSCTPRoundTrip(t *testing.T) {
	for _, want := range []sctpPacket{
		{srcPort: 1, dstPort: 65535, chunk: sctpInit, initiateTag: 7},
		{srcPort: 80, dstPort: 33000, verificationTag: 1 << 31, chunk: sctpInitAck, initiateTag: 9,
			data: []byte("pod-a 10.0.0.1\n")},
		{srcPort: 80, dstPort: 33000, verificationTag: 3, chunk: sctpHeartbeatAck, data: []byte("pod-a\n")},
		{srcPort: 80, dstPort: 33000, verificationTag: 3, chunk: sctpCookieAck},
	} {
		packet := want.encode()
		if len(packet)%4 != 0 {
			t.Errorf("%d bytes are not padded", len(packet))
		}
		got, ok := decodeSCTP(packet)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(sctpPacket{})); diff != "" || !ok {
			t.Errorf("ok=%t (-want +got):\n%s", ok, diff)
		}
		for i := range packet {
			damaged := append([]byte(nil), packet...)
			damaged[i] ^= 1
			if _, ok := decodeSCTP(damaged); ok {
				t.Errorf("a damaged byte %d is not noticed", i)
			}
		}
		for n := range packet {
			if _, ok := decodeSCTP(packet[:n]); ok {
				t.Errorf("a packet cut to %d bytes is not noticed", n)
			}
		}
	}
}

// The checksum must be the CRC32c of RFC 3720, B.4, for 32 bytes of zero.
func TestSCTPChecksum(t *testing.T) {
	if got, want := sctpChecksum(make([]byte, 32)), uint32(0x8a9136aa); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// The Services of the part sticky, how many of them have session affinity in turns, how many clients of one
// more Service are remembered, and for how long.
const (
	stickyServices = 6000
	stickyClients  = 200_000
	stickyTimeout  = 15 * time.Second // longer than it takes to send their packets
	stickyName     = "sticky"
)

func (b *bench) stickyCounts() (services int, counts []int, clients int) {
	if b.quick {
		return 200, []int{0, 100}, 10_000
	}
	return stickyServices, []int{0, 1000, 5000}, stickyClients
}

// sticky measures what session affinity costs: changes of a Service without it while others have it, and the
// removal of an endpoint whose clients are remembered and expire.
func (b *bench) sticky(ctx context.Context) error {
	b.part = "sticky"
	_, counts, clients := b.stickyCounts()
	for _, count := range counts {
		if err := b.cluster.stick(ctx, count); err != nil {
			return err
		}
		for round := range b.rounds {
			for i := range b.contenders {
				who := b.contenders[(i+round)%len(b.contenders)]
				if !who.fits(b.cluster.services) || b.failed[who.name] {
					continue
				}
				b.say("%d services, %d sticky, round %d: %s", b.cluster.services, count, round+1, who.name)
				err := b.stickyOf(ctx, who, count, clients)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					b.fail(who, err)
				}
				if err := errors.Join(b.cluster.drop(ctx, stickyName), b.cluster.restore(ctx)); err != nil {
					return err
				}
			}
		}
	}
	return b.cluster.stick(ctx, 0)
}

// stickyOf measures a contender once. The changes are of Services without session affinity.
func (b *bench) stickyOf(ctx context.Context, who contender, count, clients int) error {
	n, err := newNode(who, b.cluster, b.dir)
	if err != nil {
		return err
	}
	defer n.close()
	if _, err := n.start(ctx); err != nil {
		return err
	}
	done := 0
	for _, kind := range changeKinds()[1:3] { // an endpoint added, and removed: both change a count
		other := func(ctx context.Context, c *cluster, i int) error {
			return kind.make(ctx, c, c.beyond(i, count))
		}
		name, least, most := fmt.Sprintf("%s, %d sticky", kind.name, count), fewest, b.options.changes
		if kind.undoes {
			least, most = done, done
		}
		of := change{name: name, make: other, undoes: kind.undoes}
		if done, err = b.series(ctx, n, of, least, most); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, counts, _ := b.stickyCounts(); count == counts[len(counts)-1] {
		return b.rememberedOf(ctx, n, clients)
	}
	return nil
}

// beyond returns a number for spread, for the i-th change, that chooses a Service without session affinity:
// none of the first sticky ones.
func (c *cluster) beyond(i, sticky int) int {
	for n := 0; ; n++ {
		if c.spread(n) < sticky {
			continue
		}
		if i == 0 {
			return n
		}
		i--
	}
}

// rememberedOf measures the removal of an endpoint and its return, first without clients and then with many
// that expire meanwhile, and how long the proxy takes to end then.
func (b *bench) rememberedOf(ctx context.Context, n *node, clients int) error {
	svc, slice := stickyService(3)
	if err := b.cluster.put(ctx, svc, slice); err != nil {
		return err
	}
	if err := n.settle(ctx, stillness); err != nil {
		return err
	}
	var before, after int
	for _, most := range []int{0, clients} {
		begin := time.Now()
		if err := n.sendFrom(most, serviceAddr(maxServices)); err != nil {
			return err
		}
		remembered, err := n.remembered()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("sticky endpoint removed or added, %d clients", most)
		if most > 0 {
			before = remembered
			sleep(ctx, stickyTimeout-time.Since(begin)) // now the first ones expire
		} else if remembered > 0 {
			return fmt.Errorf("%d clients are remembered before there are any", remembered)
		}
		turns := func(ctx context.Context, c *cluster, i int) error {
			_, s := stickyService(2 + i%2)
			return c.update(ctx, s)
		}
		if _, err := b.series(ctx, n, change{name: name, make: turns}, fewest, b.options.changes); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if after, err = n.remembered(); err != nil {
			return err
		}
		_, whole := stickyService(3)
		if err := errors.Join(b.cluster.update(ctx, whole), n.settle(ctx, stillness)); err != nil {
			return err
		}
	}
	b.put(n, "clients remembered before the changes", "", float64(before))
	b.put(n, "clients remembered after the changes", "", float64(after))
	start := time.Now()
	n.proxy.stop()
	b.put(n, "SIGTERM to exit", "ms", milliseconds(time.Since(start)))
	return nil
}

// stickyService returns a Service with session affinity, and its slice with so many endpoints.
func stickyService(endpoints int) (*corev1.Service, *discoveryv1.EndpointSlice) {
	svc := temporary(newService(stickyName, serviceAddr(maxServices)))
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
		ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(int32(stickyTimeout.Seconds()))}}
	var addrs []netip.Addr
	for j := range endpoints {
		addrs = append(addrs, backendAddr(maxServices, j, 0))
	}
	return svc, temporary(endpointSlice(stickyName, stickyName, addrs...))
}

// stick gives the first Services session affinity, and no others.
func (c *cluster) stick(ctx context.Context, count int) error {
	var group errgroup.Group
	group.SetLimit(writers)
	services := c.client.CoreV1().Services(namespace)
	for i := range max(count, c.sticky) {
		if i < min(count, c.sticky) {
			continue // it has it, and keeps it
		}
		group.Go(func() error {
			svc, err := services.Get(ctx, serviceName(i), metav1.GetOptions{})
			if err != nil {
				return err
			}
			svc.Spec.SessionAffinity, svc.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
			if i < count {
				svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			}
			_, err = services.Update(ctx, svc, metav1.UpdateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("give %d services session affinity: %w", count, err)
	}
	c.sticky = count
	return nil
}

// sendFrom sends the first packet of a TCP connection from each of so many addresses, through the node. It
// gets no answer, but the rules remember the client.
func (n *node) sendFrom(clients int, to netip.Addr) error {
	return n.lab.Namespace("pod-a").Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		client, addr := netip.MustParseAddr("100.64.0.1"), sockaddr(netip.AddrPortFrom(to, 0))
		for range clients {
			packet := synPacket(client, to)
			err := unix.Sendto(fd, packet, 0, addr)
			for again(err) {
				err = unix.Sendto(fd, packet, 0, addr)
			}
			if err != nil {
				return fmt.Errorf("send from %s: %w", client, err)
			}
			client = client.Next()
		}
		return nil
	})
}

// synPacket returns an IPv4 packet that begins a TCP connection. The kernel completes the header of IP.
func synPacket(from, to netip.Addr) []byte {
	const headerSize, tcpSize, synFlag = 20, 20, 2
	packet := make([]byte, headerSize+tcpSize)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_TCP
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.AsSlice())
	tcp := packet[headerSize:]
	binary.BigEndian.PutUint16(tcp, 4096)
	binary.BigEndian.PutUint16(tcp[2:], servicePort)
	tcp[12], tcp[13] = tcpSize/4<<4, synFlag
	sum := uint32(unix.IPPROTO_TCP + tcpSize) // connection tracking ignores a packet with a wrong checksum
	for i := 12; i < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum+sum>>16))
	return packet
}

// remembered returns how many clients the sets and maps of a proxy remember: the names of kube-proxy's and of
// nftproxy's start with affinity.
func (n *node) remembered() (count int, err error) {
	conn := n.gen.conn
	type set struct{ table, name string }
	var sets []set
	err = conn.Dump(unix.NFT_MSG_GETSET, unix.NFPROTO_IPV4, "", "", func(attributes []byte) error {
		var s set
		for typ, v := range netlink.Attrs(attributes) {
			switch typ {
			case unix.NFTA_SET_TABLE:
				s.table = netlink.String(v)
			case unix.NFTA_SET_NAME:
				s.name = netlink.String(v)
			}
		}
		if strings.HasPrefix(s.name, "affinity") {
			sets = append(sets, s)
		}
		return nil
	})
	for _, s := range sets {
		if err != nil {
			break
		}
		err = conn.DumpElements(unix.NFPROTO_IPV4, s.table, s.name, func([]byte) error { count++; return nil })
	}
	if err != nil {
		return 0, fmt.Errorf("count remembered clients: %w", err)
	}
	return count, nil
}

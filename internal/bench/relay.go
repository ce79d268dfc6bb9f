package main

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// relay listens on a node at the address of the API server, which is on the loopback of another namespace,
// forwards the connections to it and counts the received bytes.
type relay struct {
	listener net.Listener
	received atomic.Int64 // bytes from the API server, with TLS
}

func newRelay(node *lab.Namespace, c *cluster) (*relay, error) {
	r := &relay{}
	err := node.Do(func() (err error) {
		r.listener, err = net.Listen("tcp", c.addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("relay to the API server: %w", err)
	}
	go func() {
		for {
			conn, err := r.listener.Accept()
			if err != nil {
				return
			}
			go r.serve(conn, c)
		}
	}()
	return r, nil
}

func (r *relay) serve(near net.Conn, c *cluster) {
	defer near.Close()
	far, err := c.dial(c.addr)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		_, _ = io.Copy(far, near)
		_ = far.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := far.Read(buf)
		r.received.Add(int64(n))
		if _, werr := near.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

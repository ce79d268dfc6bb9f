package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// noSubscribers returns an error if a socket of the namespace is subscribed to nftables notifications,
// because every commit would also write them.
func noSubscribers(ns *lab.Namespace) error {
	return ns.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netlink")
		if err != nil {
			return fmt.Errorf("find nftables subscribers: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[1] != strconv.Itoa(unix.NETLINK_NETFILTER) {
				continue
			}
			groups, err := strconv.ParseUint(fields[3], 16, 64)
			if err != nil {
				return fmt.Errorf("find nftables subscribers: %w", err)
			}
			if groups&(1<<(unix.NFNLGRP_NFTABLES-1)) != 0 {
				return fmt.Errorf("netlink port %s has subscribed to nftables, which slows down commits", fields[2])
			}
		}
		return nil
	})
}

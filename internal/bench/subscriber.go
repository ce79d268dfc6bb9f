package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// noSubscribers fails if a socket of the namespace listens to nftables notifications: every commit would wait for them
// to be written.
func noSubscribers(ns *lab.Namespace) error {
	return ns.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netlink")
		if err != nil {
			return fmt.Errorf("look for subscribers to nftables: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[1] != strconv.Itoa(unix.NETLINK_NETFILTER) {
				continue
			}
			groups, err := strconv.ParseUint(fields[3], 16, 64)
			if err != nil {
				return fmt.Errorf("look for subscribers to nftables: %w", err)
			}
			if groups&(1<<(unix.NFNLGRP_NFTABLES-1)) != 0 {
				return fmt.Errorf("netlink port %s is subscribed to nftables notifications: that makes every commit slower", fields[2])
			}
		}
		return nil
	})
}

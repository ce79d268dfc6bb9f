// Command nftproxy is a replacement for kube-proxy on nftables.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	var exit exitCode
	switch {
	case errors.As(err, &exit):
		if err != exit {
			fmt.Fprintln(os.Stderr, "nftproxy:", err)
		}
		os.Exit(int(exit))
	case err != nil:
		fmt.Fprintln(os.Stderr, "nftproxy:", err)
		os.Exit(2)
	}
}

// exitCode is an error that ends the process with this code and without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

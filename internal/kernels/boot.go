package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// machine is what emulates a machine of an architecture.
type machine struct {
	command []string
	console string // the serial port
}

// machines returns the machine of each architecture. All emulate the processor: hardware that is virtual
// itself often cannot run virtual machines.
func machines() map[string]machine {
	return map[string]machine{
		// QEMU 7.2 emulates cmpxchg16b wrongly, and Linux 6.12 panics with it.
		"amd64": {[]string{"qemu-system-x86_64", "-M", "q35", "-cpu", "max,-cx16"}, "ttyS0"},
		"arm64": {[]string{"qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"}, "ttyAMA0"},
	}
}

// boot boots the kernel with the initramfs until the guest turns itself off, and returns its output.
func (r *run) boot(ctx context.Context, k kernel, initramfs string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	m, log := machines()[r.arch], r.log(k)
	args := append(m.command[1:], "-accel", "tcg", "-m", "2048", "-nic", "none", "-display", "none",
		// The clock counts instructions, one in a nanosecond, and skips the time when the guest is idle.
		"-icount", "shift=0,sleep=off", "-rtc", "clock=vm",
		"-no-reboot", "-serial", "file:"+log, "-kernel", k.image, "-initrd", initramfs,
		"-append", "loglevel=1 panic=-1 console="+m.console)
	out, err := exec.CommandContext(ctx, m.command[0], args...).CombinedOutput()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("the guest did not end within %v: %w", limit, ctx.Err())
	case err != nil:
		err = fmt.Errorf("%s: %w: %s", m.command[0], err, out)
	}
	text, errRead := os.ReadFile(log)
	return strings.ReplaceAll(string(text), "\r\n", "\n"), errors.Join(err, errRead)
}

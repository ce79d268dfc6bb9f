package lab

import (
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// helperVar makes the test binary a command: "enter" is runHelper, "victims" runs victims.
const helperVar = "NFTPROXY_LAB_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperVar) {
	case "enter":
		os.Exit(runHelper())
	case "victims":
		if err := Enter(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		testing.Main(regexp.MatchString, victims(), nil, nil)
	}
	Main(m)
}

// runHelper enters a lab, prints its network namespace and its last argument, and ends with status 7 on
// SIGTERM.
func runHelper() int {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, unix.SIGTERM)
	if err := Enter(); err != nil {
		fmt.Println(err)
		return 1
	}
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(here, os.Args[len(os.Args)-1])
	<-terminated
	return 7
}

func newLab(t *testing.T, opts Options) *Lab {
	t.Helper()
	l, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

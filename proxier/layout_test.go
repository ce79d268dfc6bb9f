package proxier

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestPreviousLayoutIsReplaced finds a table of the previous version, whose map of Services had chains
// instead of numbers, and replaces it in one transaction: an open connection goes on, and no new one fails.
func TestPreviousLayoutIsReplaced(t *testing.T) {
	w := &stickyWorld{Lab: newLab(t, lab.Options{}), dir: &daemon{dir: t.TempDir()}}
	w.dir.write(t, "node.yaml", nodeManifest)
	w.dir.write(t, "sticky.yaml", stickyManifest)
	w.dir.write(t, "endpoints.yaml", stickyEndpoints("sticky", podA, podB, podC))
	for _, pod := range []string{podA, podB, podC} {
		echoServer(t, w.Lab, pod+":8080")
	}
	previous, err := os.ReadFile("../testdata/migration/previous-layout.nft")
	if err != nil {
		t.Fatal(err)
	}
	nftIn(t, w.Node(), string(previous), "-f", "-")
	open := echoClient(t, w.Lab)
	open()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	connections := 0
	load.Go(func() {
		for ; ctx.Err() == nil; connections++ {
			echoClient(t, w.Lab)()
		}
	})
	time.Sleep(50 * time.Millisecond)
	w.node = newNode(t, w.dir.dir, w.dir.dir, w.Node())
	generation := w.node.generation(t)
	w.sync(t)
	if moved := w.node.generation(t) - generation; moved != 1 {
		t.Errorf("the first sync made %d transactions, want 1", moved)
	}
	time.Sleep(50 * time.Millisecond)
	stop()
	load.Wait()
	if connections < 10 {
		t.Errorf("%d connections during the change: the test shows nothing", connections)
	}
	open()
	for _, gone := range []string{"remember", "sticky-services", "affinity-"} {
		if text := nftIn(t, w.Node(), "", "list", "ruleset"); strings.Contains(text, gone) {
			t.Errorf("%s is still in the kernel:\n%s", gone, text)
		}
	}
	if d := w.node.diff(t); !d.Empty() {
		t.Errorf("another sync would change\n%s", deltaText(d))
	}
}

// echoServer answers each line with the same line, at an address of a pod.
func echoServer(t *testing.T, l *lab.Lab, addr string) {
	t.Helper()
	names := map[string]string{podA: "pod-a", podB: "pod-b", podC: "pod-c"}
	pod, _, _ := strings.Cut(addr, ":")
	var listener net.Listener
	err := l.Namespace(names[pod]).Do(func() (err error) {
		listener, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // until the client hangs up
			}()
		}
	}()
}

// echoClient connects the client with the Service sticky. The function that it returns sends a line and waits
// for it.
func echoClient(t *testing.T, l *lab.Lab) func() {
	t.Helper()
	var conn net.Conn
	err := l.Namespace("client").Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", stickyAddr, 2*time.Second)
		return err
	})
	if err != nil {
		t.Errorf("connect: %v", err)
		return func() {}
	}
	t.Cleanup(func() { conn.Close() })
	answers := bufio.NewReader(conn)
	return func() {
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Error(err)
		}
		if _, err := fmt.Fprintln(conn, "hello"); err != nil {
			t.Errorf("send: %v", err)
		}
		if line, err := answers.ReadString('\n'); err != nil || line != "hello\n" {
			t.Errorf("received %q, %v", line, err)
		}
	}
}

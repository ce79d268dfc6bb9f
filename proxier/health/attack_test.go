package health

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

const (
	// targetVar makes the test binary serve what the variable names, to be attacked, instead of testing.
	targetVar = "NFTPROXY_HEALTH_TARGET"

	idleClients   = 10_000
	headerClients = 1_000
	headerSize    = 1 << 20
	maxGrowth     = 20 << 20
	targetPorts   = 10 // of healthCheckNodePorts
)

func TestMain(m *testing.M) {
	if target := os.Getenv(targetVar); target != "" {
		if err := serveTarget(target); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveTarget serves until its process is killed. The target is a kind and addresses, separated by spaces.
func serveTarget(target string) error {
	words := strings.Fields(target)
	health := NewProxierHealth(ProxierOptions{Timeout: time.Minute})
	health.SetFamilies(service.Families())
	health.Updated()
	health.SetNodeEligible(true)
	server := &Server{Name: words[0], Addr: words[1], HardFail: true}
	switch words[0] {
	case "healthz":
		server.Handler = health.Handler()
	case "metrics":
		server.Handler = MetricsHandler(MetricsOptions{Metrics: text("metrics page")})
	case "healthCheckNodePort":
		checks := NewServiceHealth(health.Healthy)
		services := map[service.Name]Service{}
		for _, word := range words[1:] {
			port := netip.MustParseAddrPort(word).Port()
			services[service.Name{Namespace: "default", Name: word}] = Service{
				Port: port, LocalEndpoints: map[service.Family]int{service.IPv4: 1, service.IPv6: 1}}
		}
		for _, err := range checks.Sync(services, []netip.Addr{home}) {
			return err
		}
		select {}
	}
	return server.Run(context.Background())
}

// TestAttack opens 10,000 connections that send nothing and 1,000 with very large headers to each kind of
// server, in a process of its own, and checks how much the memory of that process grows, and that it
// meanwhile answers a client.
func TestAttack(t *testing.T) {
	for kind, ports := range map[string]int{"healthz": 1, "metrics": 1, "healthCheckNodePort": targetPorts} {
		t.Run(kind, func(t *testing.T) {
			var addrs []string
			var used []uint16
			for range ports {
				used = append(used, freePort(t, used...))
				addrs = append(addrs, netip.AddrPortFrom(home, used[len(used)-1]).String())
			}
			process := startTarget(t, kind, addrs)
			url := "http://" + addrs[0] + "/healthz"
			askHonestly(t, url)
			before := memory(t, process, "VmRSS")
			slowest, answers := attack(t, addrs, url)
			after := askHonestly(t, url)
			grown := memory(t, process, "VmHWM") - before
			t.Logf("memory grew from %d kB by at most %d kB; %d answers while the connections were opened, "+
				"the slowest after %v; then an answer after %v", before>>10, grown>>10, answers,
				slowest.Round(time.Millisecond), after.Round(time.Millisecond))
			if grown > maxGrowth {
				t.Errorf("memory grew by %d kB, want at most %d", grown>>10, maxGrowth>>10)
			}
		})
	}
}

// startTarget starts a process that serves on the addresses and returns its number. It ends with the test.
func startTarget(t *testing.T, kind string, addrs []string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), targetVar+"="+kind+" "+strings.Join(addrs, " "))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for _, addr := range addrs {
		getUntilServed(t, "http://"+addr+"/healthz")
	}
	return cmd.Process.Pid
}

// memory returns a value of /proc/PID/status in bytes: VmRSS is the memory now, VmHWM the most so far.
func memory(t *testing.T, process int, name string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte(name+":"))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		t.Fatalf("no %s in %s", name, status)
	}
	kb, err := strconv.Atoi(string(fields[0]))
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// attack attacks the addresses until each connection was opened, and returns how often url was answered
// meanwhile, and how long the slowest answer took.
func attack(t *testing.T, addrs []string, url string) (slowest time.Duration, answers int) {
	t.Helper()
	var wg sync.WaitGroup
	header := []byte("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: " + strings.Repeat("a", headerSize))
	for i := range headerClients {
		wg.Go(func() {
			conn := open(t, addrs[i%len(addrs)])
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = conn.Write(header) // the server may close the connection at any time
		})
	}
	wg.Go(func() {
		for i := range idleConnections(t) {
			open(t, addrs[i%len(addrs)])
		}
	})
	opened := make(chan struct{})
	go func() { wg.Wait(); close(opened) }()
	for {
		slowest = max(slowest, askHonestly(t, url))
		answers++
		select {
		case <-opened:
			return slowest, answers
		default:
		}
	}
}

// idleConnections returns how many idle connections to open: fewer if this process may not have as many.
func idleConnections(t *testing.T) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Error(err)
	}
	if free := int(limit.Cur) - headerClients - 100; free < idleClients {
		t.Logf("the limit of open files is %d: %d idle connections only", limit.Cur, free)
		return free
	}
	return idleClients
}

// open connects until the end of the test.
func open(t *testing.T, addr string) net.Conn {
	conn, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		t.Error(err)
		return &net.TCPConn{}
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// askHonestly fetches a page and returns how long that took.
func askHonestly(t *testing.T, url string) time.Duration {
	t.Helper()
	start := time.Now()
	// Its address is not that of the attackers, which is 127.0.0.1.
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(home2, 0))}
	honest := http.Client{Timeout: 20 * time.Second,
		Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	resp, err := honest.Get(url)
	if err != nil {
		t.Error(err)
		return time.Since(start)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s: status %d", url, resp.StatusCode)
	}
	return time.Since(start)
}

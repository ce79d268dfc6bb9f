package rules_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// nft runs a shell script with nft in a network namespace of its own. In the script $1, $2, ... are files
// with the texts. It does not need root if user namespaces are allowed.
func nft(t *testing.T, script string, texts ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Fatalf("%v: install nftables (Debian: apt-get install nftables)", err)
	}
	args := []string{"-euc", script, "sh"}
	for i, text := range texts {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("%d.nft", i))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	cmd := exec.Command("sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// nftSeeds is the number of random rulesets for nft.
const nftSeeds = 8

func TestNFTAcceptsRulesets(t *testing.T) {
	for seed := range uint64(nftSeeds) {
		g := newGenerator(seed)
		g.small = true
		text := rulesetText(t, g.ruleset(g.config(), nil, 8))
		_, err := nft(t, `nft -c -f - <"$1"; nft -f "$1"; nft -f "$1"; nft list ruleset`, text)
		if err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, firstBadLines(err, text))
		}
	}
}

// nft can load its own listing: this is how people save their rulesets, with a flush before it.
func TestNFTReloadsListing(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	putSvc(r, web())
	putSvc(r, stickyBoth())
	const script = `nft -f "$1"; (echo flush ruleset; nft list ruleset) >"$1.list"
		nft -f "$1.list"; nft list ruleset >"$1.again"; cat "$1.again"
		tail -n +2 "$1.list" | diff - "$1.again" >&2`
	out, err := nft(t, script, rulesetText(t, r))
	if err != nil {
		t.Error(err)
	}
	checkListing(t, 0, r, out)
}

// stickyBoth is a Service with session affinity in both families, for each policy, with endpoints here and
// elsewhere.
func stickyBoth() *service.Service {
	here, there := ready("n1", "10.244.1.1:80 [fd00::1]:80"), ready("n2", "10.244.2.1:80 [fd00::2]:80")
	svc := sticky(slices.Concat(here, there))
	svc.Name.Name = "sticky"
	svc.ClusterIPs, svc.LoadBalancerIPs = addrs("10.96.0.20 fd00:96::20"), addrs("203.0.113.20 2001:db8:2::20")
	return svc
}

// nft reads the rules of session affinity, and lists them in the words in which nftproxy writes them.
func TestNFTListsAffinity(t *testing.T) {
	r := rules.NewRuleset(testConfig())
	putSvc(r, stickyBoth())
	out, err := nft(t, `nft -f "$1"; nft list ruleset`, rulesetText(t, r))
	if err != nil {
		t.Fatal(err)
	}
	got, family, chain := map[string][]string{}, "", ""
	for _, line := range linesOf(out) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "table "):
			family = words[1]
		case strings.HasPrefix(line, "\tchain sticky-"):
			chain = words[1]
		case line == "\t}":
			chain = ""
		case chain != "":
			got[family] = append(got[family], chain+": "+strings.TrimSpace(line))
		}
	}
	for _, f := range service.Families() {
		want := stickyChains(r, f)
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "timeout 3600s", "timeout 1h")
		}
		checkLines(t, "rules in table "+f.String(), want, got[f.String()])
	}
}

// With the longest names, namespace/name:port has 191 characters.
func TestNFTLongNames(t *testing.T) {
	svc := web()
	svc.Name = service.Name{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("s", 63)}
	svc.Ports[0].Name, svc.Ports[0].Protocol, svc.Ports[0].Port = strings.Repeat("p", 63), service.SCTP, 65535
	svc.Ports[0].Endpoints = ready("n1", "10.244.1.1:65535")
	svc.AffinityTimeout, svc.ExternalIPs = 24*time.Hour, addrs("198.51.100.1")
	r := rules.NewRuleset(testConfig())
	putSvc(r, svc)
	if _, err := nft(t, `nft -f "$1"; nft list ruleset`, rulesetText(t, r)); err != nil {
		t.Error(err)
	}
}

// Deltas of Changes are loaded behind the ruleset that they change, in one script: nft 1.0.6 cannot add a
// rule that uses the map endpoints to a table that the kernel has already.
func TestNFTAcceptsChanges(t *testing.T) {
	for seed := range uint64(nftSeeds) {
		g := newGenerator(seed)
		g.small = true
		config, node := g.config(), g.node()
		r := rules.NewRuleset(config)
		services := map[int]*service.Service{}
		texts := []string{rulesetText(t, r)}
		script := `cat "$@" | nft -f -; nft list ruleset`
		for range 8 {
			for range 3 {
				i := g.IntN(5)
				services[i] = g.change(i, services[i])
				r.Put(rules.Compile(services[i], node, r.Slots, rules.MaxShare))
			}
			r.Remove(name(g.IntN(5)))
			texts = append(texts, deltaText(t, r.Changes()))
			r.Done()
		}
		out, err := nft(t, script, texts...)
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
			continue
		}
		checkListing(t, seed, r, out)
	}
}

// Deltas of Diff are loaded after the ruleset of an older state of the Services.
func TestNFTAcceptsDiffs(t *testing.T) {
	for seed := range uint64(nftSeeds) {
		g := newGenerator(seed)
		g.small = true
		config := g.config()
		older := g.ruleset(config, nil, 8)
		kernel := tablesOf(older)
		r := g.ruleset(config, kernel.Programmed(older).Slots(), 8)
		out, err := nft(t, `cat "$1" "$2" | nft -f -; nft list ruleset`, rulesetText(t, older),
			deltaText(t, rules.Diff(r, kernel.Programmed(r))))
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
			continue
		}
		checkListing(t, seed, r, out)
	}
}

// checkListing checks that a listing of the kernel has as many elements as the ruleset.
func checkListing(t *testing.T, seed uint64, r *rules.Ruleset, listing string) {
	t.Helper()
	want := 0
	for range r.Elements() {
		want++
	}
	got := 0
	for _, block := range strings.Split(listing, "elements = {")[1:] {
		elements, _, _ := strings.Cut(block, "}")
		got += len(strings.Split(elements, ","))
	}
	if got != want {
		t.Errorf("seed %d: the kernel lists %d elements, want %d", seed, got, want)
	}
}

// firstBadLines returns the lines of text that nft complains about.
func firstBadLines(err error, text string) string {
	lines := linesOf(text)
	var out []string
	for message := range strings.SplitSeq(err.Error(), "\n") {
		var n int
		if _, rest, ok := strings.Cut(message, ".nft:"); ok {
			fmt.Sscanf(rest, "%d:", &n)
		}
		if n > 0 && n <= len(lines) && !slices.Contains(out, lines[n-1]) {
			out = append(out, lines[n-1])
		}
	}
	return strings.Join(out[:min(len(out), 5)], "\n")
}

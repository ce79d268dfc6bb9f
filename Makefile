# What is checked, and with which versions.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.3.0

# The module of programs that build and check, beside the proxy's own.
TOOLS := internal/tools
# The module of the benchmarks: a plotting library is no business of the proxy's.
BENCHMARKS := internal/bench

export CGO_ENABLED := 0
GO ?= go

.PHONY: all build image test e2e demo bench golden docs fuzz lint vuln verify tools clean

all: build

build: ## bin/nftproxy, static
	$(GO) build -trimpath -ldflags "-s -w" -o bin/nftproxy ./cmd/nftproxy

VERSION ?= $(shell git describe --tags --always --dirty)
image: ## bin/nftproxy-image.tar: an OCI archive for amd64 and arm64, the same bytes each time
	$(GO) run -C $(TOOLS) ./image -module ../.. -version "$(VERSION)" -out bin/nftproxy-image.tar

test: tools ## unit, golden, property and kernel tests; manifests, image, licences
	$(GO) test ./...
	$(GO) test -C $(TOOLS) ./...
	$(GO) test -C $(BENCHMARKS) ./...

e2e: ## nftproxy with a real etcd and kube-apiserver; building those takes minutes, once
	$(GO) test -tags e2e -count 1 -timeout 60m ./internal/controlplane ./internal/e2e ./internal/manifests

demo: build ## a node in network namespaces: who reaches what, and through a change
	$(GO) build -trimpath -o bin/demo ./internal/demo
	bin/demo --nftproxy bin/nftproxy --manifests testdata/demo

# More for it: BENCH='-sizes 1000,10000 -rounds 5'; bin/bench -help lists it. It writes bench.json and plots to bench/.
bench: build ## how fast nftproxy is, beside the bare kernel and the kube-proxy at KUBE_PROXY; needs root
	$(GO) build -C $(BENCHMARKS) -trimpath -o $(CURDIR)/bin/bench .
	bin/bench $(if $(KUBE_PROXY),-kube-proxy $(KUBE_PROXY)) $(BENCH)

golden: ## rewrite the golden files under testdata
	$(GO) test ./proxier -run 'TestGolden' -update

docs: ## rewrite docs/nftproxy.md from the help, and the table of docs/configuration.md from the settings
	$(GO) test ./cmd/nftproxy ./proxier/config -run TestReference -update

FUZZTIME ?= 30s
fuzz: ## each fuzz test for FUZZTIME
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test $$p -list '^Fuzz' | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test $$p -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) || exit 1; done; done

lint: ## formatting, vet, staticcheck; the import rule is a test: internal/architecture
	@unformatted=$$(gofmt -l cmd internal proxier rules); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e ./internal/...
	$(GO) run $(STATICCHECK) ./...
	@for module in $(TOOLS) $(BENCHMARKS); do \
	  $(GO) vet -C $$module ./... && $(GO) run -C $$module $(STATICCHECK) ./... || exit 1; done

vuln: ## known vulnerabilities in what is called; passed over where their database cannot be had
	@out=$$($(GO) run $(GOVULNCHECK) ./... 2>&1) && status=0 || status=$$?; echo "$$out"; \
	case "$$out" in *"fetching vulnerabilities"*) echo "vuln: SKIPPED, the database cannot be had here"; exit 0;; esac; exit $$status

verify: lint test demo e2e image vuln ## what CI checks

tools: ## what the tests need beside Go: nft, to compare with
	@command -v nft >/dev/null || PATH="$$PATH:/usr/sbin:/sbin" command -v nft >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nftables >/dev/null; \
	  elif [ "$$(id -u)" = 0 ] && command -v dnf >/dev/null; then dnf install -y -q nftables; \
	  elif [ "$$(id -u)" = 0 ] && command -v apk >/dev/null; then apk add -q nftables; \
	  else echo "the kernel tests compare with nft: install the package nftables (as root: apt-get install nftables)"; exit 1; fi; }

clean:
	rm -rf bin .cache

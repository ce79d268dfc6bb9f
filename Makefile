# Versions of the linters, and the compiler of templates, of which the program has the library.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
TEMPL = github.com/a-h/templ/cmd/templ@$(shell $(GO) list -m -f '{{.Version}}' github.com/a-h/templ)
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.3.0

# The module of programs for builds and checks.
TOOLS := internal/tools
# The module of the benchmarks.
BENCHMARKS := internal/bench
# The module of the tests that compare nftproxy with the code of Kubernetes.
UPSTREAM := internal/upstream
# The module of the kube-proxy to compare with.
KUBEPROXY := testdata/kubeproxy
# The module of the tests in a browser.
BROWSER := internal/browser

export CGO_ENABLED := 0
GO ?= go

.PHONY: all build image test proof e2e browser demo kube-proxy kubeproxy-dumps bench kernels golden case docs pages \
	fuzz lint vuln verify tools clean

all: build

build: ## build bin/nftproxy, a static binary
	$(GO) build -trimpath -ldflags "-s -w" -o bin/nftproxy ./cmd/nftproxy

VERSION ?= $(shell git describe --tags --always --dirty)
image: ## build bin/nftproxy-image.tar, a reproducible OCI archive for amd64 and arm64
	$(GO) run -C $(TOOLS) ./image -module ../.. -version "$(VERSION)" -out bin/nftproxy-image.tar

test: tools ## run unit, golden, property and kernel tests, and those of manifests, image and licences
	$(GO) test ./...
	$(GO) test -C $(TOOLS) ./...
	$(GO) test -C $(BENCHMARKS) ./...
	$(GO) test -C $(UPSTREAM) ./...

proof: tools ## visit every class of packets of every case, and try every mutant of the rules; half an hour
	$(GO) test ./internal/proof -count 1 -v -timeout 120m -args -all

e2e: ## test nftproxy with a real etcd and kube-apiserver; the first run builds them, which takes minutes
	$(GO) test -tags e2e -count 1 -timeout 60m ./internal/controlplane ./internal/e2e ./internal/manifests

browser: ## test the page /status in a headless Chromium, which must be installed
	$(GO) test -C $(BROWSER) -count 1 ./...

demo: build ## show nftproxy on a node in network namespaces, before, during and after a change
	$(GO) build -trimpath -o bin/demo ./internal/demo
	bin/demo --nftproxy bin/nftproxy --manifests testdata/demo

kube-proxy: ## build bin/kube-proxy, to compare with; the first build takes minutes
	version=$$($(GO) list -C $(KUBEPROXY) -m -f '{{.Version}}' k8s.io/kubernetes) && \
	$(GO) build -C $(KUBEPROXY) -trimpath -buildvcs=false -o $(CURDIR)/bin/kube-proxy \
		-ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$$version" .

kubeproxy-dumps: kube-proxy ## record what kube-proxy programs for testdata/rules, or for CASES of it; needs nft
	$(GO) run ./internal/proof/capture $(CASES)

# BENCH has options, such as '-sizes 1000,10000 -rounds 5'; bin/bench -help lists them. It writes to bench/.
bench: build ## measure nftproxy, the bare kernel and with KUBE_PROXY=bin/kube-proxy that one; needs root
	$(GO) build -C $(BENCHMARKS) -trimpath -o $(CURDIR)/bin/bench .
	bin/bench $(if $(KUBE_PROXY),-kube-proxy $(KUBE_PROXY)) $(BENCH)

# KERNELS has options, such as '-kernels 5.10,7'; go run ./internal/kernels -help lists them.
kernels: ## boot other kernels, fetched from Debian, in an emulator, and run the demo and kernel tests in them
	$(GO) run ./internal/kernels $(KERNELS)

golden: ## rewrite the golden files in testdata
	$(GO) test ./proxier -run 'TestGolden' -update

# make case FROM=bundle.tar.gz NAME=two-load-balancers [SERVICES=shop/web,shop/api] [ABOUT="What it shows."]
# or, of what kubectl prints: FROM=cluster.yaml NODE=worker-1 [CONFIG=config.conf]
case: ## make a golden case of a user's cluster, with other names and addresses
	$(GO) run ./internal/testcase -from "$(FROM)" -out "testdata/clusters/$(NAME)" -node "$(NODE)" \
		-config "$(CONFIG)" -services "$(SERVICES)" $(if $(ABOUT),-about "$(ABOUT)")
	$(GO) test ./proxier -run 'TestGoldenRules/^$(NAME)$$' -update

docs: ## rewrite docs/nftproxy.md from the help, and the table of docs/configuration.md from the settings
	$(GO) test ./cmd/nftproxy ./proxier/config -run TestReference -update

PAGE := proxier/status/page
pages: ## compile the template of the page /status to Go
	$(GO) run $(TEMPL) generate -f $(PAGE).templ

FUZZTIME ?= 30s
fuzz: ## run each fuzz test for FUZZTIME
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test $$p -list '^Fuzz' | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test $$p -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) || exit 1; done; done

lint: ## check formatting, vet and staticcheck; internal/architecture tests the import rule
	@unformatted=$$(gofmt -l cmd internal proxier rules); \
	test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	@$(GO) run $(TEMPL) generate -f $(PAGE).templ -stdout | cmp -s - $(PAGE)_templ.go || \
	  { echo "$(PAGE)_templ.go is older than its template: run make pages"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e ./internal/...
	$(GO) run $(STATICCHECK) ./...
	@for module in $(TOOLS) $(BENCHMARKS) $(UPSTREAM) $(BROWSER); do \
	  $(GO) vet -C $$module ./... && $(GO) run -C $$module $(STATICCHECK) ./... || exit 1; done

vuln: ## find calls with known vulnerabilities; skipped where the database is not reachable
	@out=$$($(GO) run $(GOVULNCHECK) ./... 2>&1) && status=0 || status=$$?; echo "$$out"; \
	case "$$out" in *"fetching vulnerabilities"*) \
	  echo "vuln: SKIPPED, the database is not reachable"; exit 0;; esac; exit $$status

verify: lint test browser demo e2e image vuln ## run all checks of CI

tools: ## install nft if possible, which the kernel tests compare with
	@command -v nft >/dev/null || PATH="$$PATH:/usr/sbin:/sbin" command -v nft >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nftables >/dev/null; \
	  elif [ "$$(id -u)" = 0 ] && command -v dnf >/dev/null; then dnf install -y -q nftables; \
	  elif [ "$$(id -u)" = 0 ] && command -v apk >/dev/null; then apk add -q nftables; \
	  else echo "the kernel tests need nft: as root, install the package nftables"; exit 1; fi; }

clean:
	rm -rf bin .cache

# `make help` lists the targets. Most need only Go, git and make. They install their
# tools into .bin, at the versions pinned here.

.DEFAULT_GOAL := help

GO       ?= go
FUZZTIME ?= 20s
STRESS   ?= 4000,3m
ABORTS   ?= 100000
CHAOS    ?= 10m
KILLS    ?= 1000
BENCH    ?= .

TOOLS    := $(CURDIR)/.bin
BINARY   := $(CURDIR)/bin/drawbridge
# Its name is not default.pgo: go build, vet and test would use such a file too, and
# compile everything that the command imports a second time.
PROFILE  := $(CURDIR)/cmd/drawbridge/bench.pgo
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT   := $(shell git rev-parse HEAD 2>/dev/null)
# e2e and the packages below it start processes and need real servers; they run separately.
PACKAGES  = $(shell $(GO) list ./... | grep -v '/e2e\(/\|$$\)')

BUF_VERSION                := v1.75.0
PROTOC_GEN_GO_VERSION      := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
PROTOC_GEN_DOC_VERSION     := v1.5.1
STATICCHECK_VERSION        := v0.8.2
GRPCURL_VERSION            := v1.9.4
API_LINTER_VERSION         := v2.0.0
GRPC_INTEROP_VERSION       := v1.85.0
GHZ_VERSION                := v0.121.0
VALE_VERSION               := v3.17.1
GOVULNCHECK_VERSION        := v1.9.0
# Later versions need a module that not every proxy serves.
NFPM_VERSION               := v2.45.2
CYCLONEDX_VERSION          := v1.10.0
KUBECONFORM_VERSION        := v0.8.0
# These modules contain the definitions of the objects in deploy/kubernetes.
KUBERNETES_VERSION         := v1.37.2
PROMETHEUS_OPERATOR_VERSION := v0.85.0
# This module contains the vulnerability database.
VULNDB_VERSION             := v0.0.0-20261105234957-e22db6528018

# One stamp per tool and version, so that a new version is installed.
BUF                := $(TOOLS)/.buf-$(BUF_VERSION)
PROTOC_GEN_GO      := $(TOOLS)/.protoc-gen-go-$(PROTOC_GEN_GO_VERSION)
PROTOC_GEN_GO_GRPC := $(TOOLS)/.protoc-gen-go-grpc-$(PROTOC_GEN_GO_GRPC_VERSION)
PROTOC_GEN_DOC     := $(TOOLS)/.protoc-gen-doc-$(PROTOC_GEN_DOC_VERSION)
STATICCHECK        := $(TOOLS)/.staticcheck-$(STATICCHECK_VERSION)
GRPCURL            := $(TOOLS)/.grpcurl-$(GRPCURL_VERSION)
GRPC_INTEROP       := $(TOOLS)/.grpc-interop-$(GRPC_INTEROP_VERSION)
GHZ                := $(TOOLS)/.ghz-$(GHZ_VERSION)
VALE               := $(TOOLS)/.vale-$(VALE_VERSION)
GOVULNCHECK        := $(TOOLS)/.govulncheck-$(GOVULNCHECK_VERSION)
INDEXDB            := $(TOOLS)/.indexdb-$(VULNDB_VERSION)
NFPM               := $(TOOLS)/.nfpm-$(NFPM_VERSION)
CYCLONEDX          := $(TOOLS)/.cyclonedx-gomod-$(CYCLONEDX_VERSION)
KUBECONFORM        := $(TOOLS)/.kubeconform-$(KUBECONFORM_VERSION)
# Files below e2e/testdata and proto/lint pin these tools.
H2SPEC             := $(TOOLS)/h2spec
WS                 := $(TOOLS)/ws/installed
CONNECT            := $(TOOLS)/connect/installed
API_LINTER         := $(TOOLS)/.api-linter-$(API_LINTER_VERSION)

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Run a whole bridge on this machine until Ctrl-C
	$(BINARY) demo

.PHONY: fleet-demo
fleet-demo: build ## Run three etcd members and three gateways, kill one of each, roll out a change; KEEP=1 keeps them running (needs etcd-server)
	$(GO) build -o bin/fleetdemo ./deploy/fleetdemo
	bin/fleetdemo -drawbridge $(BINARY) $(if $(KEEP),-keep)

.PHONY: build
build: ## Build the static release binary, bin/drawbridge
	CGO_ENABLED=0 $(GO) build -pgo=$(PROFILE) -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BINARY) ./cmd/drawbridge

# What is released. Its bytes depend only on the source, VERSION, COMMIT and the Go version,
# so that everybody can build the same: no path, no time and no name of a machine.
RELEASE    := $(CURDIR)/bin/release
ARCHS      := amd64 arm64
BINARIES   := $(ARCHS:%=$(RELEASE)/drawbridge-linux-%)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: binaries
binaries: $(BINARIES) ## Build the release binaries, bin/release/drawbridge-linux-*

.PHONY: $(BINARIES)
$(BINARIES): $(RELEASE)/drawbridge-linux-%:
	GOFLAGS= GOEXPERIMENT= GOOS=linux GOARCH=$* GOAMD64=v1 GOARM64=v8.0 CGO_ENABLED=0 $(GO) build -buildvcs=false -pgo=$(PROFILE) -trimpath \
		-ldflags "-s -w -buildid= -X main.version=$(VERSION) -X main.commit=$(COMMIT)" -o $@ ./cmd/drawbridge

.PHONY: release
release: binaries packages image $(CYCLONEDX) ## Build all that is released: binaries, packages, the image, lists of components, checksums
	for arch in $(ARCHS); do \
		$(TOOLS)/cyclonedx-gomod bin -json -std -noserial -notimestamp -version '$(VERSION)' -output $(RELEASE)/drawbridge-linux-$$arch.cdx.json $(RELEASE)/drawbridge-linux-$$arch || exit 1; \
	done
	cd $(RELEASE) && rm -f SHA256SUMS && sha256sum * > SHA256SUMS

.PHONY: image
image: binaries ## Build the container image as an OCI layout, bin/release/drawbridge-image.tar, without a container engine
	CGO_ENABLED=0 $(GO) build -o bin/image ./deploy/image
	bin/image -out $(RELEASE)/drawbridge-image.tar -version '$(VERSION)' -commit '$(COMMIT)' -epoch $(SOURCE_DATE_EPOCH) $(foreach arch,$(ARCHS),$(arch)=$(RELEASE)/drawbridge-linux-$(arch))

PACKAGE_VERSION = $(shell deploy/packages/version '$(VERSION)' '$(SOURCE_DATE_EPOCH)')

.PHONY: packages
packages: binaries package-files $(NFPM) ## Build .deb and .rpm packages of the release binaries, in bin/release
	rm -f $(RELEASE)/*.deb $(RELEASE)/*.rpm
	for arch in $(ARCHS); do for packager in deb rpm; do \
		SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) PACKAGE_ARCH=$$arch PACKAGE_VERSION='$(PACKAGE_VERSION)' PACKAGE_BINARY=$(RELEASE)/drawbridge-linux-$$arch \
			$(TOOLS)/nfpm package --config deploy/packages/nfpm.yaml --packager $$packager --target $(RELEASE) || exit 1; \
	done; done

# The files of the packages that are made from others: the unit with the path of the
# packages' program, shell completions, manual pages and the changelog.
.PHONY: package-files
package-files: build
	rm -rf bin/packages && mkdir -p bin/packages/man
	sed 's|/usr/local/bin/drawbridge|/usr/bin/drawbridge|' deploy/drawbridge.service > bin/packages/drawbridge.service
	$(BINARY) completion bash > bin/packages/drawbridge.bash
	$(BINARY) completion fish > bin/packages/drawbridge.fish
	$(BINARY) completion zsh > bin/packages/_drawbridge
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(GO) test -count=1 -run '^TestManualPages$$' ./cmd/drawbridge -manual $(CURDIR)/bin/packages/man
	gzip -9n bin/packages/man/*.1
	gzip -9n < CHANGELOG.md > bin/packages/changelog.gz

.PHONY: test
test: ## Run every test: unit tests, e2e and the tests of the release, all at once
	$(MAKE) -j4 --output-sync=line unit e2e install-test

# Many tests wait for a timeout of the gateway, so more of them run at once than
# there are cores. Their garbage is small: collecting it less often takes a third off the
# CPU time of the longest package.
TESTS = test -parallel 6 -exec 'env GOGC=400'

.PHONY: unit
unit: unit-gateway unit-bench ## Run the unit tests

# The package that takes longest begins first.
.PHONY: unit-gateway
unit-gateway:
	$(GO) $(TESTS) -p 3 -timeout 20m ./bridge/l7 $(PACKAGES)

.PHONY: unit-bench
unit-bench:
	$(GO) -C bench $(TESTS) ./...

.PHONY: race
race: ## Run the unit tests under the race detector
	$(GO) $(TESTS) -race -timeout 30m $(PACKAGES)
	$(GO) -C bench $(TESTS) -race ./...

.PHONY: e2e
e2e: build $(GRPCURL) $(GRPC_INTEROP) $(GHZ) $(H2SPEC) $(WS) $(CONNECT) ## Run the built binary against real servers
	PATH="$(TOOLS):$$PATH" NODE_PATH=$(TOOLS)/ws/node_modules CONNECT_MODULES=$(TOOLS)/connect/node_modules DRAWBRIDGE_BINARY=$(BINARY) GRPCURL=$(TOOLS)/grpcurl \
		$(GO) test -parallel 4 -count=1 -timeout 30m ./e2e

.PHONY: install-test
install-test: release root ## Install, upgrade, remove and purge the packages in a fresh root, and run the image (needs root, mmdebstrap and rpm)
	NFPM=$(TOOLS)/nfpm IMAGE=$(CURDIR)/bin/image RELEASE=$(RELEASE) PACKAGE_ROOT=$(ROOT) VERSION='$(VERSION)' COMMIT=$(COMMIT) \
		SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) PACKAGE_VERSION='$(PACKAGE_VERSION)' $(GO) test -count=1 -timeout 10m ./e2e/install

.PHONY: drills
drills: build ## Run the failure drills and print their figures
	DRAWBRIDGE_BINARY=$(BINARY) $(GO) test -count=1 -v -run 'Drill|StormOfRetries|QueueThatIsFull|AnswerOfDNSChanges' ./e2e

# The files that vale checks against the house style: pages, Go files and protos.
PROSE = README.md CHANGELOG.md CONTRIBUTING.md $(wildcard docs/*.md docs/adr/*.md) bench/README.md $(wildcard proto/drawbridge/admin/v1/*.proto) \
	$(shell git ls-files '*.go' | grep -v '\.pb\.go$$')

.PHONY: lint
lint: breaking $(BUF) $(API_LINTER) $(STATICCHECK) $(VALE) ## Check formatting, vet, staticcheck, the API and prose
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt: not formatted:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOLS)/staticcheck ./...
	$(GO) -C bench vet ./...
	cd bench && $(TOOLS)/staticcheck ./...
	$(TOOLS)/buf lint
	$(TOOLS)/buf format --diff --exit-code
	cd proto && $(TOOLS)/api-linter --config lint/api-linter.yaml --set-exit-status --output-format summary drawbridge/admin/v1/*.proto
	$(TOOLS)/vale --output=line $(PROSE)

# The frozen API is in the repository, so that a clone without history can be checked.
# With history, later additions are checked too: against the last commit and main.
.PHONY: breaking
breaking: $(BUF) ## Fail if a change breaks clients of the admin API
	$(TOOLS)/buf breaking --against proto/v1.binpb
	@for ref in HEAD HEAD^ main origin/main; do \
		git cat-file -e "$$ref:proto/v1.binpb" 2>/dev/null || continue; \
		base=$$(git merge-base HEAD "$$ref" 2>/dev/null) || continue; \
		git cat-file -e "$$base:proto/v1.binpb" 2>/dev/null || continue; \
		rm -rf $(TOOLS)/breaking && mkdir -p $(TOOLS)/breaking && \
		git archive "$$base" buf.yaml proto | tar -x -C $(TOOLS)/breaking && \
		$(TOOLS)/buf breaking --against $(TOOLS)/breaking || exit 1; \
	done; rm -rf $(TOOLS)/breaking

.PHONY: freeze
freeze: breaking ## Freeze additions to the admin API, so that they can no longer change
	$(TOOLS)/buf build --exclude-source-info -o proto/v1.binpb

.PHONY: kubeconform
kubeconform: $(KUBECONFORM) ## Validate deploy/kubernetes against the definitions of Kubernetes (needs jq)
	.ci/kubeconform $(TOOLS) $(KUBERNETES_VERSION) $(PROMETHEUS_OPERATOR_VERSION)

.PHONY: vulncheck
vulncheck: $(GOVULNCHECK) $(INDEXDB) ## Fail on a reachable vulnerability that a newer dependency fixes (needs jq)
	.ci/vulncheck $(TOOLS) $(VULNDB_VERSION)

.PHONY: generate
generate: $(BUF) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) $(PROTOC_GEN_DOC) ## Generate Go code and docs/reference from their sources
	PATH="$(TOOLS):$$PATH" $(TOOLS)/buf generate
	$(GO) test -count=1 -run '^TestCommandReferenceIsCurrent$$' ./cmd/drawbridge -update-reference
	$(GO) test -count=1 -run '^TestMetricsReferenceIsCurrent$$' ./gateway/telemetry -update-reference

.PHONY: checkgenerate
checkgenerate: generate ## Fail if generated files differ from the committed ones
	@changed=$$(git status --porcelain -- proto docs/reference); if [ -n "$$changed" ]; then \
		echo "generated files differ from the committed ones:"; echo "$$changed"; git --no-pager diff -- proto docs/reference; exit 1; fi

# Only this target needs graphviz and asciinema, which are in Debian, and svg-term-cli,
# which is in npm.
.PHONY: pictures
pictures: build ## Draw docs/images: the overview, and a recording of the demo
	dot -Tsvg docs/images/overview.dot | sed '/^<!-- Generated/,/-->$$/d' > docs/images/overview.svg
	docs/images/badges.sh > docs/images/badges.svg
	TERM=xterm-256color asciinema rec -q --overwrite --cols 118 --rows 34 -c docs/images/demo.sh bin/demo.cast
	npx --yes svg-term-cli@2.1.1 --in bin/demo.cast --out docs/images/demo.svg --window --width 118 --height 34 --no-cursor

.PHONY: bench
bench: ## Run the benchmarks that match BENCH (default: all)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PACKAGES)

# Variables of bench-peers: make bench-peers ROWS='bulk*,reqresp' PEERS=nginx PAIRS=3 SECONDS=2 JSON=out.json
# bench/README.md describes them. DRAWBRIDGE names other binaries.
BENCH_OPTIONS = -drawbridge '$(or $(DRAWBRIDGE),$(BINARY))' \
	$(if $(ROWS),-rows '$(ROWS)') $(if $(PEERS),-peers '$(PEERS)') $(if $(PAIRS),-pairs '$(PAIRS)') \
	$(if $(SECONDS),-seconds '$(SECONDS)') $(if $(SILENCE),-silence '$(SILENCE)') $(if $(JSON),-json '$(abspath $(JSON))')

.PHONY: bench-peers
bench-peers: build peers ## Compare the gateway with nginx, HAProxy and others under the same load
	$(GO) -C bench build -o $(CURDIR)/bin/bench .
	$(CURDIR)/bin/bench $(if $(QUICK),-quick) $(BENCH_OPTIONS)

.PHONY: bench-peers-quick
bench-peers-quick: ## Run the same comparison in less than two minutes
	$(MAKE) bench-peers QUICK=1

.PHONY: bench-tails
bench-tails: build peers ## Measure latencies at 50 % and 80 % of saturation, and of small requests beside large ones
	$(GO) -C bench build -o $(CURDIR)/bin/bench .
	bin/bench tails -drawbridge $(BINARY) $(if $(PAIRS),-pairs '$(PAIRS)') $(if $(SECONDS),-seconds '$(SECONDS)')

# The commit that the gate compares with: the last release or, before the first release, the last commit.
BASE ?= $(or $(shell git describe --tags --abbrev=0 2>/dev/null),HEAD)
.PHONY: bench-gate
bench-gate: build ## Fail if a row costs 5 % more than at BASE (default: the last release or commit); needs a quiet machine
	rm -rf bin/base && mkdir -p bin/base && git archive '$(BASE)' | tar -x -C bin/base
	$(MAKE) -C bin/base build
	$(GO) -C bench build -o $(CURDIR)/bin/bench .
	bin/bench gate -base bin/base/bin/drawbridge -drawbridge $(BINARY) $(if $(ROWS),-rows '$(ROWS)') $(if $(PAIRS),-pairs '$(PAIRS)') $(if $(SECONDS),-seconds '$(SECONDS)')

# The profile covers every kind of work, so that inlining for one kind does not slow another.
PGO_ROWS := bulk-down,bulk-up,bridge-down,reqresp,churn-resumed,churn-full,churn-warm,http-small,http-small-tls,http-bulk,http2-in,http2-out,http2-both,grpc-unary,grpc-stream,websocket

FLAME_ROWS := bulk*,bridge*,reqresp,churn*,http-small*,http-bulk*,http2-in*,http2-out,http2-both,grpc*,websocket,postgres

.PHONY: bench-flames
bench-flames: build ## Draw where the CPU time of each row goes, into bench/flames
	$(GO) -C bench build -o $(CURDIR)/bin/bench .
	rm -rf bin/profiles
	bin/bench -drawbridge $(BINARY) -peers '' -rows '$(or $(ROWS),$(FLAME_ROWS))' -pairs 1 -seconds $(or $(SECONDS),6) -profiles bin/profiles
	bin/bench flames -dir bench/flames bin/profiles/*.pprof

.PHONY: pgo
pgo: build ## Record the profile for optimizing the binary, from the rows of bench
	$(GO) -C bench build -o $(CURDIR)/bin/bench .
	rm -rf bin/profiles
	bin/bench -drawbridge $(BINARY) -peers '' -rows $(PGO_ROWS) -pairs 2 -seconds $(or $(SECONDS),5) -profiles bin/profiles
	bin/bench pgo -out $(PROFILE) bin/profiles/*.pprof

# The comparison leaves out peers that are not installed, and names them.
PEER_PACKAGES := nginx libnginx-mod-stream haproxy stunnel4 wrk nghttp2-client postgresql
.PHONY: peers
peers:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(PEER_PACKAGES) >/dev/null 2>&1; then \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PEER_PACKAGES); } \
			|| echo "not every peer could be installed"; fi

.PHONY: stress
stress: ## Hold many connections for a while (STRESS=count,time; default: 4000,3m), and run the longest tests at full length
	DRAWBRIDGE_STRESS=$(STRESS) $(GO) test -race -count=1 -timeout 30m -v -run '^TestManyConnectionsAtOnce$$' ./bridge/l4
	DRAWBRIDGE_SEEDS=0,500 $(GO) test -race -count=1 -timeout 60m -run '^TestSpliceIsLikeADirectConnection$$' ./bridge/splice
	FAULTS=all $(GO) test -race -count=1 -timeout 60m -run '^TestFaults' ./bridge/l7 ./bridge/l7/http2 ./bridge/l4 ./bridge/intake ./bridge/upstream
	DRAWBRIDGE_BAD_WRITES=10000 $(GO) test -race -count=1 -timeout 30m -run '^TestBadWritesChangeNothing$$' ./gateway
	DRAWBRIDGE_IMPACT_EDITS=1000 $(GO) test -race -count=1 -timeout 30m -run '^TestTheImpactMatchesTheConnectionsThatEnd$$' ./gateway

.PHONY: kills
kills: build ## Kill gateways with sealed and unsealed stores KILLS times each (default: 1000), during writes, confirmations and rollbacks
	DRAWBRIDGE_KILLS=$(KILLS) DRAWBRIDGE_BINARY=$(BINARY) $(GO) test -count=1 -timeout 60m -v -run '^TestKillsAmongWritesConfirmationsAndRollbacks$$' ./e2e

.PHONY: restart-stress
restart-stress: build ## Restart the gateway RESTARTS times (default: 200) as systemd does, under load, and print the effects on clients
	DRAWBRIDGE_RESTARTS=$(or $(RESTARTS),200) DRAWBRIDGE_BINARY=$(BINARY) $(GO) test -count=1 -v -timeout 60m -run '^TestARestartBySystemdRefusesNoClient$$' ./e2e

.PHONY: upgrade-streams
upgrade-streams: build ## Upgrade UPGRADES times (default: 1000) under STREAMS streams (default: 500) that live longer than the drain
	DRAWBRIDGE_UPGRADES=$(or $(UPGRADES),1000) DRAWBRIDGE_STREAMS=$(or $(STREAMS),500) DRAWBRIDGE_BINARY=$(BINARY) \
		$(GO) test -count=1 -v -timeout 120m -run '^TestStreamsThatOutliveTheDrainEndWithIt$$' ./e2e

.PHONY: upgrade-stress
upgrade-stress: build ## Upgrade the running gateway 1,000 times under load, and print the effects on clients
	DRAWBRIDGE_UPGRADES=1000 DRAWBRIDGE_BINARY=$(BINARY) $(GO) test -count=1 -v -timeout 60m -run '^TestUpgradesAreNotNoticed$$' ./e2e

# 90000 transactions are an hour's worth at 25 a second. The run takes a minute or two.
.PHONY: pgbench
pgbench: ## Run PGBENCH transactions (default: 90000) through the gateway to PostgreSQL, and check that none is lost
	DRAWBRIDGE_PGBENCH=$(or $(PGBENCH),90000) $(GO) test -count=1 -timeout 30m -v -run '^TestPostgresBehindMutualTLS$$' ./e2e

# Each row is a kind of input: floods, and legitimate traffic in its most expensive form.
.PHONY: costs
costs: ## Print the memory and CPU cost of each kind of input; needs a quiet machine
	@DRAWBRIDGE_COSTS=all $(GO) test -count=1 -v -run 'Cost|ResourcesAreBounded|ForEachByte|KeepsLittle|KeepsOneMessage|AnswerAreBounded' ./bridge/... | \
		awk '/^=== RUN/ {name = $$3} /cost:/ {sub(/^.*cost: /, ""); print name ": " $$0} /^(FAIL|--- FAIL)/ {print; failed = 1} END {exit failed}'

.PHONY: scale
scale: build ## Apply, read and watch 10,000 resources of each kind
	DRAWBRIDGE_SCALE=10000 DRAWBRIDGE_BINARY=$(BINARY) $(GO) test -count=1 -timeout 30m -v -run '^TestMany' ./e2e

.PHONY: fleet-scale
fleet-scale: ## Run GATEWAYS gateways (default: 200) of a fleet in one process, and print what WRITES writes (default: 100) cost (needs etcd-server)
	DRAWBRIDGE_FLEET=$(or $(GATEWAYS),200),$(or $(WRITES),100) $(GO) test -count=1 -timeout 30m -v -run '^TestAFleetConverges$$' ./gateway

.PHONY: fleet-proofs
fleet-proofs: build ## Kill, cut off and starve gateways and members of etcd at every moment, ROUNDS times (default: 1), and print what was found (needs etcd-server and root)
	DRAWBRIDGE_FLEET_PROOFS=$(or $(ROUNDS),1) DRAWBRIDGE_CUT=3m DRAWBRIDGE_BINARY=$(BINARY) $(GO) test -count=1 -timeout 0 -v -run '^(TestFleetProofs|TestAGatewayThatIsCutOff.*|TestAFleetWorksWhileTheDisk.*)$$' ./e2e
	DRAWBRIDGE_RACES=10000 $(GO) test -count=1 -timeout 0 -v -run '^(TestRacingWritersAreLinearizable|TestClocksOfAFleetMayDiffer)$$' ./gateway/store/etcd ./gateway

.PHONY: soak
soak: build ## Run the gateway for MINUTES (default: 30) under mixed load, changes, rotations, upgrades and failures, and check that it ends as it began
	$(GO) -C bench build -o $(CURDIR)/bin/bench .
	bin/bench soak -drawbridge $(BINARY) -minutes $(or $(MINUTES),30) -plot bin/soak.svg

.PHONY: bench-scale
bench-scale: build ## Measure a gateway with 10,000 resources of each kind: start, idle, handshakes, writes, a scrape, watched files
	$(GO) -C bench run . scale -drawbridge $(BINARY) -writes 200

.PHONY: bench-growth
bench-growth: build ## Measure how costs grow with connections, routes, certificates, revisions and all resources, and draw them into bench/plots
	$(GO) -C bench build -o $(CURDIR)/bin/bench .
	bin/bench growth -drawbridge $(BINARY) -plots bench/plots $(if $(PARTS),-parts '$(PARTS)')

.PHONY: bench-commits
bench-commits: ## Measure the time that history and sealing add to a commit
	$(GO) -C bench run . commits

.PHONY: chaos
chaos: ## Run random HTTP clients and upstreams against each other while connections break
	CHAOS=$(CHAOS) $(GO) test -race -count=1 -v -timeout 0 -run '^TestChaos$$' ./bridge/l7

.PHONY: aborts
aborts: ## Abort ABORTS HTTP exchanges (default: 100000), and check that nothing leaks
	$(GO) test -race -count=1 -timeout 3h -v -run '^TestAbortedExchangesLeaveNothing$$' ./bridge/l7 -aborts $(ABORTS)

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME (default: 20s)
	@for pkg in $(PACKAGES); do \
		targets=$$($(GO) test -list '^Fuzz' $$pkg) || { echo "$$targets"; exit 1; }; \
		for target in $$(echo "$$targets" | grep '^Fuzz'); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

# The root of a small Debian, from the sources that this machine's apt uses.
ROOT = $(TOOLS)/root.tar
.PHONY: root
root:
	@if [ -e $(ROOT) ]; then :; elif [ "$$(id -u)" = 0 ] && command -v mmdebstrap >/dev/null; then e2e/install/testdata/root $(ROOT); \
	else echo "without mmdebstrap, or not as root, the tests of packages are left out"; fi

.PHONY: clean
clean: ## Remove build outputs and installed tools
	rm -rf bin .bin

# $(call install,name,package@version) installs one pinned tool into .bin.
define install
	rm -f $(TOOLS)/.$(1)-v*
	GOBIN=$(TOOLS) CGO_ENABLED=0 GOFLAGS= $(GO) install $(2)
	touch $@
endef

$(BUF):
	$(call install,buf,github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION))
$(PROTOC_GEN_GO):
	$(call install,protoc-gen-go,google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION))
$(PROTOC_GEN_GO_GRPC):
	$(call install,protoc-gen-go-grpc,google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC_VERSION))
$(STATICCHECK):
	$(call install,staticcheck,honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION))
$(PROTOC_GEN_DOC):
	$(call install,protoc-gen-doc,github.com/pseudomuto/protoc-gen-doc/cmd/protoc-gen-doc@$(PROTOC_GEN_DOC_VERSION))
# One of our own modules pins this tool, because not every proxy lists the versions of
# the tool's module.
$(API_LINTER): proto/lint/go.mod proto/lint/go.sum
	rm -f $(TOOLS)/.api-linter-v*
	CGO_ENABLED=0 GOFLAGS= $(GO) -C proto/lint build -o $(TOOLS)/api-linter github.com/googleapis/api-linter/v2/cmd/api-linter
	touch $@
$(GRPCURL):
	$(call install,grpcurl,github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION))
$(GHZ):
	$(call install,ghz,github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION))
$(GOVULNCHECK):
	$(call install,govulncheck,golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION))
$(NFPM):
	$(call install,nfpm,github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION))
$(KUBECONFORM):
	$(call install,kubeconform,github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM_VERSION))
# The lists of components contain its checksum, so it must not contain a path.
$(CYCLONEDX):
	rm -f $(TOOLS)/.cyclonedx-gomod-v*
	GOBIN=$(TOOLS) CGO_ENABLED=0 GOFLAGS=-trimpath $(GO) install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)
	touch $@
$(INDEXDB):
	$(call install,indexdb,golang.org/x/vulndb/cmd/indexdb@$(VULNDB_VERSION))
# vale parses comments with tree-sitter, which is written in C.
$(VALE):
	rm -f $(TOOLS)/.vale-v*
	GOBIN=$(TOOLS) CGO_ENABLED=1 GOFLAGS= $(GO) install github.com/errata-ai/vale/v3/cmd/vale@$(VALE_VERSION)
	touch $@
$(GRPC_INTEROP):
	$(call install,grpc-interop,google.golang.org/grpc/interop/client@$(GRPC_INTEROP_VERSION))
	mv $(TOOLS)/client $(TOOLS)/grpc-interop-client
	$(call install,grpc-interop,google.golang.org/grpc/interop/server@$(GRPC_INTEROP_VERSION))
	mv $(TOOLS)/server $(TOOLS)/grpc-interop-server
# Its latest version has no go.mod, so one of our own modules pins its dependencies.
$(H2SPEC): e2e/testdata/h2spec/go.mod e2e/testdata/h2spec/go.sum
	CGO_ENABLED=0 GOFLAGS= $(GO) -C e2e/testdata/h2spec build -o $@ github.com/summerwind/h2spec/cmd/h2spec
$(WS): e2e/testdata/ws/package.json e2e/testdata/ws/package-lock.json
	@if command -v npm >/dev/null; then \
		mkdir -p $(@D) && cp $^ $(@D) && (cd $(@D) && npm ci --no-audit --no-fund) && touch $@; \
	else echo "without npm the tests of the library ws are left out"; fi
$(CONNECT): e2e/testdata/connect/package.json e2e/testdata/connect/package-lock.json
	@if command -v npm >/dev/null; then \
		mkdir -p $(@D) && cp $^ $(@D) && (cd $(@D) && npm ci --no-audit --no-fund) && touch $@; \
	else echo "without npm the tests of the TypeScript client are left out"; fi

# edekd: everything starts here. `make` lists the targets.

GO       ?= go
BINARIES := $(notdir $(wildcard cmd/*))
FUZZTIME ?= 3s
FOR      ?= 15m

.PHONY: help setup build run test check unit race fuzz interop bench bench-peers bench-sidecar soak profile clean

help:
	@echo 'make run      build, then serve on 127.0.0.1:9600 with the embedded store'
	@echo 'make test     set up, then all tests: check, fuzz, interop with real Java clients'
	@echo 'make setup    install what this machine lacks (Debian packages, Go modules, Java class paths)'
	@echo 'make build    every binary into bin/'
	@echo 'make check    format, vet, tests with and without the race detector: the quick loop'
	@echo 'make fuzz     every fuzz target for FUZZTIME ($(FUZZTIME)) each'
	@echo 'make interop  Hadoop 3.3.6 and 3.4.3: clients, MiniDFSCluster, a Java KMS beside ours'
	@echo 'make bench    CPU, latency and allocations beside a bare handler (docs/performance.md)'
	@echo 'make bench-peers  the same client against a Java KMS, and Hadoop'"'"'s own benchmark'
	@echo 'make bench-sidecar  edekd before another KMS a network away, and before a Java KMS (docs/performance.md)'
	@echo 'make soak     load for FOR ($(FOR)), watching memory, errors and goroutines; then EDEKs are taken by the million; then an outage'
	@echo 'make profile  what the compiler is told of hot paths (cmd/edekd/default.pgo), taken anew from benchmarks'
	@echo 'make clean    remove what was built; keys under .run stay'

setup:
	@scripts/setup

build:
	@mkdir -p bin
	$(GO) build -trimpath -o bin/ $(addprefix ./cmd/,$(BINARIES))

run: build
	@deploy/quickstart/run

test: setup check fuzz interop

check: unit race

unit:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'not gofmt-ed:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) test -pgo=off $$($(GO) list ./... | grep -v /interop$$)

race:
	$(GO) test -race -pgo=off $$($(GO) list ./... | grep -v /interop$$)

fuzz:
	@scripts/fuzz $(FUZZTIME)

interop:
	$(GO) test -count=1 -timeout 30m ./interop

bench:
	$(GO) run ./bench run

bench-peers:
	$(GO) test -run '^$$' -bench Java -benchtime 1x -timeout 3h -v ./bench/peers

bench-sidecar:
	$(GO) run ./bench sidecar --parts step,rings,zipf,nodes,decrypt
	$(GO) test -run '^$$' -bench Sidecar -benchtime 1x -timeout 1h -v ./bench/peers

soak:
	$(GO) run ./bench soak --for $(FOR)
	$(GO) run ./bench unique
	$(GO) run ./bench memory
	$(GO) run ./bench sidecar --parts outage

profile:
	$(GO) test -trimpath -run '^$$' -bench 'InMemory/.*/edekd|Many' -benchtime 5s -cpu 1 -cpuprofile $(CURDIR)/cmd/edekd/default.pgo -o /dev/null ./proxy

clean:
	rm -rf bin .cache

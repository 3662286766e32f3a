# keyturn: what one types here. `make` alone prints this list.
SHELL    := bash
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/keyturn/keyturn/internal/buildinfo.Version=$(VERSION)
SOAK     ?= 10m
FUZZTIME ?= 30s

# How many packages are tested at a time: more than there are cores, as tests of a durable system wait for disks and leases half of
# their time. Measured on 2 cores: with 2 at a time, 1.1 of the cores were busy.
PACKAGES ?= 3

# The rooms whose tests run under the race detector in `make test`, and only there.
CONCURRENT := . ./internal/gate/... ./internal/clock ./internal/keyring ./internal/keyring/escrow ./internal/rotation ./internal/reencrypt ./internal/authn/...

# The longest begin first, so that none of them is what the others are through with and wait for.
LONGEST := ./internal/soak ./cmd/keyturn

.PHONY: help build build-hsm test race lint bench soak fuzz demo deps vault cover advisories clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the one binary, static, in bin/keyturn
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/keyturn ./cmd/keyturn

build-hsm: ## the binary for master keys in an HSM (PKCS#11; needs a C compiler), in bin/keyturn-hsm
	CGO_ENABLED=1 $(GO) build -tags pkcs11 -trimpath -ldflags '$(LDFLAGS)' -o bin/keyturn-hsm ./cmd/keyturn

deps: ## what the tests need from Debian (PostgreSQL, FUSE, SoftHSM); does nothing where it is there already
	@bash scripts/test-deps.sh

vault: ## the Vault server of the tests, into the user's cache; its first build takes about 8 minutes on 2 cores
	@$(GO) run ./internal/tools/vault

test: deps vault ## everything: lint's floor test, unit, conformance, scripts, faults at tier C (-race in the concurrent rooms)
	$(GO) build ./...
	$(GO) test -p $(PACKAGES) -timeout 30m $$($(GO) list $(LONGEST) ./... | grep -vxF "$$($(GO) list $(CONCURRENT))")
	CGO_ENABLED=1 $(GO) test -p $(PACKAGES) -race -timeout 30m $(CONCURRENT)
	CGO_ENABLED=1 $(GO) test -tags pkcs11 -p $(PACKAGES) -race -timeout 30m ./internal/keyring/pkcs11
	CGO_ENABLED=1 $(GO) test -tags pkcs11 -p $(PACKAGES) -timeout 30m -run HSM ./internal/server ./cmd/keyturn

race: deps vault ## the whole suite under the race detector (long)
	$(GO) test -p $(PACKAGES) -race -timeout 60m ./...

lint: ## gofmt, vet, staticcheck, the floor test, module checksums
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-ed:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...
	CGO_ENABLED=1 $(GO) vet -tags pkcs11 ./internal/keyring/pkcs11 ./internal/server ./cmd/keyturn
	CGO_ENABLED=1 $(GO) tool -modfile=tools/go.mod staticcheck -tags pkcs11 ./internal/keyring/pkcs11 ./internal/server ./cmd/keyturn
	$(GO) test ./internal/
	$(GO) mod verify

bench: build ## goals S1-S12 of docs/performance.md, each beside its reference in the same run; writes bench.json
	$(GO) run ./internal/bench -json bench.json

soak: deps ## the fault campaigns at tier N, for SOAK=10m (each prints its seed, what it tried and what it found)
	set -o pipefail; KEYTURN_SOAK=$(SOAK) $(GO) test -count=1 -p 1 -timeout 0 -v -run 'Campaign|PowerCuts|FullDisk|Torture|Killed|EveryFailpoint|EveryStoreFailure' \
		./internal/soak ./internal/faulttest/... ./internal/envelope ./internal/material ./internal/kms ./internal/runner ./internal/reencrypt/... 2>&1 \
		| grep -E '^(campaign|--- |ok|FAIL|panic)|_test.go:' | tee soak.log

fuzz: ## every fuzzer for FUZZTIME=30s
	@bash scripts/fuzz.sh $(FUZZTIME)

demo: ## the main job end to end on this machine, in about a minute
	$(GO) run ./cmd/keyturn demo

cover: deps vault ## statement coverage per room
	$(GO) test -p $(PACKAGES) -cover ./... | grep -v 'no test files'

advisories: ## which published vulnerabilities of others have a test here
	$(GO) run ./internal/tools/advisories

clean: ## removes bin/ and the bench's and soak's files
	rm -rf bin bench.json soak.log

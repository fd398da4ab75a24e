# The two targets a newcomer needs: `make run` starts the platform, `make test` runs all tests.

MODULES  := api kit mepauth mepserver dnsagent gateway mep examples tests tools
TAGS     := nomsgpack
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X github.com/openmep/mep/kit/daemon.Version=$(VERSION)
PROGRAMS := ./mep/cmd/mep ./mepserver/cmd/mepserver ./mepauth/cmd/mepauth ./dnsagent/cmd/dnsagent ./gateway/cmd/gateway
# "verify" vets the tests, too, and nobody debugs these programs: without, they are built in less time.
TESTFLAGS := -tags $(TAGS) -race -vet=off -ldflags=-w
FUZZTIME ?= 5s
GO       ?= go
LINT     := GOWORK=off $(GO) tool -modfile=$(CURDIR)/tools/lint/go.mod golangci-lint

export CGO_ENABLED = 0
# Without the checkout's path in what is compiled, another checkout finds it in Go's cache.
export GOFLAGS := $(GOFLAGS) -trimpath

.PHONY: all run demo build cross test verify fix lint bench fuzz clean help

all: build

help: ## show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

run: build ## build and start the platform in development mode
	bin/mep run --dev

demo: build ## show the whole story with real processes
	$(GO) build -tags $(TAGS) -o bin/mep-demo ./tests/cmd/demo
	bin/mep-demo -mep bin/mep

build: ## build the static binaries into bin/
	$(GO) build -tags $(TAGS) -ldflags "$(LDFLAGS)" -o bin/ $(PROGRAMS)

cross: ## check that amd64 and arm64 build, of which "build" does this machine's
	for arch in $(filter-out $(shell $(GO) env GOARCH),amd64 arm64); do GOOS=linux GOARCH=$$arch $(GO) build -tags $(TAGS) -ldflags "$(LDFLAGS)" -o bin/linux-$$arch/ $(PROGRAMS) || exit 1; done

test: build ## run all tests of all modules with the race detector
	CGO_ENABLED=1 $(GO) test $(TESTFLAGS) -timeout 15m $(addsuffix /...,$(addprefix ./,$(filter-out tests,$(MODULES))))
	@# The result of a test of the built programs must not be remembered: Go does not see that they have changed.
	CGO_ENABLED=1 MEP_BIN=$(CURDIR)/bin $(GO) test $(TESTFLAGS) -timeout 15m -count=1 ./tests/...

verify: build cross lint ## check modules, format, lint, generated files and the README's commands
	@for m in $(MODULES); do (cd $$m && GOWORK=off $(GO) mod tidy -diff) || { echo "$$m: run make fix"; exit 1; }; done
	@test -z "$$(gofmt -l $(MODULES))" || { gofmt -l $(MODULES); echo "run make fix"; exit 1; }
	$(GO) vet -tags $(TAGS) $(addsuffix /...,$(addprefix ./,$(MODULES)))
	$(GO) run -tags $(TAGS) ./tools/docgen -check docs/reference
	$(GO) run -tags $(TAGS) ./tools/readme -bin bin README.md

lint:
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && $(LINT) run --build-tags $(TAGS) ./...) || exit 1; done

fix: ## mend what verify complains of, as far as a program can
	@for m in $(MODULES); do (cd $$m && GOWORK=off $(GO) mod tidy) || exit 1; done
	gofmt -w $(MODULES)
	@for m in $(MODULES); do (cd $$m && $(LINT) run --fix --build-tags $(TAGS) ./...) || true; done
	$(GO) run -tags $(TAGS) ./tools/docgen docs/reference

bench: build ## measure the platform and its yardsticks in one run
	$(GO) build -tags $(TAGS) -o bin/mep-bench ./tests/cmd/bench
	@cd tests/coredns && GOWORK=off $(GO) build -o $(CURDIR)/bin/bench-coredns . || echo "CoreDNS cannot be built: nothing is compared with it"
	bin/mep-bench -mep bin/mep

fuzz: ## a short run of every fuzz test
	@for pkg in $$($(GO) list -tags $(TAGS) -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' $(addsuffix /...,$(addprefix ./,$(MODULES)))); do \
	  for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$pkg/*_test.go | sed 's/func //'); do \
	    echo "fuzz $$pkg $$f"; (cd $$pkg && $(GO) test -tags $(TAGS) -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) .) || exit 1; \
	  done; \
	done

clean: ## remove what was built
	rm -rf bin

# What CI runs, and what to run before a commit. Tools are pinned; go run fetches them.
GO           ?= go
GOFUMPT      := mvdan.cc/gofumpt@v0.12.0
GOLANGCI     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME     ?= 10s
HOSTILETIME  ?= 2m

.PHONY: check format vet fix lint test race fuzz demo bench deb walk othermodule interop hostile

check: format vet fix lint race fuzz

format:
	@out=$$($(GO) run $(GOFUMPT) -l .); test -z "$$out" || { echo "gofumpt would change:"; echo "$$out"; exit 1; }

vet:
	$(GO) vet ./...
	$(GO) vet -C tools ./...
	$(GO) vet -C test/interop ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=windows GOARCH=amd64 $(GO) vet ./...

fix:
	@out=$$($(GO) fix -diff ./... 2>&1); test -z "$$out" || { echo "go fix would change:"; echo "$$out"; exit 1; }

lint:
	$(GO) run $(GOLANGCI) run ./...
	cd tools && $(GO) run $(GOLANGCI) run ./...
	cd test/interop && $(GO) run $(GOLANGCI) run ./...

test:
	$(GO) test -C tools ./...
	$(GO) test ./...

race:
	$(GO) test -race ./...

# each fuzz target for FUZZTIME
fuzz:
	@GO="$(GO)" FUZZTIME="$(FUZZTIME)" .ci/fuzz

demo:
	$(GO) run ./cmd/peerchat demo

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# the Debian package, checked; needs dpkg
deb:
	@set -e; package=$$(packaging/deb.sh dist); packaging/check_deb.sh "$$package"

# what README.md says, in a clean copy of HEAD
walk:
	test/walk.sh

# the framework from another module, and under another path
othermodule:
	test/othermodule.sh

# programs and libraries of others over peerlink: at most 6 minutes, with their build
interop:
	$(GO) test -C test/interop -count=1 -timeout 4m ./...

# hostile peers against daemons and a node of their own: README.md in test/hostile
hostile:
	$(GO) run ./test/hostile -time $(HOSTILETIME)

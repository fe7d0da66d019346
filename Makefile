# SPDX-License-Identifier: Apache-2.0
#
# Thin on purpose: whatever has an "if" in it lives in scripts/.

PREFIX     ?= /usr/local
DESTDIR    ?=
BUILD      ?= build
VERSION    ?= $(shell git describe --tags --always 2>/dev/null || echo unknown)
GO         ?= go
CC         ?= gcc
MODULE     := github.com/brolga-hpc/brolga

# Where the parts find each other; compiled in, so that no setting can change it.
LIBRARY    := $(PREFIX)/lib/brolga/libbrolga.so
HELPER     := $(PREFIX)/libexec/brolga/brolga-helper
LAUNCHER   := $(PREFIX)/libexec/brolga/brolga-launch
RUNDIR     := /run/brolga

# -buildvcs=false: root may build somebody else's checkout.
# $(call GOBUILD,LINKER-FLAGS)
GOBUILD     = $(GO) build -trimpath -buildvcs=false -ldflags "-s -w $(1) \
	-X $(MODULE)/pkg/config.Prefix=$(PREFIX) -X $(MODULE)/pkg/config.RunDir=$(RUNDIR) -X $(MODULE)/pkg/config.Version=$(VERSION) $(GOLDFLAGS)"
comma      := ,
# More for the linker; a test cluster has drivers of its own.
GOLDFLAGS  ?=
CFLAGS     ?= -O2 -g
CWARNINGS  := -Wall -Wextra -Wshadow -Wmissing-prototypes -Werror
CPPFLAGS   += -D_GNU_SOURCE -DBROLGA_LIBRARY=\"$(LIBRARY)\" -DBROLGA_HELPER=\"$(HELPER)\" -DBROLGA_LAUNCHER=\"$(LAUNCHER)\" -DBROLGA_RUNDIR=\"$(RUNDIR)\"
# plugin.map decides what is visible: -fvisibility=hidden would also hide the
# names SPANK_PLUGIN makes. Slurm has the symbols that are missing: no -z,defs.
HARDENING  := -fPIC -shared -fstack-protector-strong -D_FORTIFY_SOURCE=2
LDFLAGS    += -Wl,--version-script=spank/plugin.map -Wl,-z,relro,-z,now

.PHONY: all
all: $(BUILD)/brolga $(BUILD)/brolga-helper $(BUILD)/brolga-parse $(BUILD)/brolga-launch $(BUILD)/brolga-ssh $(BUILD)/libbrolga.so $(BUILD)/spank_brolga.so ## build everything into build/

# The go command knows best what is out of date.
.PHONY: FORCE
$(BUILD)/brolga $(BUILD)/brolga-ssh: $(BUILD)/%: FORCE | $(BUILD)
	CGO_ENABLED=0 $(call GOBUILD) -o $@ ./cmd/$*
# Static: root loads no name service or other library. PIE and read-only tables cost 0.3 ms.
$(BUILD)/brolga-helper $(BUILD)/brolga-parse: $(BUILD)/%: FORCE | $(BUILD)
	CGO_ENABLED=1 $(call GOBUILD,-linkmode external -extldflags '-static-pie -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now') -buildmode=pie -tags osusergo,netgo -o $@ ./cmd/$*
$(BUILD)/libbrolga.so: FORCE | $(BUILD)
	CGO_ENABLED=1 $(call GOBUILD,-extldflags=-Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now) -buildmode=c-shared -o $@ ./cmd/libbrolga

# Static: it runs on the files of any image.
$(BUILD)/brolga-launch: $(wildcard cmd/brolga-launch/*.[ch] task/*.[ch]) $(BUILD)/flags
	$(CC) -D_GNU_SOURCE $(CFLAGS) $(CWARNINGS) -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE -static-pie -Wl,-z,relro,-z,now -s -o $@ $(filter %.c,$^)

$(BUILD)/spank_brolga.so: $(wildcard spank/*.[ch] spank/*.inc task/*.[ch]) spank/plugin.map $(BUILD)/flags
	$(CC) $(CPPFLAGS) $(CFLAGS) $(CWARNINGS) $(HARDENING) $(LDFLAGS) -o $@ $(filter %.c,$^)

# Changes when the flags do, so that another PREFIX rebuilds.
$(BUILD)/flags: FORCE | $(BUILD)
	@echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)' | cmp -s - $@ || echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)' >$@

$(BUILD):
	mkdir -p $@

.PHONY: install
install: all ## install below DESTDIR/PREFIX; /etc is the administrator's
	install -D -m 0755 $(BUILD)/brolga $(DESTDIR)$(PREFIX)/bin/brolga
	install -D -m 0755 $(BUILD)/brolga-helper $(DESTDIR)$(HELPER)
	install -D -m 0755 $(BUILD)/brolga-parse $(DESTDIR)$(dir $(HELPER))brolga-parse
	install -D -m 0755 $(BUILD)/brolga-launch $(DESTDIR)$(LAUNCHER)
	install -D -m 0755 $(BUILD)/brolga-ssh $(DESTDIR)$(dir $(HELPER))brolga-ssh
	install -d -m 0755 $(DESTDIR)$(dir $(HELPER))bundle
	install -D -m 0755 $(BUILD)/libbrolga.so $(DESTDIR)$(LIBRARY)
	install -D -m 0755 $(BUILD)/spank_brolga.so $(DESTDIR)$(PREFIX)/lib/slurm/spank_brolga.so
	scripts/install-examples $(DESTDIR)$(PREFIX)/share/doc/brolga

.PHONY: demo
demo: ## start a cluster on this machine and run a container in it
	scripts/demo

.PHONY: test unit c-test integration
test: unit c-test integration ## run all tests

unit: ## run the Go tests: no root, no network, no Slurm
	$(GO) test -race -buildvcs=false ./...

c-test: ## run the C tests under ASan and UBSan: no Slurm
	$(MAKE) -C spank/test

integration: ## run the tests in a private Slurm cluster (as root)
	scripts/test-integration

.PHONY: fuzz
fuzz: ## run the fuzz targets for a minute in all
	scripts/fuzz

.PHONY: soak
soak: ## run 10,000 steps with kills and faults (as root, an hour)
	scripts/soak

.PHONY: bench
bench: ## measure start times in a private Slurm cluster (as root)
	scripts/bench

.PHONY: lint
lint: ## run formatters and static checks
	scripts/lint

.PHONY: generate check-generate
generate: ## write the files made from the option table
	$(GO) generate ./...

check-generate: ## fail if "make generate" would change a file
	scripts/check-generate

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BUILD)
	[ ! -e spank/test/Makefile ] || $(MAKE) -C spank/test clean

.PHONY: help
help: ## show this text
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

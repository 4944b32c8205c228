# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The one front door: `make help`. The work is done by scripts/ in the toolbox (Documentation/environment.md); the
# kernel module's own build is Kbuild.

# The kernel that `kernel`, `update`, `modules`, `test-guest` are for: stock, debug, arm64, arm64-16k (scripts/kernel). Without: stock,
# and for `test-guest` all four. ARCH=arm64 is another way to say KERNEL=arm64; kernel developers have ARCH in their environment.
ARCH ?=
ifneq ($(filter-out arm64 x86_64 amd64 x86,$(ARCH)),)
$(error ARCH=$(ARCH): this is for x86_64 and arm64, so leave ARCH out or say KERNEL=)
endif
KERNEL ?= $(filter arm64,$(ARCH))
# The text that the demo's inmate says.
GREETING ?=
# How much to fuzz: operations, or seconds; and from which seed on (without: a new one, which is printed).
OPS ?=
TIME ?=
SEED ?=
# How many times to unbind and bind, and to remove and rescan.
CYCLES ?= 20
# How often two guests ring each other in `test-guest`, in each direction; empty: a number for each kernel.
DOORBELLS ?=
# How many messages two guests exchange in each direction; and how many are in a stream that is measured.
MESSAGES ?= 20000
# How often one of them is restarted.
RESTARTS ?= 8
# How often everything is measured; or 1: it is profiled instead.
ROUNDS ?= 5
PROFILE ?=
# A kernel tree to build the module against with this machine's own compilers; empty: the toolbox and its kernel.
KDIR ?=

TOOLBOX := scripts/toolbox
# Builds the module for a kernel of ours, whatever KDIR= says.
MODULE := KDIR= scripts/modules
BIN := build/cargo/x86_64-unknown-linux-gnu/release

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@echo "ivshmem: IVSHMEM v2 for Linux and QEMU. Targets:"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1|\2/p' Makefile | awk -F '|' '{ printf "%-16s %s\n", $$1, $$2 }'
	@echo "Settings: KERNEL=stock|debug|arm64|arm64-16k (kernel, modules, update, test-guest)  KDIR=TREE (modules)"
	@echo "          DOORBELLS=N (test-guest)"
	@echo "          MESSAGES=N RESTARTS=N SEED=N KERNEL=stock|debug (soak-channels)  MESSAGES=N ROUNDS=N PROFILE=1 (bench)"
	@echo "          GREETING=TEXT (demo)  OPS=N TIME=SECONDS SEED=N (fuzz, attack)  CYCLES=N (soak)"
	@echo "          V=1 (all output)  IVSHMEM_CACHE=FOLDER (default ~/.cache/ivshmem)"

# --- environment ----------------------------------------------------------------------------------------------------

.PHONY: toolbox kernel kernel-tree update shell
toolbox: ## make the build environment (done by the other targets when needed)
	@$(TOOLBOX)

kernel: ## get or build a kernel and its tree for Rust modules (KERNEL=)
	@scripts/kernel build $(or $(KERNEL),stock)

kernel-tree: ## on Debian 13: make a tree for Rust modules of the running kernel, print its KDIR
	@scripts/kernel tree

update: ## look for newer packages and a newer kernel in the archive (KERNEL=)
	@$(TOOLBOX) update
	@scripts/kernel update $(or $(KERNEL),stock)

shell: ## a shell in the toolbox
	@$(TOOLBOX) shell

# --- building -------------------------------------------------------------------------------------------------------

.PHONY: modules user inmate
modules: ## build ivshmem.ko (KERNEL=, KDIR=) to build/module/RELEASE/
	@KDIR='$(KDIR)' scripts/modules $(or $(KERNEL),stock)

user: ## build all user-space programs, for arm64 guests too
	@scripts/user

.PHONY: user-amd64
user-amd64:
	@scripts/user amd64

inmate: ## build the bare-metal inmate
	@$(TOOLBOX) run rust/inmate/build.sh

# For targets that have no other kernel.
.PHONY: stock-module
stock-module:
	@$(if $(filter-out stock amd64,$(KERNEL)),echo "ivshmem: make $(MAKECMDGOALS) always takes the stock kernel: leave KERNEL and ARCH out." >&2; exit 2)
	@$(MODULE) stock

# --- running --------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: stock-module user-amd64 inmate ## "Hi!" between two cells in QEMU (GREETING=)
	@scripts/with-kernels stock $(BIN)/ivshmem-harness demo $(if $(value GREETING),--greeting '$(subst ','\'',$(value GREETING))')

.PHONY: guest-shell
guest-shell: stock-module user-amd64 ## a shell in a guest that has the module loaded
	@scripts/with-kernels stock $(BIN)/ivshmem-harness shell

# --- testing --------------------------------------------------------------------------------------------------------

.PHONY: test test-setup test-host test-device test-guest
test: ## every test; ends with the count of passed, failed, skipped
	@scripts/test

test-setup: ## tests of scripts/toolbox and scripts/kernel with bad input
	@scripts/test setup

test-host: ## unit and property tests, formatting, lints, header, licences
	@scripts/test host

test-device: ## tests of the device model and the inmate
	@scripts/test build device inmate

test-guest: ## tests in guests: module, library, demo; on all four kernels, or KERNEL= (DOORBELLS=)
	@DOORBELLS='$(DOORBELLS)' scripts/test build guest$(addprefix -,$(KERNEL))

.PHONY: fuzz soak soak-channels bench
fuzz: user-amd64 ## random operations and a hostile device, debug kernel (OPS= or TIME=, SEED=)
	@$(MODULE) debug
	@scripts/with-kernels debug $(BIN)/ivshmem-harness fuzz $(addprefix --ops=,$(OPS)) $(addprefix --time=,$(TIME)) $(addprefix --seed=,$(SEED))

soak: user-amd64 ## unbind and bind, remove and rescan while in use, debug kernel (CYCLES=)
	@$(MODULE) debug
	@scripts/with-kernels debug $(BIN)/ivshmem-harness soak --cycles='$(CYCLES)'

soak-channels: user-amd64 ## messages between two guests, each checked, and restarts (MESSAGES=, RESTARTS=, KERNEL=stock|debug)
	@$(MODULE) $(or $(KERNEL),stock)
	@scripts/with-kernels $(or $(KERNEL),stock) $(BIN)/ivshmem-harness soak-channels --messages='$(MESSAGES)' --restarts='$(RESTARTS)' $(addprefix --seed=,$(SEED))

bench: stock-module user-amd64 ## channels against TCP, virtio-serial and others: writes Documentation/measurements.md (ROUNDS=, MESSAGES=, PROFILE=1)
	@scripts/kernel drivers stock
	@$(if $(PROFILE),$(TOOLBOX) run rust/profiler/build.sh)
	@scripts/with-kernels stock $(BIN)/ivshmem-harness bench --rounds='$(ROUNDS)' --messages='$(MESSAGES)' $(if $(PROFILE),--profile)

.PHONY: attack
# The short form is the suite channel-attack of the guest tests.
attack: user-amd64 ## a seeded peer attacks its channels while others talk, debug kernel or KERNEL= (TIME=, SEED=)
	@$(MODULE) $(or $(KERNEL),debug)
	@scripts/with-kernels $(or $(KERNEL),debug) $(BIN)/ivshmem-harness attack $(addprefix --time=,$(TIME)) $(addprefix --seed=,$(SEED))

.PHONY: mutants
# Modules with one mistake each (tests/mutants/); empty: all.
MUTANT ?=
mutants: stock-module user-amd64 inmate ## modules with one mistake each: the tests must catch them (MUTANT=)
	@kernels=$$(scripts/lib/mutants.sh kernels $(MUTANT)) || exit; status=0; for kernel in $$kernels; do \
		$(MODULE) $$kernel && scripts/with-kernels $$kernel scripts/lib/mutants.sh run $(MUTANT) || status=1; \
	done; exit $$status

.PHONY: bad-input-doc
bad-input-doc: user ## write Documentation/bad-input.md from the tests
	@$(TOOLBOX) run $(BIN)/ivshmem-harness bad-input

# --- cleaning -------------------------------------------------------------------------------------------------------

.PHONY: clean distclean
clean: ## remove build/ (all output of this checkout)
	rm -rf build

distclean: clean ## also remove the cache: toolbox, kernels, downloads
	@scripts/toolbox remove-cache

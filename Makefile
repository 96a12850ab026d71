# SPDX-License-Identifier: GPL-2.0
# Front door of the workshop. Each target is one script; "make help" lists them.

ARCH    ?= x86_64
SUITE   ?=
VARIANT ?=
SLOW    ?=
MUTANT  ?=
KSRC    ?=
CHECK   ?=
BASELINE ?=
RELEASE ?=
COMMITS ?=
CHECKS  ?=
KEEP    ?=
TARGETS ?= run test

COMMON := --arch='$(ARCH)' --ksrc='$(KSRC)'
BUILD  := scripts/build.py $(COMMON)
LINT   := scripts/check.py $(COMMON)
RUN    := tools/testing/dma-rs/run.py $(COMMON) --variant='$(VARIANT)'
BENCH  := tools/testing/dma-rs/bench.py --ksrc='$(KSRC)'
MISUSE := tools/testing/dma-rs/misuse.py $(COMMON)
MUTATE := tools/testing/dma-rs/mutants.py $(COMMON) --mutant='$(MUTANT)'

export PYTHONDONTWRITEBYTECODE := 1
# What others are told who wait for this one.
export DMA_RS_COMMAND := make $(MAKECMDGOALS)

.PHONY: help
help: ## show this list
	@echo 'Targets:'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo 'Variables:'
	@echo '  ARCH=           x86_64 (default) or arm64'
	@echo '  VARIANT=        globs of variants of the matrix; a wrong name lists them'
	@echo '  SUITE=          glob of the suites to run, for test: of KUnit, "controls", "guest" or "misuse";'
	@echo '                  for misuse: glob of the programs'
	@echo '  SLOW=1          the slow tests instead of the others, for test'
	@echo '  MUTANT=         glob of the faults to try, for mutants'
	@echo '  CHECK=1         for bench: fail if a count is worse than the committed baseline'
	@echo '  WRITE=1         for coverage: bring the page in Documentation up to date'
	@echo '  BASELINE=1      for bench: make this run the baseline, and what Documentation says'
	@echo '  COMMITS=        for seriescheck: numbers of commits (3, 3..7, 9..) or globs of their names'
	@echo '  CHECKS=         for seriescheck: some checks only; a wrong name lists them'
	@echo '  KEEP=1          for seriescheck: go on after a commit that fails'
	@echo '  RELEASE=        for fresh: trixie or bookworm'
	@echo '  TARGETS=        for fresh: what to make there; "run test" if not given'
	@echo '  KSRC=           your own Linux 7.3 tree; it is copied, never changed'

.PHONY: run
run: ## boot the demonstration: bytes to a device and back, by DMA
	@$(RUN) run

.PHONY: test
test: ## boot every variant of the matrix, run KUnit and the controls, judge the logs
	@$(RUN) --suite='$(SUITE)' $(if $(filter-out 0,$(SLOW)),--slow) test

.PHONY: selftest
selftest: ## test the judgement of the runner itself, without a guest
	@tools/testing/dma-rs/selftest.py

.PHONY: litmus
litmus: ## check the orders that rings and stops rely on against the kernel's memory model
	@tools/testing/dma-rs/litmus.py --ksrc='$(KSRC)'

.PHONY: misuse
misuse: ## see that each mistake in misuse/ doesn't compile, and that its repair does
	@$(MISUSE) --program='$(or $(SUITE),*)'

.PHONY: shell
shell: ## boot an interactive shell with the devices attached (Ctrl-A X leaves)
	@$(RUN) shell

.PHONY: kselftest
kselftest: ## run the kernel's own tests of network interfaces with its own driver and with ours, compare
	@tools/testing/dma-rs/kselftest.py --ksrc='$(KSRC)'

.PHONY: pairings
pairings: ## have the kernel's own network driver and ours carry 100 MiB in all four pairings
	@tools/testing/dma-rs/pairings.py --ksrc='$(KSRC)'

.PHONY: coverage
coverage: ## say of each C function of the DMA API what stands for it in Rust, see that it is so
	@tools/testing/dma-rs/coverage.py --ksrc='$(KSRC)' $(if $(filter-out 0,$(WRITE)),--write)

.PHONY: bench
bench: ## count what DMA costs in C and in Rust: table, out/bench.json, out/bench.html
	@$(BENCH) $(if $(filter-out 0,$(CHECK)),--check) $(if $(filter-out 0,$(BASELINE)),--baseline)

.PHONY: mutants
mutants: ## put one fault after the other into the code, see that the tests notice
	@$(MUTATE)

.PHONY: mutantscheck
mutantscheck: ## check that the list of faults fits the code
	@$(MUTATE) --check

.PHONY: setup
setup: ## fetch and install what building needs, into the cache
	@$(BUILD) --until=setup

.PHONY: update
update: ## look for a newer packaged 7.3 kernel source
	@$(BUILD) --until=setup --update

.PHONY: tree
tree: ## prepare the kernel tree: source, our files, hunks
	@$(BUILD) --until=tree

.PHONY: build
build: ## build the test kernel
	@$(BUILD) --until=build

.PHONY: compile
compile: ## compile our code for machines without DMA, PCI, SMP, with PREEMPT_RT, with 32 bits
	@scripts/compile.py --ksrc='$(KSRC)'

.PHONY: clippy
clippy: ## lint our Rust code, warnings are errors
	@$(LINT) clippy

.PHONY: rustfmtcheck
rustfmtcheck: ## check the format of our Rust code
	@$(LINT) rustfmt

.PHONY: rustdoc
rustdoc: ## build the kernel crate's documentation, check our part of it
	@$(LINT) rustdoc

.PHONY: checkpatch
checkpatch: ## run checkpatch --strict over our files and commits
	@$(LINT) checkpatch

.PHONY: floors
floors: ## show the floors of the kernel crate's part, see that none imports one above; list switches
	@scripts/floors.py

.PHONY: series
series: ## make git commits of it all, and mails of these, in out/series/
	@scripts/series.py --ksrc='$(KSRC)'

.PHONY: seriescheck
seriescheck: ## check each commit of the series by itself: style, build, documentation, tests
	@tools/testing/dma-rs/series_check.py --ksrc='$(KSRC)' --commits='$(COMMITS)' --checks='$(CHECKS)' \
		$(if $(filter-out 0,$(KEEP)),--keep-going)

.PHONY: kunitconfig
kunitconfig: tree ## show how to run our tests with the kernel's own kunit.py
	@echo 'In the tree named above (with a working KVM, or none at all):'
	@for config in $(notdir $(wildcard tools/testing/kunit/qemu_configs/dma_rs_*.py)); do \
		echo "  ./tools/testing/kunit/kunit.py run --make_options LLVM=1 --kunitconfig=drivers/dma-rs" \
		     "--qemu_config=tools/testing/kunit/qemu_configs/$$config"; done

.PHONY: fresh
fresh: ## try `make run` and `make test` on a fresh RELEASE of Debian, in a chroot; needs root
	@scripts/fresh.py --release='$(RELEASE)' --targets='$(TARGETS)'

.PHONY: qemuconfigs
qemuconfigs: ## write the machines in the form that kunit.py takes, after a change of variants.py
	@tools/testing/dma-rs/qemu_configs.py

.PHONY: misuserst
misuserst: ## write Documentation/rust/dma/misuse.rst, after a change in misuse/
	@tools/testing/dma-rs/misuse_rst.py

.PHONY: clean
clean: ## remove this checkout's out/
	@rm -rf out

.PHONY: distclean
distclean: clean ## remove the cache too: sources, tools, kernels of all checkouts
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/dma-rs"

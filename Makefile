# Everything is built once, in the release profile; demo, test and install use the same build.
# CARGO_TARGET_DIR, PREFIX and DESTDIR are honoured; JOBS=N limits the compiler's parallelism.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
JOBS ?=
TARGET_DIR := $(abspath $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target))
RELEASE_DIR := $(TARGET_DIR)/release
JOBS_FLAG := $(if $(JOBS),-j $(JOBS))
SKIP_LOG := $(TARGET_DIR)/skipped-tests.log

# The flag changes every crate's build, so that the model checks have a directory of their own.
MODELS = RUSTFLAGS="$(strip $(RUSTFLAGS) --cfg loom)" \
	$(CARGO) test --release -p mooncake --lib --target-dir "$(TARGET_DIR)/loom" $(JOBS_FLAG) loom_

export CARGO_TARGET_DIR := $(TARGET_DIR)

# What runs a second time on ::1, where promise 16 is shown: the behaviour tests of engines, by file name.
IPV6_TESTS := binary(/^(promise_.*|host_engines|host_strangers|tcp_.*|handshake_listener|control_.*|metadata_.*|golden_sessions|bounce_.*)$$/) \
	| (package(mooncake-transfer-ffi) & kind(test) & not test(/valgrind|install|headers/))
HAS_IPV6 := grep -q '^00000000000000000000000000000001 ' /proc/net/if_inet6 2>/dev/null

FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

.PHONY: help build demo demo-pool test models chaos growth fuzz miri tsan lint record record-host readme

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | expand -t 12

build: ## the whole workspace, release profile
	$(CARGO) build --release --workspace $(JOBS_FLAG)

demo: build ## two processes, two software NPUs: bandwidth sweep and the KV blocks of a real model, every byte verified
	"$(RELEASE_DIR)/transfer_engine_bench"

demo-pool: build ## the deployment guide on one machine: master, prefill, decode and mixed node, proxy; every byte verified
	$(PYTHON) examples/deployment/demo.py

# nextest runs every test in a process of its own, as tests of a C library with global state like it; the
# plain runner is the fallback. Doc tests are not nextest's, hence the second line. A test that cannot run
# on this machine is counted, not hidden.
test: build ## all tests; ends with the count of tests that cannot run here, and why
	@rm -f "$(SKIP_LOG)"; : > "$(SKIP_LOG)"
	@export MOONCAKE_TRANSFER_SKIP_LOG="$(SKIP_LOG)"; status=0; \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --release --workspace --no-fail-fast $(JOBS_FLAG:-j%=--build-jobs%) || status=$$?; \
		if $(HAS_IPV6); then \
			TEST_LOOPBACK=::1 $(CARGO) nextest run --release -p mooncake -p mooncake-transfer-ffi --no-fail-fast \
				-E '$(IPV6_TESTS)' || status=$$?; \
		else \
			echo "the second run on ::1: this machine has no IPv6 loopback" >> "$(SKIP_LOG)"; \
		fi; \
		$(CARGO) test --release --workspace --doc $(JOBS_FLAG) || status=$$?; \
	else \
		echo "cargo-nextest is not installed: using cargo test"; \
		$(CARGO) test --release --workspace --no-fail-fast $(JOBS_FLAG) || status=$$?; \
	fi; \
	$(MODELS) || status=$$?; \
	$(MAKE) test-python || status=$$?; \
	if [ -s "$(SKIP_LOG)" ]; then \
		echo "$$(wc -l < "$(SKIP_LOG)") tests cannot run here:"; sort "$(SKIP_LOG)" | sed 's/^/  /'; \
	else \
		echo "0 tests were skipped"; \
	fi; \
	exit $$status

chaos: build ## four processes, random transfers, scripted faults, for CHAOS_SECONDS (60): every byte verified or reported failed
	CHAOS_SECONDS=$${CHAOS_SECONDS:-60} $(CARGO) test --release -p mooncake --test chaos $(JOBS_FLAG) -- --nocapture

growth: build ## shows that the engine's cost is linear in buffers, peers and requests; fails when it is not
	"$(RELEASE_DIR)/engine_growth"

# Not part of `make test`, which replays the seeds (tests/fuzz_seeds.rs). On a stable compiler RUSTC_BOOTSTRAP lets
# cargo-fuzz pass the sanitizer's flags.
fuzz: ## each decoder for FUZZ_SECONDS (60) under a coverage-guided fuzzer with AddressSanitizer; needs cargo-fuzz
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz" >&2; exit 1; }
	@unset CARGO_TARGET_DIR; export RUSTC_BOOTSTRAP=1; $(CARGO) fuzz build --fuzz-dir fuzz; \
	for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; echo "== $$target"; \
		$(CARGO) fuzz run --fuzz-dir fuzz $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$${FUZZ_SECONDS:-60} -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 2>&1 \
			| grep -E '^(stat::|SUMMARY|ERROR|==[0-9]+==|thread|artifact|Done)' || exit 1; \
		test -z "$$(ls fuzz/artifacts/$$target 2>/dev/null)"; \
	done

# What Miri can run: the parts of the core that touch no socket, no file and no other process.
MIRI_PARTS := batch:: registry:: peer:: plan:: memory:: notify deadline engine::drain engine::guests \
	engine::withdrawn engine::borrowed engine::closing engine::bounce control::frame control::message \
	handshake::frame transport::tcp::wire report::
MIRI_SKIPPED := --skip memory::process --skip memory::mapping --skip memory::sealed --skip memory::io \
	--skip handles_are_never_valid_twice

miri: ## the core's own structures under Miri; needs a nightly toolchain with the component miri
	MIRIFLAGS="-Zmiri-disable-isolation" PROPTEST_CASES=4 $(CARGO) +nightly miri test -p mooncake --lib \
		--target-dir "$(TARGET_DIR)/miri" $(JOBS_FLAG) -- $(MIRI_PARTS) $(MIRI_SKIPPED)

# The standard library is instrumented as well, or its own synchronisation would look like races. One test copies to the
# same place a hundred thousand times at once, which is a race of the test's own making.
TSAN_TESTS ?= --lib --test control_connection --test local_transport
tsan: ## the core, the control connection and local copies under ThreadSanitizer; needs nightly with rust-src
	RUSTFLAGS="-Zsanitizer=thread" TSAN_OPTIONS="halt_on_error=1" RUST_BACKTRACE=0 \
		$(CARGO) +nightly test -Zbuild-std --target $(shell rustc -vV | sed -n 's/^host: //p') -p mooncake \
		--target-dir "$(TARGET_DIR)/tsan" $(JOBS_FLAG) $(TSAN_TESTS) --no-fail-fast -- --test-threads=2 \
		--skip a_stopped_copy_fails_and_shutdown_refuses_more

models: ## the model checks of what several threads share: every interleaving, by loom
	$(MODELS)

lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets $(JOBS_FLAG) -- -D warnings

RECORD_CPU := $(shell sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | tr -cs '[:alnum:]\n' - | tr '[:upper:]' '[:lower:]' | sed 's/-*$$//')
RECORD_FILE := bench/record/$(shell date -u +%F)-$(or $(RECORD_CPU),$(shell uname -m)).csv

record: build ## measures the engine's overhead per request and appends the record of this machine
	"$(RELEASE_DIR)/engine_overhead" --commit "$$(git rev-parse --short HEAD)" --record "$(RECORD_FILE)"

readme: build ## writes the README's table of environment variables anew
	@"$(RELEASE_DIR)/mooncake" env --markdown > "$(TARGET_DIR)/environment.md"
	@sed -i -e '/^<!-- made by `make readme`/,/^<!-- end of what `make readme`/{//!d}' \
		-e '/^<!-- made by `make readme`/r $(TARGET_DIR)/environment.md' README.md

# Upstream's and NIXL's wheels come from the package index the first time; what cannot be had is named in the record.
HOST_PEERS := $(or $(MOONCAKE_TRANSFER_PEERS),$(TARGET_DIR)/peers)
HOST_RECORD := bench/record/$(shell date -u +%F)-$(or $(RECORD_CPU),$(shell uname -m))-host-cells

record-host: ## measures host memory between processes beside upstream, NIXL and the machine's limits (six minutes), writes and draws the record
	$(CARGO) build --release -p mooncake-transfer-bench --bin host_cells $(JOBS_FLAG)
	bash tests/interop/make_peers.sh "$(HOST_PEERS)" 0.3.13.post1 || echo "without upstream"
	bash bench/make_nixl.sh "$(HOST_PEERS)" || echo "without NIXL"
	"$(RELEASE_DIR)/host_cells" --peers "$(HOST_PEERS)" --commit "$$(git rev-parse --short HEAD)" --record "$(HOST_RECORD).csv"
	python3 bench/plot_host_cells.py "$(HOST_RECORD).csv" "$(HOST_RECORD).svg"

# The slow-downs are such that this machine does not show and all of it takes 20 minutes. The first run is
# launches of a device in one row, with the batches that users have; the second threads that launch side by side.
AGGREGATION_RECORD := bench/record/$(shell date -u +%F)-$(or $(RECORD_CPU),$(shell uname -m))-aggregation
.PHONY: record-aggregation
record-aggregation: ## measures direct, staged and chosen transfers on every cost profile (20 minutes), writes and draws the record
	$(CARGO) build --release -p mooncake-transfer-bench -p cann-sim -p mooncake-transfer-ffi $(JOBS_FLAG)
	"$(RELEASE_DIR)/transfer_engine_bench" --profile all --launch both --record "$(AGGREGATION_RECORD)"

.PHONY: record-slots
record-slots: ## measures how staged transfers depend on length and number of slots (three minutes), writes the record
	$(CARGO) build --release -p mooncake-transfer-bench -p cann-sim -p mooncake-transfer-ffi $(JOBS_FLAG)
	bash bench/staged_slots.sh "$(RELEASE_DIR)" "$(RECORD_FILE:.csv=-slots.csv)"

include ffi/install.mk
include ffi/wheel.mk
# The store beside upstream's released one; its wheels come from the package index the first time.
STORE_RECORD := bench/record/$(shell date -u +%F)-$(or $(RECORD_CPU),$(shell uname -m))-store
.PHONY: record-store
record-store: ## measures put, get and exist beside upstream's store, interleaved (two to four minutes), writes and draws the record
	$(CARGO) build --release -p mooncake-master -p mooncake-transfer-bench $(JOBS_FLAG)
	bash tests/interop/make_peers.sh "$(HOST_PEERS)" 0.3.13.post1 || echo "without upstream"
	rm -f "$(STORE_RECORD).csv"
	"$(RELEASE_DIR)/store_cells" --rounds 7 --peers "$(HOST_PEERS)" --commit "$$(git rev-parse --short HEAD)" --record "$(STORE_RECORD).csv"
	python3 bench/store_plot.py "$(STORE_RECORD).csv" "$(STORE_RECORD).svg"

include master/record.mk

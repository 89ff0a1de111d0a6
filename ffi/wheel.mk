# make wheel [WHEEL_ARCHITECTURE=aarch64]: one wheel for every Python from 3.9 on and every Linux with glibc 2.28 on.
# make test-python: the tests of the Python package, in an environment of their own.
# TARGET_DIR and RELEASE_DIR come from the Makefile that includes this.

PYTHON ?= python3
WHEEL_ARCHITECTURE ?= $(shell uname -m)
# The toolchain that sets the floor: Zig's linker with the symbol versions of that glibc.
WHEEL_GLIBC := 2.28
WHEEL_TOOLS := ziglang==0.17.1 cargo-zigbuild==0.24.0
WHEEL_TARGET := $(WHEEL_ARCHITECTURE)-unknown-linux-gnu
WHEEL_VENV := $(TARGET_DIR)/wheel-tools
WHEEL_DIR := $(TARGET_DIR)/wheel
WHEEL_CRATES := -p mooncake-transfer-ffi -p cann-sim -p mooncake-transfer-bench -p mooncake-master -p mooncake-transfer-cli
# The software NPU's stubs are compiled by CC, which for another architecture has to be Zig's compiler, too; and the
# host's strip does not take another architecture's files, so that the linker leaves the debugging information out.
WHEEL_CC := $(WHEEL_VENV)/bin/cc-$(WHEEL_ARCHITECTURE)
WHEEL_CROSS = $(if $(filter $(shell uname -m),$(WHEEL_ARCHITECTURE)),,CC="$(WHEEL_CC)" CARGO_PROFILE_RELEASE_STRIP=debuginfo)
PYTHON_VENV := $(TARGET_DIR)/python
PYTHON_TESTS ?= tests/python

.PHONY: wheel test-wheel test-python record-python

wheel: ## dist/*.whl for this architecture, or WHEEL_ARCHITECTURE=
	@test -x "$(WHEEL_VENV)/bin/cargo-zigbuild" || { $(PYTHON) -m venv "$(WHEEL_VENV)" && "$(WHEEL_VENV)/bin/pip" install --quiet $(WHEEL_TOOLS); }
	@if command -v rustup >/dev/null 2>&1; then rustup target add $(WHEEL_TARGET); fi
	@printf '#!/bin/sh\nexec "%s" -m ziglang cc -target %s "$$@" -Wno-unused-command-line-argument\n' "$(WHEEL_VENV)/bin/python" "$(WHEEL_ARCHITECTURE)-linux-gnu.$(WHEEL_GLIBC)" > "$(WHEEL_CC)"; chmod +x "$(WHEEL_CC)"
	PATH="$(WHEEL_VENV)/bin:$$PATH" $(WHEEL_CROSS) $(CARGO) zigbuild --release --target $(WHEEL_TARGET).$(WHEEL_GLIBC) --target-dir "$(WHEEL_DIR)" $(JOBS_FLAG) $(WHEEL_CRATES)
	$(PYTHON) ffi/python/build_wheel.py --built "$(WHEEL_DIR)/$(WHEEL_TARGET)/release" --output dist --glibc $(WHEEL_GLIBC) --architecture $(WHEEL_ARCHITECTURE)

test-wheel: wheel ## makes the wheel and tests it in fresh environments of every Python here, also over upstream's
	$(MAKE) test-python PYTHON_TESTS="tests/python/test_wheel.py --wheel $$(ls -t dist/*-py3-none-manylinux_*_$(WHEEL_ARCHITECTURE).whl | head -n 1)"

RECORD_PYTHON := bench/record/$(shell date -u +%F)-$(or $(RECORD_CPU),$(shell uname -m))-python.csv
record-python: ## the import, and lists of 10,000 integers, beside upstream's binding where tests/interop/make_peers.sh has put it
	@upstream="$(TARGET_DIR)/peers/0.3.13.post1/bin/python"; [ -x "$$upstream" ] || upstream=; \
	LD_LIBRARY_PATH="$(TARGET_DIR)/peers/lib" $(PYTHON) tests/python/bench_lists.py $$upstream --record "$(RECORD_PYTHON)" --commit "$$(git rev-parse --short HEAD)"

# pytest is needed, the others make fewer skips. Without a network the environment of the caller serves.
test-python:
	@python="$(PYTHON_VENV)/bin/python"; \
	if ! "$$python" -c 'import pytest' 2>/dev/null; then \
		$(PYTHON) -m venv "$(PYTHON_VENV)" && "$$python" -m pip install --quiet pytest && \
			"$$python" -m pip install --quiet numpy mypy cmake || true; \
	fi; \
	"$$python" -c 'import pytest' 2>/dev/null || python=$(PYTHON); \
	if "$$python" -c 'import pytest' 2>/dev/null; then \
		"$$python" -m pytest -q -p no:cacheprovider $(PYTHON_TESTS); \
	else \
		echo "tests/python: pytest cannot be installed"; \
		[ -z "$${MOONCAKE_TRANSFER_SKIP_LOG:-}" ] || echo "tests/python: pytest cannot be installed" >> "$$MOONCAKE_TRANSFER_SKIP_LOG"; \
	fi

# make install PREFIX=/usr/local [DESTDIR=/staging]: library, headers, pkg-config file, programs, software NPU.
# RELEASE_DIR, the directory of the build, comes from the Makefile that includes this.

PREFIX ?= /usr/local
DESTDIR ?=
INSTALL ?= install
STRIP ?= strip
PROGRAMS ?= transfer_engine_bench
# Those of a whole build; the command runs the others by lying beside them.
OPTIONAL_PROGRAMS := mooncake mooncake_master cann-probe cann-sim-control
HEADERS := include/transfer_engine_c.h include/store_c.h include/mooncake_transfer.h include/mooncake_transfer.hpp
CMAKE_FILES := mooncake-transfer-config.cmake mooncake-transfer-config-version.cmake
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ROOT := $(DESTDIR)$(PREFIX)

.PHONY: install install-files

install: build install-files ## library, headers, pkg-config file, programs; PREFIX=/usr/local, DESTDIR=

# What is built already. The alias serves programs that link with -ltransfer_engine; the loader then asks for the
# library by its own name. The software NPU lies apart from the loader's path: it is used when it is asked for.
install-files:
	$(INSTALL) -d "$(ROOT)/lib/pkgconfig" "$(ROOT)/lib/cann-sim" "$(ROOT)/lib/cmake/mooncake-transfer" "$(ROOT)/include" "$(ROOT)/bin"
	$(INSTALL) -m 755 "$(RELEASE_DIR)/libmooncake_transfer.so" "$(ROOT)/lib/"
	$(STRIP) --strip-debug "$(ROOT)/lib/libmooncake_transfer.so"
	$(INSTALL) -m 644 "$(RELEASE_DIR)/libmooncake_transfer.a" "$(ROOT)/lib/"
	$(STRIP) --strip-debug "$(ROOT)/lib/libmooncake_transfer.a"
	ln -sf libmooncake_transfer.so "$(ROOT)/lib/libtransfer_engine.so"
	ln -sf libmooncake_transfer.a "$(ROOT)/lib/libtransfer_engine.a"
	$(INSTALL) -m 644 $(HEADERS) "$(ROOT)/include/"
	sed 's|@VERSION@|$(VERSION)|' ffi/mooncake-transfer.pc.in > "$(ROOT)/lib/pkgconfig/mooncake-transfer.pc"
	chmod 644 "$(ROOT)/lib/pkgconfig/mooncake-transfer.pc"
	for file in $(CMAKE_FILES); do \
		sed 's|@VERSION@|$(VERSION)|' ffi/cmake/$$file.in > "$(ROOT)/lib/cmake/mooncake-transfer/$$file" || exit 1; \
		chmod 644 "$(ROOT)/lib/cmake/mooncake-transfer/$$file"; \
	done
	$(INSTALL) -m 755 "$(RELEASE_DIR)/libcann_sim.so" "$(RELEASE_DIR)"/cann-sim/*.so "$(ROOT)/lib/cann-sim/"
	for program in $(PROGRAMS) $(notdir $(wildcard $(OPTIONAL_PROGRAMS:%=$(RELEASE_DIR)/%))); do $(INSTALL) -m 755 "$(RELEASE_DIR)/$$program" "$(ROOT)/bin/"; done

//! The library as C sees it: headers, exports, and programs compiled and linked against it.
//!
//! The programs are `tests/c/*.c`; `contract.c` needs no NPU, `peer.c` runs one engine on one software NPU
//! and is driven by commands.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod build;
mod contract;
mod devices;
mod headers;
mod install;
mod library;
mod peer;
mod store;
mod unavailable;

//! The C boundary: everything `libmooncake_transfer.so` exports, and nothing else.
//!
//! The contract stands in `include/transfer_engine_c.h` and `include/store_c.h` (upstream's names and numbers) and
//! `include/mooncake_transfer.h` (ours, with the law at its top). This crate holds exports and conversions;
//! what the calls mean is the core's business.
//!
//! - [`boundary`]: the one macro that makes an export (panic caught, last error kept, failure value
//!   returned), and the checked conversions of arguments.
//! - [`handle`]: tickets instead of pointers: NULL, closed, foreign and pre-fork handles are errors.
//! - One file per thing a caller holds: [`engine`], [`transport`], [`segment`], [`buffer`], [`batch`],
//!   [`notification`], [`store`], [`last_error`], [`log_sink`].
//! - [`no_effect`]: what upstream offers and this library answers without doing anything.
//!
//! Invariants: nothing unwinds into C; no argument is used unchecked; no lock of this crate is held while the
//! core or a callback of the caller runs, except the sink's own read lock, which is the promise that
//! `mooncake_transfer_set_log` keeps.

#[macro_use]
mod boundary;

mod abi;
mod batch;
mod buffer;
mod code;
mod engine;
mod graceful;
mod handle;
mod last_error;
mod lists;
mod log_line;
mod log_sink;
mod no_effect;
mod notification;
mod report;
mod segment;
mod store;
mod transport;
mod version;

#[cfg(test)]
mod signature;

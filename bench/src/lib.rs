//! The benchmarks of mooncake-transfer.
//!
//! `transfer_engine_bench` measures transfers through the C interface of the built library, as a program of
//! any language calls it, and verifies every byte. `engine_overhead` measures what the engine adds to the
//! vendor's calls, for each request. Results of the latter are kept in `bench/record`.
//!
//! Units: GB is 1e9 bytes. A measurement is shown as median and spread, with the processor time it took.

#![deny(unsafe_code)]

pub mod allocations;
pub mod arena;
pub mod arguments;
pub mod bare;
pub mod calibration;
pub mod console;
pub mod demo;
pub mod device;
pub mod exchange;
pub mod host;
pub mod initiator;
pub mod layout;
pub mod library;
pub mod model_clock;
pub mod overhead;
pub mod pattern;
pub mod placement;
pub mod profile;
pub mod report;
pub mod session;
pub mod side;
pub mod software_npu;
pub mod statistics;
pub mod store;
pub mod sweep;
pub mod target;

//! What the tests of the workspace share; never part of a product.
//!
//! - [`skip()`]: a test that cannot run here is counted and says why.
//! - [`artifacts`]: where the libraries and programs of this build are.
//! - [`detour`]: a TCP connection that can be held up.
//! - [`Child`]: a child process that is stopped by its own id, with its output captured.
//! - [`documented_bounds`]: a crate's documented bounds, held against its constants.
//! - [`wait_until`]: a bounded wait on a condition, instead of a sleep.
//! - [`loopback`]: the loopback address, of either family.
//! - [`peers`]: upstream's released wheels.
//! - [`SoftwareNpu`]: the environment of a test's own software NPU.
//!
//! Everything here fails by panicking, since its callers are tests: a panic is how a test reports.

#![expect(clippy::panic, clippy::expect_used, reason = "a helper of tests fails the test by panicking")]

pub mod artifacts;
mod bounds;
mod child;
pub mod detour;
pub mod loopback;
mod npu;
pub mod peers;
mod skip;
mod wait;

pub use bounds::documented_bounds;
pub use child::Child;
pub use npu::SoftwareNpu;
pub use skip::skip;
pub use wait::wait_until;

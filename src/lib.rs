//! The safe core of mooncake-transfer.
pub mod error;
pub mod topology;
pub mod deadline;
pub mod endpoint;
pub mod config;
pub mod segment;
pub mod batch;
pub mod memory;
pub mod plan;
pub mod registry;
mod sync;
pub mod control;
pub mod notify;
pub mod handshake;
pub mod metadata;
pub mod peer;
pub mod metrics;

//! The safe core of mooncake-transfer.
pub mod error;
pub mod topology;
pub mod deadline;
pub mod endpoint;
pub mod config;
pub mod segment;

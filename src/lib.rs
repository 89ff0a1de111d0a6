//! The safe core of mooncake-transfer.
pub mod error;
pub mod topology;

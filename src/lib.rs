//! The safe core of mooncake-transfer.
pub mod error;

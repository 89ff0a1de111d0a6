//! The command line in upstream's syntax, the configuration file, and the settings that come of both.
//!
//! Every flag of upstream's master is known. What this master offers is done; what it does not offer is refused by
//! name, unless it is off or has its default; what has no meaning here is accepted and said to have none.

mod duration;
mod file;
mod parse;
mod settings;
mod table;

pub use duration::{parse_duration_ms, parse_size_bytes};
pub use parse::{Command, Flags, parse};
pub use settings::Settings;
pub use table::{FLAGS, Flag, Kind, Support};

/// Why the master does not start, and the exit code upstream has for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct FlagError {
    /// What is wrong.
    pub text: String,
    /// 1, or 134 where upstream aborts.
    pub exit_code: u8,
}

impl FlagError {
    /// Upstream exits with 1.
    #[must_use]
    pub const fn exit(text: String) -> Self {
        Self { text, exit_code: 1 }
    }

    /// Upstream aborts.
    #[must_use]
    pub const fn abort(text: String) -> Self {
        Self { text, exit_code: 134 }
    }
}

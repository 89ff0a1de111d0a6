//! Time as the state sees it: milliseconds of a clock that the caller owns.
//!
//! Every function of `state` takes the moment it happens at, so a test sets the time and nothing sleeps.

use std::time::{Duration, Instant};

/// A point in time, in milliseconds since the clock began. The clock begins at 1: 0 means "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Before everything.
    pub const NEVER: Self = Self(0);
    /// After everything.
    pub const END: Self = Self(u64::MAX);

    /// This moment and `duration_ms` more, at most the end of time.
    #[must_use]
    pub const fn after_ms(self, duration_ms: u64) -> Self {
        Self(self.0.saturating_add(duration_ms))
    }

    /// How long ago `earlier` was, in milliseconds; 0 if it is in the future.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The monotonic clock of the process.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(millis(self.0.elapsed()).saturating_add(1))
    }
}

/// A duration in whole milliseconds, at most `u64::MAX`.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

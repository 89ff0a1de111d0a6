//! One point in time after which a call has to give up.
//!
//! Every wait of the library takes a [`Deadline`] instead of a duration, so that a call made of several
//! steps shares one budget. Durations far in the future are capped, never an arithmetic failure.

use std::time::{Duration, Instant};

/// Longest time that can be asked for; anything longer is as good as this.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A point on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// The moment `duration` from now; at most [`LONGEST`].
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(duration.min(LONGEST)).unwrap_or(now))
    }

    /// Time left; zero when the deadline is past.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the deadline is past.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.remaining().is_zero()
    }

    /// The moment itself, for waits that take one.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.0
    }

    /// The earlier of two deadlines.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_deadline_has_nothing_left() {
        let deadline = Deadline::after(Duration::ZERO);
        assert!(deadline.expired());
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    #[test]
    fn the_longest_duration_is_no_overflow() {
        let deadline = Deadline::after(Duration::MAX);
        assert!(deadline.remaining() > Duration::from_secs(3600));
        assert!(deadline.remaining() <= LONGEST);
    }

    #[test]
    fn sooner_is_symmetric() {
        let (near, far) = (Deadline::after(Duration::from_secs(1)), Deadline::after(Duration::from_secs(9)));
        assert_eq!(near.sooner(far), near);
        assert_eq!(far.sooner(near), near);
    }
}

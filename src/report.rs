//! Failures in the log: each one once, and not the same one over and over.
//!
//! A failing peer fails thousands of requests a second. The first failure of a (stage, code, peer) is logged whole;
//! the next ones are counted, and the count is told with the next line, at most one per [`INTERVAL`]. Invariant: at
//! most [`MAX_SITES`] are remembered; the oldest goes first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Code, Error, Stage};

/// Least time between two lines about the same failure.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Most failures that are told apart.
pub const MAX_SITES: usize = 1024;

type Site = (Stage, Code, Option<String>);

#[derive(Debug)]
struct Seen {
    logged: Instant,
    suppressed: u64,
}

/// Decides which failures are logged.
#[derive(Debug, Default)]
pub struct Reporter {
    sites: Mutex<HashMap<Site, Seen>>,
}

impl Reporter {
    /// Logs a failure as a warning, unless one like it was logged within [`INTERVAL`].
    pub fn report(&self, error: &Error) {
        if let Some(suppressed) = self.admit(error, Instant::now()) {
            if suppressed == 0 {
                log::warn!("{error}");
            } else {
                log::warn!("{error}; and {suppressed} more like it since the last line");
            }
        }
    }

    /// Whether a failure at `now` is to be logged, and how many like it were not.
    fn admit(&self, error: &Error, now: Instant) -> Option<u64> {
        let site = (error.stage(), error.code(), error.record().peer.clone());
        let mut sites = self.sites.lock();
        if let Some(seen) = sites.get_mut(&site) {
            if now.saturating_duration_since(seen.logged) < INTERVAL {
                seen.suppressed = seen.suppressed.saturating_add(1);
                return None;
            }
            seen.logged = now;
            return Some(std::mem::take(&mut seen.suppressed));
        }
        if sites.len() >= MAX_SITES {
            let oldest = sites.iter().min_by_key(|(_, seen)| seen.logged).map(|(site, _)| site.clone());
            if let Some(oldest) = oldest {
                sites.remove(&oldest);
            }
        }
        sites.insert(site, Seen { logged: now, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(peer: &str) -> Error {
        Error::new(Code::Timeout, Stage::Execute, "late").peer(peer)
    }

    #[test]
    fn the_same_failure_is_counted_and_told_with_the_next_line() {
        let reporter = Reporter::default();
        let now = Instant::now();
        assert_eq!(reporter.admit(&error("a"), now), Some(0));
        assert_eq!(reporter.admit(&error("a"), now), None);
        assert_eq!(reporter.admit(&error("a"), now), None);
        assert_eq!(reporter.admit(&error("b"), now), Some(0), "another peer is another failure");
        assert_eq!(reporter.admit(&error("a"), now + INTERVAL), Some(2));
        assert_eq!(reporter.admit(&error("a"), now + INTERVAL * 2), Some(0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let reporter = Reporter::default();
        let now = Instant::now();
        for number in 0..2 * MAX_SITES {
            let _ = reporter.admit(&error(&number.to_string()), now);
        }
        assert_eq!(reporter.sites.lock().len(), MAX_SITES);
    }
}

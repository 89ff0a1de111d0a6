//! Waiting times as C passes them, and the device's clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::status::{Fail, Outcome, acl};

/// When a wait ends: never (`None`) or at an instant.
pub type Deadline = Option<Instant>;

/// A timeout in milliseconds, -1 for ever (facts 1.6).
pub fn deadline_ms(timeout_ms: i32) -> Outcome<Deadline> {
    match timeout_ms {
        -1 => Ok(None),
        0.. => Ok(Instant::now().checked_add(Duration::from_millis(u64::from(timeout_ms.unsigned_abs())))),
        _ => Err(Fail::new(acl::PARAM_INVALID, format!("timeout {timeout_ms} ms is below -1"))),
    }
}

/// Microseconds of the device's clock.
pub fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

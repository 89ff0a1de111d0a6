//! The kinds of metrics.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Error;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `amount` more; stays at the largest number rather than begin anew.
    pub fn add(&self, amount: u64) {
        let grown = |value: u64| Some(value.saturating_add(amount));
        let _before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
    }

    /// At least `value`, which somebody else counts.
    pub fn raise_to(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that says how many there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many.
    pub fn set(&self, value: u64) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in microseconds: from a small local copy to a connect.
const BOUNDS_MICROSECONDS: [u64; 16] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000,
    10_000_000,
];

/// How long something took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations in the bucket itself, not cumulative; the last is for all above the highest bound.
    buckets: [AtomicU64; BOUNDS_MICROSECONDS.len() + 1],
    sum_nanoseconds: AtomicU64,
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let index = BOUNDS_MICROSECONDS.partition_point(|bound| bound.saturating_mul(1000) < nanoseconds);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Sum of all observations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanoseconds.load(Ordering::Relaxed))
    }

    pub(super) fn write(&self, out: &mut String, name: &str) -> fmt::Result {
        let mut total = 0u64;
        for (bucket, bound) in self.buckets.iter().zip(&BOUNDS_MICROSECONDS) {
            total = total.saturating_add(bucket.load(Ordering::Relaxed));
            let (whole, rest) = (bound / 1_000_000, bound % 1_000_000);
            writeln!(out, "{name}_bucket{{le=\"{whole}.{rest:06}\"}} {total}")?;
        }
        let above = self.buckets.last().map_or(0, |bucket| bucket.load(Ordering::Relaxed));
        let count = total.saturating_add(above);
        writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
        let sum = self.sum();
        writeln!(out, "{name}_sum {}.{:09}", sum.as_secs(), sum.subsec_nanos())?;
        writeln!(out, "{name}_count {count}")
    }
}

/// Failures by stage and code; both are closed sets, so the number of lines is bounded.
#[derive(Debug, Default)]
pub struct Failures(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Failures {
    /// Counts one failure.
    pub fn count(&self, error: &Error) {
        let mut counts = self.0.lock();
        let count = counts.entry((error.stage().name(), error.code().name())).or_default();
        *count = count.saturating_add(1);
    }

    /// Number of failures of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.lock().values().sum()
    }

    pub(super) fn write(&self, out: &mut String, name: &str) -> fmt::Result {
        for ((stage, code), count) in &*self.0.lock() {
            writeln!(out, "{name}{{stage=\"{stage}\",code=\"{code}\"}} {count}")?;
        }
        Ok(())
    }
}

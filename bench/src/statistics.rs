//! Median and spread of repeated measurements.

use std::time::Duration;

use serde::Serialize;

/// A sample of durations, sorted.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    sorted: Vec<Duration>,
}

impl Sample {
    /// The sample of these durations, in any order.
    #[must_use]
    pub fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self { sorted: durations }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The value below which `per_cent` of the sample lies (nearest rank); zero for an empty sample.
    #[must_use]
    pub fn percentile(&self, per_cent: usize) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        let rank = (last * per_cent + 50) / 100;
        self.sorted.get(rank).copied().unwrap_or_default()
    }

    /// The summary for a transfer of `bytes` in each of these durations.
    #[must_use]
    pub fn rate(&self, bytes: u64) -> Rate {
        let median = self.percentile(50);
        Rate {
            rounds: self.count(),
            median_us: median.as_secs_f64() * 1e6,
            p10_us: self.percentile(10).as_secs_f64() * 1e6,
            p90_us: self.percentile(90).as_secs_f64() * 1e6,
            gigabytes_per_second: gigabytes_per_second(bytes, median),
        }
    }
}

/// What a table shows of a sample.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rate {
    /// How many rounds were timed.
    pub rounds: usize,
    /// The median of a round.
    pub median_us: f64,
    /// A tenth of the rounds was faster.
    pub p10_us: f64,
    /// A tenth of the rounds was slower.
    pub p90_us: f64,
    /// Bytes of a round over its median, in 1e9 bytes per second.
    pub gigabytes_per_second: f64,
}

impl Rate {
    /// Half the distance between the tenth and the ninetieth percentile, in per cent of the median.
    #[must_use]
    pub fn spread_per_cent(&self) -> f64 {
        if self.median_us > 0.0 { (self.p90_us - self.p10_us) / 2.0 / self.median_us * 100.0 } else { 0.0 }
    }
}

/// `bytes` in `time`, in 1e9 bytes per second; zero when no time passed.
#[must_use]
pub fn gigabytes_per_second(bytes: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { gigabytes(bytes) / seconds } else { 0.0 }
}

/// A number of bytes in 1e9 bytes.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a report shows three digits")]
pub fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let sample = Sample::new([5, 1, 9, 3, 7].map(Duration::from_millis).to_vec());
        assert_eq!(sample.percentile(50), Duration::from_millis(5));
        assert_eq!(sample.percentile(0), Duration::from_millis(1));
        assert_eq!(sample.percentile(100), Duration::from_millis(9));
    }

    #[test]
    fn a_gigabyte_is_a_thousand_million_bytes() {
        let rate = Sample::new(vec![Duration::from_millis(500); 3]).rate(1_000_000_000);
        assert!((rate.gigabytes_per_second - 2.0).abs() < 1e-9);
        assert!(rate.spread_per_cent().abs() < 1e-9);
    }

    #[test]
    fn an_empty_sample_has_no_rate() {
        assert!(Sample::default().rate(100).gigabytes_per_second.abs() < f64::EPSILON);
    }
}

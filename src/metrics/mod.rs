//! Counters, gauges and histograms of one engine, and their Prometheus text.
//!
//! Every metric stands once, in the table of [`set`], with its name and its help text; the struct, the text
//! and [`Metrics::DOCUMENTED`] are made from it. A [`Counter`] can only be added to, so it never goes down.
//! Recording is one relaxed atomic addition; what is counted per request is added once per submission.

mod kinds;
mod set;

pub use kinds::{Counter, Failures, Gauge, Histogram};
pub use set::{Documented, Kind, Metrics};

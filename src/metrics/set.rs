//! The metrics of an engine: one table.

use std::fmt::Write;

use crate::metrics::{Counter, Failures, Gauge, Histogram};

/// Kind of a metric, as Prometheus names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What is known of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Documented {
    /// Its name in the text.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($field:ident: $type:ident as $kind:ident, $name:literal, $help:literal;)*) => {
        /// The metrics of one engine.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = concat!("`", $name, "`: ", $help, ".")] pub $field: $type,)*
        }

        impl Metrics {
            /// Every metric, in the order of the text.
            pub const DOCUMENTED: &[Documented] =
                &[$(Documented { name: $name, kind: Kind::$kind, help: $help },)*];

            fn write(&self, out: &mut String) -> std::fmt::Result {
                $(
                    writeln!(out, "# HELP {} {}", $name, $help)?;
                    writeln!(out, "# TYPE {} {}", $name, Kind::$kind.name())?;
                    self.$field.write(out, $name)?;
                )*
                Ok(())
            }
        }
    };
}

metrics! {
    batches_allocated: Counter as Counter, "mooncake_transfer_batches_allocated_total", "Batches allocated";
    batches_freed: Counter as Counter, "mooncake_transfer_batches_freed_total", "Batches freed or given up";
    submissions: Counter as Counter, "mooncake_transfer_submissions_total", "Calls of submit that were accepted";
    submissions_refused: Counter as Counter, "mooncake_transfer_submissions_refused_total", "Calls of submit that were refused";
    requests_submitted: Counter as Counter, "mooncake_transfer_requests_submitted_total", "Requests accepted";
    requests_completed: Counter as Counter, "mooncake_transfer_requests_completed_total", "Requests completed";
    requests_failed: Counter as Counter, "mooncake_transfer_requests_failed_total", "Requests failed";
    extents: Counter as Counter, "mooncake_transfer_extents_total", "Contiguous copies that requests were merged or cut into";
    read_bytes: Counter as Counter, "mooncake_transfer_read_bytes_total", "Bytes read from peers into local memory";
    written_bytes: Counter as Counter, "mooncake_transfer_written_bytes_total", "Bytes written from local memory to peers";
    vendor_calls: Counter as Counter, "mooncake_transfer_vendor_calls_total", "Calls that handed copies to the device library";
    same_host_jobs: Counter as Counter, "mooncake_transfer_same_host_jobs_total", "Groups of host copies handed to the kernel's copy between processes";
    tcp_jobs: Counter as Counter, "mooncake_transfer_tcp_jobs_total", "Groups of host copies handed to TCP";
    staged_jobs: Counter as Counter, "mooncake_transfer_staged_jobs_total", "Groups of copies handed to the slots of devices";
    staged_bytes: Counter as Counter, "mooncake_transfer_staged_bytes_total", "Bytes that transfers of this engine moved through slots";
    by_peers_bytes: Counter as Counter, "mooncake_transfer_by_peers_bytes_total", "Bytes of this engine's transfers that peers launched at their ends";
    timeouts: Counter as Counter, "mooncake_transfer_timeouts_total", "Submissions that came to their deadline";
    cancellations: Counter as Counter, "mooncake_transfer_cancellations_total", "Submissions that were cancelled";
    stuck: Counter as Counter, "mooncake_transfer_stuck_total", "Submissions that could not be made quiet in the grace time";
    failures: Failures as Counter, "mooncake_transfer_failures_total", "Failures by stage and code";
    registrations: Counter as Counter, "mooncake_transfer_registrations_total", "Ranges registered";
    unregistrations: Counter as Counter, "mooncake_transfer_unregistrations_total", "Ranges unregistered";
    unregistrations_busy: Counter as Counter, "mooncake_transfer_unregistrations_busy_total", "Attempts to unregister a range in flight";
    channels_opened: Counter as Counter, "mooncake_transfer_channels_opened_total", "Device channels established";
    channels_failed: Counter as Counter, "mooncake_transfer_channels_failed_total", "Device channels lost or never established";
    channels_closed: Counter as Counter, "mooncake_transfer_channels_closed_total", "Device channels closed in order";
    control_connections_lost: Counter as Counter, "mooncake_transfer_control_connections_lost_total", "Control connections lost";
    handshakes_served: Counter as Counter, "mooncake_transfer_handshakes_served_total", "Handshake requests answered";
    notes_sent: Counter as Counter, "mooncake_transfer_notes_sent_total", "Notifications delivered to peers";
    notes_received: Counter as Counter, "mooncake_transfer_notes_received_total", "Notifications received from peers";
    notes_dropped: Counter as Counter, "mooncake_transfer_notes_dropped_total", "Notifications refused because the queue was full";
    batches: Gauge as Gauge, "mooncake_transfer_batches", "Batches allocated and not freed";
    submissions_running: Gauge as Gauge, "mooncake_transfer_submissions_running", "Submissions with unfinished requests";
    regions: Gauge as Gauge, "mooncake_transfer_regions", "Ranges registered now";
    registered_bytes: Gauge as Gauge, "mooncake_transfer_registered_bytes", "Bytes registered now";
    channels: Gauge as Gauge, "mooncake_transfer_channels", "Device channels ready now";
    staged_slots: Gauge as Gauge, "mooncake_transfer_staged_slots", "Slots in use, by this engine's transfers and lent to peers";
    staged_slots_held_back: Gauge as Gauge, "mooncake_transfer_staged_slots_held_back", "Slots lent to peers that are gone, until their channels have ended";
    control_connections: Gauge as Gauge, "mooncake_transfer_control_connections", "Control connections open now";
    peers: Gauge as Gauge, "mooncake_transfer_peers", "Peers known";
    submit_seconds: Histogram as Histogram, "mooncake_transfer_submit_seconds", "Time that a call of submit took";
    transfer_seconds: Histogram as Histogram, "mooncake_transfer_transfer_seconds", "Time from submit until the last request of the call was finished";
    connect_seconds: Histogram as Histogram, "mooncake_transfer_connect_seconds", "Time to establish a device channel";
}

impl Metrics {
    /// All metrics in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(8192);
        if self.write(&mut out).is_err() {
            log::error!("the metrics could not be written"); // a String takes everything
        }
        out
    }
}

impl Counter {
    fn write(&self, out: &mut String, name: &str) -> std::fmt::Result {
        writeln!(out, "{name} {}", self.value())
    }
}

impl Gauge {
    fn write(&self, out: &mut String, name: &str) -> std::fmt::Result {
        writeln!(out, "{name} {}", self.value())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::error::{Code, Error, Stage};

    #[test]
    fn names_are_unique_valid_and_of_their_kind() {
        let mut seen = HashSet::new();
        for metric in Metrics::DOCUMENTED {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert!(metric.name.starts_with("mooncake_transfer_"));
            assert!(metric.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.len() > 8 && !metric.help.ends_with('.') && !metric.help.contains('\n'));
        }
    }

    #[test]
    fn the_text_documents_every_line_of_it() {
        let metrics = Metrics::default();
        metrics.read_bytes.add(7);
        metrics.regions.set(3);
        metrics.failures.count(&Error::new(Code::Dns, Stage::Resolve, "x"));
        metrics.failures.count(&Error::new(Code::Dns, Stage::Resolve, "y"));
        let text = metrics.text();
        assert!(text.contains("\nmooncake_transfer_read_bytes_total 7\n"));
        assert!(text.contains("\nmooncake_transfer_regions 3\n"));
        assert!(text.contains("\nmooncake_transfer_failures_total{stage=\"resolve\",code=\"dns\"} 2\n"));
        assert_eq!(metrics.failures.total(), 2);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split([' ', '{']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let known = |name: &str| Metrics::DOCUMENTED.iter().any(|metric| metric.name == name);
            assert!(known(name) || base.is_some_and(known), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
        for metric in Metrics::DOCUMENTED {
            assert!(text.contains(&format!("# HELP {} ", metric.name)));
            assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind.name())));
        }
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_belong_below() {
        let metrics = Metrics::default();
        for microseconds in [5, 6, 10, 20_000_000] {
            metrics.submit_seconds.observe(Duration::from_micros(microseconds));
        }
        let text = metrics.text();
        for line in [
            "submit_seconds_bucket{le=\"0.000005\"} 1",
            "submit_seconds_bucket{le=\"0.000010\"} 3",
            "submit_seconds_bucket{le=\"10.000000\"} 3",
            "submit_seconds_bucket{le=\"+Inf\"} 4",
            "submit_seconds_sum 20.000021000",
            "submit_seconds_count 4",
        ] {
            assert!(text.contains(line), "{line} missing in {text}");
        }
        assert_eq!(metrics.submit_seconds.count(), 4);
    }

    #[test]
    fn a_counter_stays_at_the_top() {
        let counter = Counter::default();
        counter.add(u64::MAX);
        counter.increment();
        assert_eq!(counter.value(), u64::MAX);
    }
}

//! What a process publishes about itself: where it listens and what memory may be reached.
//!
//! The types here are the content; their JSON form is in [`codec`](super::codec).

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::endpoint::Incarnation;
use crate::memory::SharedRange;

/// Version of [`Ours`]; a peer with another one is refused loudly on both sides.
pub const OURS_VERSION: u32 = 1;

/// One segment: all memory of one engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentDescriptor {
    /// Name under which the publisher can be reached; peer to peer it is `host:port` of its handshake.
    pub name: String,
    /// Transport that serves the segment: `tcp`, `ascend`, or one of upstream's others.
    pub protocol: String,
    /// Memory that may be reached.
    pub buffers: Vec<BufferDescriptor>,
    /// Port of the TCP data listener; 0 when there is none.
    pub tcp_data_port: u16,
    /// Version of the TCP data protocol; 1 when the publisher did not say.
    pub tcp_proto_version: u32,
    /// Host of the TCP data listener, where it is not that of `name` (upstream since 0.3.13).
    pub tcp_data_host: Option<String>,
    /// Address of the RDMA control endpoint; upstream's TCP segments carry it empty since 0.3.13.
    pub rdma_server_name: Option<String>,
    /// Rank of the publisher, for `ascend`.
    pub rank_info: Option<RankInfo>,
    /// When it was published, as text for people; no part of the content.
    pub timestamp: Option<String>,
    /// What only our own peers understand.
    pub ours: Option<Ours>,
}

/// One range of memory of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BufferDescriptor {
    /// Location (`npu:1`, `cpu:0`, `*`); for `tcp` the segment's name. Never empty.
    pub name: String,
    /// First address in the publisher's address space. Never 0.
    pub address: u64,
    /// Length. Never 0, and the range does not wrap.
    pub length_bytes: u64,
    /// Device the memory belongs to, for `ascend`; the publisher's logical id.
    pub device_id: Option<i32>,
}

impl BufferDescriptor {
    /// First address behind the range.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.length_bytes)
    }

    /// Whether the range `[address, address + length_bytes)` lies in this one.
    #[must_use]
    pub fn contains(&self, address: u64, length_bytes: u64) -> bool {
        address >= self.address && address.checked_add(length_bytes).is_some_and(|end| end <= self.end())
    }
}

/// Upstream's description of an NPU rank. Unused fields keep upstream's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankInfo {
    /// Rank number; 2^32 - 1 when not used.
    pub rank_id: u64,
    /// Address of the host.
    #[serde(default)]
    pub host_ip: String,
    /// Port of the first endpoint, for upstream up to 0.3.10.
    pub host_port: u64,
    /// Device as the process counts it.
    pub device_logic_id: u64,
    /// Device as the machine counts it.
    pub device_phy_id: u64,
    /// Upstream's number of the chip generation.
    pub device_type: u64,
    /// Network address of the device.
    #[serde(default)]
    pub device_ip: String,
    /// Port on the device.
    pub device_port: u64,
    /// Process id.
    pub pid: u64,
    /// One `host:port` for each local device, for upstream since 0.3.11.
    #[serde(default)]
    pub endpoints: Vec<String>,
}

impl Default for RankInfo {
    fn default() -> Self {
        Self {
            rank_id: u64::from(u32::MAX),
            host_ip: String::new(),
            host_port: 0,
            device_logic_id: 0,
            device_phy_id: 0,
            device_type: 5,
            device_ip: String::new(),
            device_port: 0,
            pid: 0,
            endpoints: Vec::new(),
        }
    }
}

/// The one key we add to upstream's descriptor. Upstream ignores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ours {
    /// [`OURS_VERSION`] of the publisher.
    pub version: u32,
    /// Which engine this is.
    pub incarnation: Incarnation,
    /// Port of the control listener, on the host of the segment's name.
    pub control_port: u16,
    /// Counts the publisher's changes of its registered memory.
    pub epoch: u64,
    /// Devices the publisher can reach memory of, by the ids it uses itself.
    pub devices: Vec<i32>,
    /// Memory of devices. It is no part of the upstream descriptor, whose peers would reach for it by TCP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<DeviceMemory>,
    /// Shared memory that host buffers lie in, by address, for peers of the same host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedRange>,
}

/// One range of memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// First address in the publisher's address space.
    pub address: u64,
    /// Length.
    pub length_bytes: u64,
    /// The device, by the id the publisher uses itself.
    pub device: i32,
}

impl SegmentDescriptor {
    /// Equal apart from the time of publishing.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        let stamped = |descriptor: &Self| descriptor.timestamp.is_some();
        if !stamped(self) && !stamped(other) {
            return self == other;
        }
        let bare = |descriptor: &Self| Self { timestamp: None, ..descriptor.clone() };
        bare(self) == bare(other)
    }

    /// Whether the publisher is an engine of this library.
    #[must_use]
    pub fn incarnation(&self) -> Option<&Incarnation> {
        self.ours.as_ref().map(|ours| &ours.incarnation)
    }
}

/// Now, in the form of the `timestamp` key: `YYYY-MM-DD HH:MM:SS.uuuuuu`.
///
/// Upstream writes local time; this is UTC, since nobody computes with it and the time zone of a process cannot
/// be read safely while other threads change the environment.
#[must_use]
pub fn timestamp_now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06}",
        second / 3600,
        second / 60 % 60,
        second % 60,
        now.subsec_micros()
    )
}

/// Year, month and day of a number of days since 1970-01-01, by the 400-year cycle of the calendar that begins
/// on a first of March.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(719_468);
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    let leap_corrected = day_of_cycle
        .saturating_sub(day_of_cycle / 1460)
        .saturating_add(day_of_cycle / 36_524)
        .saturating_sub(day_of_cycle / 146_096);
    let year_of_cycle = leap_corrected / 365;
    let days_before =
        (year_of_cycle * 365).saturating_add(year_of_cycle / 4).saturating_sub(year_of_cycle / 100);
    let day_of_year = day_of_cycle.saturating_sub(days_before);
    let shifted_month = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    let day =
        day_of_year.saturating_sub(shifted_month.saturating_mul(153).saturating_add(2) / 5).saturating_add(1);
    let month =
        if shifted_month < 10 { shifted_month.saturating_add(3) } else { shifted_month.saturating_sub(9) };
    let year = cycle.saturating_mul(400).saturating_add(year_of_cycle).saturating_add(u64::from(month <= 2));
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_calendar() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(11_017), (2000, 3, 1));
        assert_eq!(civil_date(20_779), (2026, 11, 22));
        assert_eq!(civil_date(47_540), (2100, 2, 28));
        assert_eq!(civil_date(47_541), (2100, 3, 1));
    }

    #[test]
    fn a_timestamp_has_upstreams_form() {
        let text = timestamp_now();
        assert_eq!(text.len(), "2026-11-22 09:27:22.042427".len());
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00.000000");
    }

    #[test]
    fn containment_cannot_overflow() {
        let buffer = BufferDescriptor { address: 100, length_bytes: 50, ..Default::default() };
        assert!(buffer.contains(100, 50) && buffer.contains(149, 1) && buffer.contains(150, 0));
        assert!(!buffer.contains(99, 1) && !buffer.contains(100, 51) && !buffer.contains(120, u64::MAX));
    }
}

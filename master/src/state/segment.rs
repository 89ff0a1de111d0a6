//! A segment of the pool, and the ranges of it that replicas hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use mooncake_wire::lists::Names;
use mooncake_wire::model::{self, Uuid};
use parking_lot::Mutex;

use super::extents::Extents;
use crate::moment::Moment;
use crate::stripe::Striped;

/// Where a segment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentStatus {
    /// Known from the journal; its objects wait for it to be mounted again.
    Awaiting,
    /// Serves, and takes new puts.
    Mounted,
    /// Its client has closed its last connection and was not heard since: serves, and takes a put only if no other
    /// segment does.
    Doubtful,
    /// Its client is silent: serves, and takes no new puts.
    Suspect,
    /// Its client asked for it back after a time: serves, and takes no new puts.
    Leaving,
    /// Taken back or lost.
    Gone,
}

impl SegmentStatus {
    const fn code(self) -> u8 {
        match self {
            Self::Awaiting => 0,
            Self::Mounted => 1,
            Self::Suspect => 2,
            Self::Leaving => 3,
            Self::Gone => 4,
            Self::Doubtful => 5,
        }
    }

    /// Whether its bytes can be read.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Mounted | Self::Doubtful | Self::Suspect | Self::Leaving)
    }

    /// Whether its client may be gone.
    #[must_use]
    pub const fn in_doubt(self) -> bool {
        matches!(self, Self::Doubtful | Self::Suspect)
    }

    /// The number and name that upstream's `QuerySegmentStatus` has for it.
    #[must_use]
    pub const fn upstream(self) -> (i32, &'static str) {
        match self {
            Self::Awaiting => (0, "UNDEFINED"),
            Self::Mounted | Self::Doubtful | Self::Suspect => (1, "OK"),
            Self::Leaving => (4, "GRACEFULLY_UNMOUNTING"),
            Self::Gone => (5, "UNMOUNTING"),
        }
    }
}

/// What a reader is told of a segment besides the address.
#[derive(Debug)]
struct Told {
    endpoint: Arc<str>,
    protocol: Arc<str>,
}

/// A segment. What the client said of it never changes.
#[derive(Debug)]
pub struct Segment {
    /// Its id.
    pub id: Uuid,
    /// The client that lends it.
    pub client: Uuid,
    /// Name; not unique.
    pub name: Arc<str>,
    /// Host part of the name, empty for loopback.
    pub host: Arc<str>,
    /// First address in the client's memory.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where the client's transfer engine listens, and its protocol.
    pub names: Names,
    /// Copies of the two, since every answer that names a replica by a value takes and gives them back.
    told: Striped<Told>,
    status: AtomicU8,
    mounted_at: AtomicU64,
    extents: Apart<Mutex<Extents>>,
}

/// On lines of memory of its own: what puts change again and again stands apart from what reads look at.
#[derive(Debug)]
#[repr(align(64))]
struct Apart<T>(T);

impl Segment {
    /// A segment as a client describes it, in the given state.
    #[must_use]
    pub fn new(segment: &model::Segment, client: Uuid, status: SegmentStatus, now: Moment) -> Self {
        let host = if segment.host_id.is_empty() { host_of(&segment.name) } else { segment.host_id.as_str() };
        let protocol = if segment.protocol.is_empty() { "tcp" } else { segment.protocol.as_str() };
        Self {
            id: segment.id,
            client,
            name: segment.name.as_str().into(),
            host: host.into(),
            base: segment.base,
            size: segment.size,
            names: Names::new(protocol, &segment.te_endpoint),
            told: Striped::new(|| Told {
                endpoint: segment.te_endpoint.as_str().into(),
                protocol: protocol.into(),
            }),
            status: AtomicU8::new(status.code()),
            mounted_at: AtomicU64::new(now.0),
            extents: Apart(Mutex::new(Extents::new(segment.size))),
        }
    }

    /// The description a client gave.
    #[must_use]
    pub fn description(&self) -> model::Segment {
        model::Segment {
            id: self.id,
            name: self.name.to_string(),
            base: self.base,
            size: self.size,
            te_endpoint: self.names.endpoint().to_string(),
            protocol: self.names.protocol().to_string(),
            host_id: self.host.to_string(),
        }
    }

    /// Where it is in its life.
    #[must_use]
    pub fn status(&self) -> SegmentStatus {
        match self.status.load(Ordering::Acquire) {
            0 => SegmentStatus::Awaiting,
            1 => SegmentStatus::Mounted,
            2 => SegmentStatus::Suspect,
            3 => SegmentStatus::Leaving,
            5 => SegmentStatus::Doubtful,
            _ => SegmentStatus::Gone,
        }
    }

    /// Moves it on. The extents' lock is held so that no allocation is under way when it stops taking puts.
    pub(super) fn set_status(&self, status: SegmentStatus) {
        let _extents = self.extents.0.lock();
        self.status.store(status.code(), Ordering::Release);
    }

    pub(super) fn set_mounted(&self, now: Moment) {
        self.mounted_at.store(now.0, Ordering::Release);
        self.set_status(SegmentStatus::Mounted);
    }

    /// When it joined the pool.
    #[must_use]
    pub fn mounted_at(&self) -> Moment {
        Moment(self.mounted_at.load(Ordering::Acquire))
    }

    /// Whether its bytes can be read.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.status().serves()
    }

    /// Bytes allocated, rounding included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.extents.0.lock().used_bytes()
    }

    /// Length of the longest object that fits now.
    #[must_use]
    pub fn largest_free_bytes(&self) -> u64 {
        self.extents.0.lock().largest_free_bytes()
    }
}

/// A range of a segment; dropping it gives the range back.
#[derive(Debug)]
pub struct Range {
    segment: Arc<Segment>,
    offset: u64,
    length: u64,
}

impl Range {
    /// Allocates `length` bytes, if the segment takes puts and has them in one piece.
    #[must_use]
    pub fn allocate(segment: &Arc<Segment>, length: u64) -> Option<Self> {
        let mut extents = segment.extents.0.lock();
        if !matches!(segment.status(), SegmentStatus::Mounted | SegmentStatus::Doubtful) {
            return None;
        }
        let offset = extents.allocate(length)?;
        drop(extents);
        Some(Self { segment: Arc::clone(segment), offset, length })
    }

    /// Claims a range that the journal knows.
    #[must_use]
    pub fn claim(segment: &Arc<Segment>, offset: u64, length: u64) -> Option<Self> {
        if !segment.extents.0.lock().claim(offset, length) {
            return None;
        }
        Some(Self { segment: Arc::clone(segment), offset, length })
    }

    /// The segment.
    #[must_use]
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Offset in the segment, in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Length in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Its first address in the memory of the segment's client.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.segment.base.wrapping_add(self.offset)
    }

    /// The range as clients are told it.
    #[must_use]
    pub fn buffer(&self) -> model::Buffer {
        let told = self.segment.told.own();
        model::Buffer {
            size: self.length,
            address: self.address(),
            protocol: Arc::clone(&told.protocol),
            endpoint: Arc::clone(&told.endpoint),
        }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        let freed = self.segment.extents.0.lock().free(self.offset, self.length);
        debug_assert!(freed, "a range is freed once");
    }
}

/// Host part of `host`, `host:port`, `[v6]:port` or `host:port:npu_N`; empty for a loopback name, which says nothing.
#[must_use]
pub fn host_of(name: &str) -> &str {
    let host = if let Some(rest) = name.strip_prefix('[') {
        rest.split_once(']').map_or(rest, |(host, _)| host)
    } else if name.matches(':').count() > 2 {
        name
    } else {
        name.split_once(':').map_or(name, |(host, _)| host)
    };
    if matches!(host, "localhost" | "127.0.0.1" | "0.0.0.0" | "::1" | "::") { "" } else { host }
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn hosts_of_names() {
        for (name, host) in [
            ("10.0.0.1:8790:npu_3", "10.0.0.1"),
            ("10.0.0.1:12300", "10.0.0.1"),
            ("node-7", "node-7"),
            ("[fd00::7]:12300", "fd00::7"),
            ("fd00::7:1", "fd00::7:1"),
            ("localhost:12345", ""),
            ("127.0.0.1:1", ""),
            ("[::1]:1", ""),
        ] {
            assert_eq!(host_of(name), host, "{name}");
        }
    }
}

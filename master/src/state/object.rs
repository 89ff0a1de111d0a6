//! One object and its replicas.
//!
//! Kept small: a million objects are a million of these. What can be derived from the replicas is not stored.

use std::sync::Arc;

use mooncake_wire::lists::MemoryReplica;
use mooncake_wire::model::{self, Placement, ReplicaStatus, Uuid};
use smallvec::SmallVec;

use super::segment::{Range, SegmentStatus};
use crate::moment::Moment;

/// One copy of an object, in the memory of a segment.
#[derive(Debug)]
pub struct Replica {
    /// Unique in the life of the journal.
    pub id: u64,
    /// Its bytes.
    pub range: Range,
    /// Whether its writer has finished.
    pub complete: bool,
}

impl Replica {
    /// The replica as clients are told it.
    #[must_use]
    pub fn describe(&self) -> model::Replica {
        model::Replica {
            id: self.id,
            placement: Placement::Memory(self.range.buffer()),
            status: self.status(),
        }
    }

    /// The same, borrowed.
    #[must_use]
    pub fn tell(&self) -> MemoryReplica<'_> {
        let segment = self.range.segment();
        MemoryReplica {
            id: self.id,
            size: self.range.length(),
            address: self.range.address(),
            names: &segment.names,
            status: self.status(),
        }
    }

    const fn status(&self) -> ReplicaStatus {
        if self.complete { ReplicaStatus::Complete } else { ReplicaStatus::Processing }
    }

    /// Whether a reader can be sent to it.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.complete && self.range.segment().serves()
    }
}

/// The replicas of an object; one of them stands in the object itself.
pub type Replicas = SmallVec<[Replica; 1]>;

/// What a reader, or a writer of the same key, finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// At least one replica can be read.
    Readable,
    /// Its writer has not finished.
    Processing,
    /// Its segments are known and not here: it may come back, and may be replaced.
    Awaiting,
    /// Its segments are gone.
    Lost,
}

/// One object.
#[derive(Debug)]
pub struct Object {
    /// The key; any bytes.
    pub key: Box<[u8]>,
    /// Names the object in the journal: the id of its first replica.
    pub id: u64,
    /// The client that put it.
    pub owner: Uuid,
    /// When the put began.
    pub put_started: Moment,
    /// Until when no eviction takes it; also its age for eviction.
    pub lease_until: Moment,
    /// Until when it is soft-pinned. While the put runs: unset, see `soft_pin_ttl_ms`.
    pub soft_pin_until: Moment,
    /// How long the soft pin holds from the end of the put on, in milliseconds; 0 is none.
    pub soft_pin_ttl_ms: u64,
    /// CRC-64, if the writer gave one.
    pub checksum: Option<u64>,
    /// Its eviction group.
    pub group: Option<Arc<str>>,
    /// Where it is; never empty in the table.
    pub replicas: Replicas,
    /// Never evicted.
    pub hard_pin: bool,
    /// What the bytes are.
    pub data_type: u8,
}

impl Object {
    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.replicas.first().map_or(0, |replica| replica.range.length())
    }

    /// Whether every replica is complete.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.replicas.iter().all(|replica| replica.complete)
    }

    /// What a reader finds.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let mut standing = Standing::Lost;
        for replica in &self.replicas {
            match replica.range.segment().status() {
                SegmentStatus::Gone => {}
                SegmentStatus::Awaiting => {
                    if standing == Standing::Lost {
                        standing = Standing::Awaiting;
                    }
                }
                _ if replica.complete => return Standing::Readable,
                _ => standing = Standing::Processing,
            }
        }
        standing
    }

    /// Whether a lease holds.
    #[must_use]
    pub fn leased(&self, now: Moment) -> bool {
        self.lease_until > now
    }

    /// Whether the soft pin holds.
    #[must_use]
    pub fn soft_pinned(&self, now: Moment) -> bool {
        self.soft_pin_until > now
    }

    /// Whether eviction may take it when its lease is over.
    #[must_use]
    pub fn evictable(&self) -> bool {
        !self.hard_pin && self.complete() && self.replicas.iter().any(Replica::readable)
    }

    /// The readable replicas, looked at once, since a segment may go while they are told. Those whose owner may be gone
    /// come last: a reader takes one of the first, and upstream's tries no other.
    #[must_use]
    pub fn readable(&self) -> SmallVec<[&Replica; 4]> {
        let mut readable: SmallVec<[&Replica; 4]> =
            self.replicas.iter().filter(|replica| replica.readable()).collect();
        if readable.len() > 1 {
            readable.sort_by_key(|replica| replica.range.segment().status().in_doubt());
        }
        readable
    }

    /// The readable replicas.
    #[must_use]
    pub fn describe(&self) -> Vec<model::Replica> {
        self.readable().into_iter().map(Replica::describe).collect()
    }

    /// Every replica, readable or not: what a writer is told.
    #[must_use]
    pub fn describe_all(&self) -> Vec<model::Replica> {
        self.replicas.iter().map(Replica::describe).collect()
    }

    /// Bytes of metadata an object with a key of this length costs: itself, its key, its place in the table.
    #[must_use]
    pub const fn cost_bytes(key_bytes: usize) -> u64 {
        // The table is between 7/16 and 7/8 full; the mean is taken.
        let place = size_of::<super::shard::Slot>() * 3 / 2;
        (size_of::<Self>() + key_bytes.next_multiple_of(16) + place) as u64
    }
}

//! What the master knows, and every rule about it. No sockets, no clock, no threads: each call takes the moment it
//! happens at, and is safe from any thread.
//!
//! # Parts
//!
//! - `pool`: clients and their segments; gives each call a `View` of the segments that take puts.
//! - `segment`, `extents`: the free space of a segment; a `Range` gives itself back when it is dropped.
//! - `shard`, `object`: the object table in shards; a key is hashed once.
//! - `batch`: how a batch goes through the shards.
//! - `choose`: which segments a new object goes to.
//! - `put`, `read`, `remove`, `evict`, `upkeep`: the calls, by what they do.
//!
//! # Locks
//!
//! In this order, each held for a moment only and never across I/O: eviction, shard, quarantine, `Segment::extents`,
//! journal buffer. Several shards are locked at once only by a batch that reads or ends puts, which waits
//! for none of them while it has another. The pool's lock is taken with none of them held.
//!
//! # Invariants
//!
//! - An object in the table has at least one replica. Its ranges are allocated as long as it exists, and are given
//!   back by dropping it, after the record of that was appended to the journal.
//! - A replica is readable only if it is complete and its segment is mounted.
//! - Nothing that holds a lease is evicted.

mod batch;
mod choose;
mod evict;
pub mod extents;
pub mod object;
pub mod pool;
mod put;
mod read;
mod remove;
mod restore;
pub mod segment;
pub mod shard;
mod upkeep;

use std::collections::BinaryHeap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::DefaultHashBuilder;
use mooncake_wire::model::{self, PingAnswer, Uuid};
use mooncake_wire::{ErrorCode, Outcome};
use parking_lot::{Mutex, MutexGuard};

use crate::journal::{Journal, Record};
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::policy::Policy;
use choose::Random;
pub use evict::Evicted;
use object::{Object, Replicas};
use pool::{Mounted, Pool};
pub use put::PutRequest;
pub use read::pattern;
use segment::{Segment, SegmentStatus};
use shard::{Locked, SHARDS, Shard};

/// A key with its hash.
#[derive(Debug, Clone, Copy)]
struct Hashed<'k> {
    hash: u64,
    key: &'k [u8],
}

impl Hashed<'_> {
    /// Number of the key's shard. The table inside uses the low bits and the top seven; these are others.
    fn shard(self) -> usize {
        usize::from((self.hash >> 40).to_le_bytes()[0])
    }
}

/// Space that nobody may use before a moment.
#[derive(Debug)]
struct Quarantined {
    until: Moment,
    object: u64,
    replicas: Replicas,
}

impl PartialEq for Quarantined {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Quarantined {}
impl PartialOrd for Quarantined {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quarantined {
    /// The soonest is the greatest, since the heap gives the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.until, other.object).cmp(&(self.until, self.object))
    }
}

/// What the master knows.
#[derive(Debug)]
pub struct State {
    policy: Policy,
    hasher: DefaultHashBuilder,
    shards: Vec<Locked>,
    pool: Pool,
    quarantine: Mutex<BinaryHeap<Quarantined>>,
    /// One eviction at a time.
    eviction: Mutex<()>,
    /// Counts evictions, so that a put knows whether another one made room meanwhile.
    eviction_epoch: AtomicU64,
    /// When an eviction may find something again.
    nothing_until: evict::NothingUntil,
    /// Sweeps that still have to search for replicas whose segment went.
    searches: AtomicU64,
    /// Of a segment that was ever lent: what an answer has to be able to say.
    longest_name: AtomicUsize,
    random: Random,
    journal: Option<Journal>,
    metrics: Arc<Metrics>,
    next_look: AtomicU64,
    next_sweep: AtomicU64,
}

/// The pool in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Bytes allocated in segments that are mounted.
    pub used_bytes: u64,
    /// Bytes of segments that are mounted.
    pub capacity_bytes: u64,
    /// Objects.
    pub objects: usize,
    /// Objects whose put has not ended.
    pub unfinished: usize,
    /// Objects that are soft-pinned.
    pub soft_pinned: usize,
    /// Bytes of metadata.
    pub metadata_bytes: u64,
}

impl State {
    /// An empty state.
    #[must_use]
    pub fn new(policy: Policy, journal: Option<Journal>, metrics: Arc<Metrics>) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0u64..).take(SHARDS).map(Locked::new).collect(),
            pool: Pool::default(),
            quarantine: Mutex::new(BinaryHeap::new()),
            eviction: Mutex::new(()),
            eviction_epoch: AtomicU64::new(0),
            nothing_until: evict::NothingUntil::default(),
            searches: AtomicU64::new(0),
            longest_name: AtomicUsize::new(0),
            random: Random::new(policy.seed),
            policy,
            journal,
            metrics,
            next_look: AtomicU64::new(0),
            next_sweep: AtomicU64::new(0),
        }
    }

    /// The settings.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The journal, if one is kept.
    #[must_use]
    pub const fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    fn hashed<'k>(&self, key: &'k [u8]) -> Hashed<'k> {
        Hashed { hash: self.hasher.hash_one(key), key }
    }

    /// The shard of a key.
    fn shard(&self, hashed: Hashed<'_>) -> MutexGuard<'_, Shard> {
        self.locked_at(hashed.shard()).lock()
    }

    /// The same, if nobody has it.
    fn try_shard(&self, hashed: Hashed<'_>) -> Option<MutexGuard<'_, Shard>> {
        self.locked_at(hashed.shard()).try_lock()
    }

    fn shard_at(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.locked_at(index).lock()
    }

    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the fixed number of shards")]
    fn locked_at(&self, index: usize) -> &Locked {
        &self.shards[index % SHARDS]
    }

    fn record(&self, record: &Record<'_>) {
        if let Some(journal) = &self.journal {
            journal.append(record);
        }
    }

    /// Writes what the calls so far have recorded. To be called before anything that changed the state is answered.
    pub fn flush(&self) {
        if let Some(journal) = &self.journal {
            journal.flush();
        }
    }

    /// Gives an object's space back, after the record of it.
    fn discard(&self, object: Box<Object>) {
        self.record(&Record::Dropped { id: object.id });
        drop(object);
    }

    /// Keeps an object's space from use until a moment. Its record of going comes then, so that a restarted master
    /// keeps the space as well.
    fn quarantine(&self, object: Object, until: Moment, now: Moment) {
        if until <= now {
            self.discard(Box::new(object));
            return;
        }
        let Object { id, replicas, .. } = object;
        self.quarantine.lock().push(Quarantined { until, object: id, replicas });
    }

    /// Lends a segment to the pool.
    ///
    /// # Errors
    /// `INVALID_PARAMS` if base or size is 0.
    pub fn mount(&self, segment: &model::Segment, client: Uuid, now: Moment) -> Outcome<()> {
        self.mount_all(std::slice::from_ref(segment), client, false, now)
    }

    /// Lends all segments of a client, after which the client is known.
    ///
    /// # Errors
    /// `INVALID_PARAMS` if base or size of one is 0; those before it are mounted.
    pub fn remount(&self, segments: &[model::Segment], client: Uuid, now: Moment) -> Outcome<()> {
        self.mount_all(segments, client, true, now)
    }

    fn mount_all(
        &self,
        segments: &[model::Segment],
        client: Uuid,
        remount: bool,
        now: Moment,
    ) -> Outcome<()> {
        self.may_be_told(segments.iter());
        let (changes, outcome) = self.pool.mount(segments, client, remount, now);
        for change in changes {
            match change {
                Mounted::New(segment) => {
                    log::info!(
                        "segment {} ({}, {} bytes) mounted by {client}",
                        segment.id,
                        segment.name,
                        segment.size
                    );
                    self.record(&Record::Mounted(segment.description(), client));
                }
                Mounted::Returned(segment) => {
                    log::info!("segment {} ({}) is back, with its objects", segment.id, segment.name);
                }
                Mounted::Replaced { old, new } => {
                    log::warn!("segment {} came back as another memory: its objects are gone", old.id);
                    self.segment_gone(&old);
                    self.record(&Record::Mounted(new.description(), client));
                }
                Mounted::Displaced(old) => {
                    log::warn!(
                        "segment {} ({}) is gone: another process has its engine's address and memory",
                        old.id,
                        old.name
                    );
                    self.segment_gone(&old);
                }
                Mounted::Same => {}
            }
        }
        outcome
    }

    /// Notes the names of segments before anybody can be told of them.
    fn may_be_told<'s>(&self, segments: impl Iterator<Item = &'s model::Segment>) {
        let longest = segments.map(|segment| segment.te_endpoint.len().max(segment.protocol.len())).max();
        self.longest_name.fetch_max(longest.unwrap_or(0), Ordering::AcqRel);
    }

    /// Length of the longest name that an answer may have to tell.
    #[must_use]
    pub fn longest_name(&self) -> usize {
        self.longest_name.load(Ordering::Acquire)
    }

    /// Takes a segment back. One that is not known is taken back already.
    ///
    /// # Errors
    /// None.
    pub fn unmount(&self, segment: Uuid, client: Uuid) -> Outcome<()> {
        if let Some(segment) = self.pool.unmount(segment, client) {
            log::info!("segment {} ({}) unmounted by {client}", segment.id, segment.name);
            self.segment_gone(&segment);
        }
        Ok(())
    }

    /// Takes a segment back after a time in which it takes no new puts.
    ///
    /// # Errors
    /// `INVALID_PARAMS` if the client lends no such segment, which is upstream's code for it.
    pub fn unmount_later(&self, segment: Uuid, client: Uuid, grace_ms: u64, now: Moment) -> Outcome<()> {
        self.pool.leave(segment, client, now.after_ms(grace_ms))
    }

    /// A heartbeat.
    pub fn ping(&self, client: Uuid, now: Moment) -> PingAnswer {
        self.pool.ping(client, now)
    }

    /// Notes that a client was heard on a connection, which has a number of its own. False if it is not known.
    pub fn heard_on(&self, client: Uuid, connection: u64) -> bool {
        self.pool.heard_on(client, connection)
    }

    /// Notes that a connection has closed on which these clients were heard.
    pub fn connection_closed(&self, connection: u64, clients: &[Uuid]) {
        for client in self.pool.closed(connection, clients) {
            self.metrics.clients_doubted.increment();
            log::info!(
                "client {client} has closed its last connection: puts pass its segments over until it is heard"
            );
        }
    }

    /// Drops every replica in a segment that is gone.
    fn segment_gone(&self, segment: &Arc<Segment>) {
        self.record(&Record::Unmounted(segment.id));
        for index in 0..SHARDS {
            let mut shard = self.shard_at(index);
            shard.drop_replicas_in(|candidate| Arc::ptr_eq(candidate, segment), drop);
        }
        // A put that began before can still join the table: two more sweeps outlast it.
        self.searches.store(2, Ordering::Release);
        let mut quarantine = self.quarantine.lock();
        let kept = std::mem::take(&mut *quarantine).into_iter().filter_map(|mut quarantined| {
            quarantined.replicas.retain(|replica| !Arc::ptr_eq(replica.range.segment(), segment));
            (!quarantined.replicas.is_empty()).then_some(quarantined)
        });
        *quarantine = kept.collect();
    }

    /// Every segment that is not gone.
    #[must_use]
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.pool.segments();
        segments.sort_unstable_by(|left, right| (&left.name, left.id).cmp(&(&right.name, right.id)));
        segments
    }

    /// Clients that have mounted everything they lend.
    #[must_use]
    pub fn active_clients(&self) -> usize {
        self.pool.active_clients()
    }

    /// State of the segments of this name, as upstream numbers it.
    ///
    /// # Errors
    /// `SEGMENT_NOT_FOUND`.
    pub fn segment_status(&self, name: &str) -> Outcome<SegmentStatus> {
        let segments = self.pool.segments();
        let status = segments.iter().filter(|segment| *segment.name == *name).map(|segment| segment.status());
        status.min_by_key(|status| status.upstream().0).ok_or(ErrorCode::SEGMENT_NOT_FOUND)
    }

    /// State of one segment.
    ///
    /// # Errors
    /// `SEGMENT_NOT_FOUND`.
    pub fn segment_status_by_id(&self, id: Uuid) -> Outcome<SegmentStatus> {
        self.pool.segment(id).map(|segment| segment.status()).ok_or(ErrorCode::SEGMENT_NOT_FOUND)
    }

    /// Hosts of each client's segments.
    #[must_use]
    pub fn hosts(&self, clients: &[Uuid]) -> Vec<(Uuid, Vec<String>)> {
        self.pool.hosts(clients)
    }

    /// Used bytes and capacity of the segments that are mounted.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        self.pool
            .segments()
            .iter()
            .filter(|segment| segment.serves())
            .fold((0, 0), |(used, capacity), segment| (used + segment.used_bytes(), capacity + segment.size))
    }

    /// Bytes of metadata.
    #[must_use]
    pub fn metadata_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().metadata_bytes()).sum()
    }

    /// Bytes that nobody may use before a moment: of replaced objects that somebody may still write or read.
    #[must_use]
    pub fn quarantined_bytes(&self) -> u64 {
        let quarantine = self.quarantine.lock();
        quarantine.iter().flat_map(|space| &space.replicas).map(|replica| replica.range.length()).sum()
    }

    /// Objects that were removed, evicted or lost so far.
    #[must_use]
    pub fn removed_objects(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().removed()).sum()
    }

    /// The pool in numbers.
    #[must_use]
    pub fn totals(&self, now: Moment) -> Totals {
        let (used_bytes, capacity_bytes) = self.usage();
        let mut totals = Totals { used_bytes, capacity_bytes, ..Totals::default() };
        for shard in &self.shards {
            let shard = shard.lock();
            totals.objects += shard.len();
            totals.unfinished += shard.processing();
            totals.metadata_bytes += shard.metadata_bytes();
            if shard.has_soft_pins() {
                totals.soft_pinned += shard.iter().filter(|object| object.soft_pinned(now)).count();
            }
        }
        totals
    }
}

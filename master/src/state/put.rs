//! Puts: allocate, write, make readable; and upserts, which do so for an object that may exist.

use std::sync::Arc;

use mooncake_wire::lists::Entries;
use mooncake_wire::model::{self, ObjectMeta, ReplicaType, ReplicateConfig, SoftPinAction, Uuid};
use mooncake_wire::{ErrorCode, Outcome};
use smallvec::SmallVec;

use super::choose::{Choice, Dice};
use super::evict::Reach;
use super::object::{Object, Replica, Replicas, Standing};
use super::pool::View;
use super::segment::Range;
use super::shard::Shard;
use super::{Hashed, State};
use crate::journal::Record;
use crate::metrics::Sizes;
use crate::moment::Moment;

/// Evictions after which one put gives up: each takes a fraction of the objects, the oldest first, and the longest free
/// range may still be too short after the first. Another's that ran while the put looked for space counts as one of its
/// own. Where clients are in doubt there is one more, which takes from those.
const MAX_EVICTIONS_PER_PUT: usize = 8;
/// Longest key that is stored: far above any hash, and a bound on what one object costs.
const MAX_KEY_BYTES: usize = 64 << 10;
/// Most replicas of one object.
const MAX_REPLICAS: u64 = 64;
/// Most bytes of the metadata budget that a batch takes for granted: as much as all may pass it by that run at once,
/// each.
const MAX_ROOM_BYTES: u64 = 1 << 20;

/// What a put does about an object that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Put,
    Upsert,
}

/// The pins of an object that an upsert replaces: they are the key's, not the value's.
#[derive(Debug, Clone, Copy, Default)]
struct Pins {
    soft_ttl_ms: u64,
    soft_until: Moment,
    hard: bool,
}

/// What stands in the place of a key.
enum Way {
    /// Nothing.
    Clear,
    /// Nothing any more.
    Replaced(Pins),
    /// The object itself, to be written again; that was told.
    Reopened,
}

/// Bytes of the metadata budget that a batch knows to be free, so that it does not sum up all shards for each key.
#[derive(Debug, Default)]
struct Room(u64);

/// What the puts of one batch share.
struct Batch<'b> {
    mode: Mode,
    request: &'b PutRequest<'b>,
    /// The segments that take puts.
    view: Arc<View>,
    dice: Dice,
    /// The name of the first key's segment, where the others are to be near it.
    same_node: Option<Arc<str>>,
    /// Whether this is the first key's turn.
    first: bool,
    room: Room,
    /// Of the objects that were made.
    sizes: Sizes,
}

/// Who is told what came of each put of a batch, in order. The shard of the object is locked meanwhile.
trait Told {
    fn started(&mut self, object: &Object);
    fn refused(&mut self, code: ErrorCode);
}

impl Told for Vec<Outcome<Vec<model::Replica>>> {
    fn started(&mut self, object: &Object) {
        self.push(Ok(object.describe_all()));
    }
    fn refused(&mut self, code: ErrorCode) {
        self.push(Err(code));
    }
}

impl Told for Entries<'_> {
    fn started(&mut self, object: &Object) {
        self.replicas(object.replicas.iter().map(Replica::tell));
    }
    fn refused(&mut self, code: ErrorCode) {
        self.error(code);
    }
}

/// The answer of a batch of one.
fn only(start: impl FnOnce(&mut Vec<Outcome<Vec<model::Replica>>>)) -> Outcome<Vec<model::Replica>> {
    let mut told = Vec::with_capacity(1);
    start(&mut told);
    told.pop().unwrap_or(Err(ErrorCode::INTERNAL_ERROR))
}

/// What a put asks for, the same for every key of a batch.
#[derive(Debug, Clone, Copy)]
pub struct PutRequest<'r> {
    /// Who writes.
    pub client: Uuid,
    /// How the object is to be stored.
    pub config: &'r ReplicateConfig,
    /// Now.
    pub now: Moment,
}

impl PutRequest<'_> {
    fn check(&self, state: &State) -> Outcome<()> {
        let config = self.config;
        if config.replica_num == 0 || config.replica_num > MAX_REPLICAS {
            let other = config.nof_replica_num > 0 || config.dfs_replica_num > 0;
            return Err(if other {
                ErrorCode::UNAVAILABLE_IN_CURRENT_MODE
            } else {
                ErrorCode::INVALID_PARAMS
            });
        }
        match config.soft_pin_ttl_ms {
            Some(_) if config.soft_pin_action != SoftPinAction::Enable => Err(ErrorCode::INVALID_PARAMS),
            Some(ttl) if ttl > state.policy.max_soft_pin_ttl_ms => Err(ErrorCode::INVALID_PARAMS),
            _ => Ok(()),
        }
    }

    fn soft_pin_ttl_ms(&self, state: &State) -> u64 {
        match self.config.soft_pin_action {
            SoftPinAction::Enable => self.config.soft_pin_ttl_ms.unwrap_or(state.policy.soft_pin_ttl_ms),
            SoftPinAction::Preserve | SoftPinAction::Disable => 0,
        }
    }
}

impl State {
    /// Allocates space for a new object.
    ///
    /// # Errors
    /// `INVALID_PARAMS`, `OBJECT_ALREADY_EXISTS`, `NO_AVAILABLE_HANDLE`.
    pub fn put_start(
        &self,
        request: &PutRequest<'_>,
        key: &[u8],
        length: u64,
    ) -> Outcome<Vec<model::Replica>> {
        only(|told| self.start_all(Mode::Put, request, &[key], &[length], told))
    }

    /// Allocates space for many new objects; one answer for each.
    pub fn batch_put_start(
        &self,
        request: &PutRequest<'_>,
        keys: &[&[u8]],
        lengths: &[u64],
    ) -> Vec<Outcome<Vec<model::Replica>>> {
        let mut told = Vec::with_capacity(keys.len());
        self.start_all(Mode::Put, request, keys, lengths, &mut told);
        told
    }

    /// `batch_put_start`, and tells the answers.
    pub fn tell_put_start(
        &self,
        request: &PutRequest<'_>,
        keys: &[&[u8]],
        lengths: &[u64],
        entries: &mut Entries<'_>,
    ) {
        self.start_all(Mode::Put, request, keys, lengths, entries);
    }

    /// Allocates space for a new value of an object that may exist.
    ///
    /// # Errors
    /// `INVALID_PARAMS`, `NO_AVAILABLE_HANDLE`.
    pub fn upsert_start(
        &self,
        request: &PutRequest<'_>,
        key: &[u8],
        length: u64,
    ) -> Outcome<Vec<model::Replica>> {
        only(|told| self.start_all(Mode::Upsert, request, &[key], &[length], told))
    }

    /// `upsert_start` of many, and tells the answers.
    pub fn tell_upsert_start(
        &self,
        request: &PutRequest<'_>,
        keys: &[&[u8]],
        lengths: &[u64],
        entries: &mut Entries<'_>,
    ) {
        self.start_all(Mode::Upsert, request, keys, lengths, entries);
    }

    fn start_all(
        &self,
        mode: Mode,
        request: &PutRequest<'_>,
        keys: &[&[u8]],
        lengths: &[u64],
        told: &mut impl Told,
    ) {
        let groups = request.config.group_ids.as_deref();
        let shapes = keys.len() == lengths.len() && groups.is_none_or(|groups| groups.len() == keys.len());
        if let Err(code) = if shapes { request.check(self) } else { Err(ErrorCode::INVALID_PARAMS) } {
            keys.iter().for_each(|_| told.refused(code));
            return;
        }
        let mut batch = Batch {
            mode,
            request,
            view: self.pool.view(),
            dice: self.random.dice(),
            same_node: None,
            first: true,
            room: Room::default(),
            sizes: Sizes::default(),
        };
        let mut groups = groups.unwrap_or_default().iter();
        let mut lengths = lengths.iter().copied();
        self.each_hashed(keys, |hashed| {
            let group = groups.next().filter(|group| !group.is_empty());
            let length = lengths.next().unwrap_or(0);
            let started = self
                .admit(hashed.key.len(), &mut batch.room, request.now)
                .and_then(|()| self.start(&mut batch, hashed, length, group, told));
            batch.first = false;
            if let Err(code) = started {
                told.refused(code);
            }
        });
        self.metrics.values(&batch.sizes);
    }

    /// Starts one put, and tells what came of it if it is not an error.
    fn start(
        &self,
        batch: &mut Batch<'_>,
        hashed: Hashed<'_>,
        length: u64,
        group: Option<&String>,
        told: &mut impl Told,
    ) -> Outcome<()> {
        if hashed.key.is_empty() || hashed.key.len() > MAX_KEY_BYTES || length == 0 {
            return Err(ErrorCode::INVALID_PARAMS);
        }
        let request = batch.request;
        let choice = Choice {
            view: &batch.view,
            config: request.config,
            same_node: batch.same_node.as_deref(),
            policy: &self.policy,
            dice: &batch.dice,
            now: request.now,
        };
        let wanted = request.config.replica_num;
        let mut pins = Pins::default();
        // A segment whose owner may be gone is better than many evictions, but not better than one: who is sent to it
        // may find nobody.
        let mut in_doubt = false;
        let mut evictions = 0;
        loop {
            let epoch = self.eviction_epoch();
            {
                let mut shard = self.shard(hashed);
                match self.make_way(batch.mode, request, &mut shard, hashed, length, told)? {
                    Way::Clear => {}
                    Way::Replaced(old) => pins = old,
                    Way::Reopened => return Ok(()),
                }
                let mut ranges = choice.allocate(length);
                if ranges.is_empty()
                    && in_doubt
                    && let Some(doubtful) = batch.view.doubtful.as_deref()
                {
                    ranges = Choice { view: doubtful, ..choice }.allocate(length);
                }
                if let Some(first) = ranges.first() {
                    if (ranges.len() as u64) < wanted {
                        self.metrics.put_partial_allocations.increment();
                    }
                    if batch.first && request.config.prefer_alloc_in_same_node {
                        batch.same_node = Some(Arc::clone(&first.segment().name));
                    }
                    let object = self.new_object(request, &mut shard, hashed, ranges, group, pins);
                    if self.journal.is_some() {
                        self.record(&Record::Object(object.record()));
                    }
                    told.started(shard.add(hashed.hash, object));
                    batch.sizes.add(length);
                    return Ok(());
                }
            }
            // What lies with clients in doubt goes last, and only if that can help.
            let doubtful = batch.view.doubtful.as_deref();
            let may = |view: &View, most: usize| evictions < most && view.has_segment_of(length);
            let evicted = |reach| self.evict_for_put(reach, request.now, epoch);
            if may(&batch.view, MAX_EVICTIONS_PER_PUT) && evicted(Reach::Mounted) {
                evictions += 1;
            } else if in_doubt {
                let helps = doubtful.is_some_and(|view| may(view, MAX_EVICTIONS_PER_PUT + 1));
                if !helps || !evicted(Reach::InDoubtToo) {
                    break;
                }
                evictions += 1;
            } else if doubtful.is_none() {
                break;
            }
            in_doubt = doubtful.is_some();
        }
        self.metrics.put_alloc_failures.increment();
        Err(ErrorCode::NO_AVAILABLE_HANDLE)
    }

    /// Keeps the metadata under its budget: evicts, and refuses if that is not enough.
    fn admit(&self, key_bytes: usize, room: &mut Room, now: Moment) -> Outcome<()> {
        let budget = self.policy.metadata_budget_bytes;
        if budget == 0 {
            return Ok(());
        }
        let cost = Object::cost_bytes(key_bytes);
        for attempt in 0..=MAX_EVICTIONS_PER_PUT {
            let epoch = self.eviction_epoch();
            if room.0 < cost {
                room.0 = budget.saturating_sub(self.metadata_bytes()).min(MAX_ROOM_BYTES);
            }
            if let Some(left) = room.0.checked_sub(cost) {
                room.0 = left;
                return Ok(());
            }
            if attempt == MAX_EVICTIONS_PER_PUT || !self.evict_for_put(Reach::Everything, now, epoch) {
                break;
            }
        }
        self.metrics.put_alloc_failures.increment();
        Err(ErrorCode::NO_AVAILABLE_HANDLE)
    }

    fn new_object(
        &self,
        request: &PutRequest<'_>,
        shard: &mut Shard,
        hashed: Hashed<'_>,
        ranges: SmallVec<[Range; 1]>,
        group: Option<&String>,
        pins: Pins,
    ) -> Box<Object> {
        let preserve = request.config.soft_pin_action == SoftPinAction::Preserve;
        let replicas: Replicas =
            ranges.into_iter().map(|range| Replica { id: shard.new_id(), range, complete: false }).collect();
        Box::new(Object {
            key: hashed.key.into(),
            id: replicas.first().map_or(0, |replica| replica.id),
            owner: request.client,
            put_started: request.now,
            lease_until: Moment::NEVER,
            soft_pin_until: if preserve { pins.soft_until } else { Moment::NEVER },
            soft_pin_ttl_ms: if preserve { pins.soft_ttl_ms } else { request.soft_pin_ttl_ms(self) },
            checksum: None,
            group: group.map(|group| group.as_str().into()),
            replicas,
            hard_pin: request.config.with_hard_pin || pins.hard,
            data_type: request.config.data_type,
        })
    }

    /// Clears the place of a key, or says why it is taken. An upsert of the same length reopens the object in its
    /// place, unless somebody may be reading it.
    fn make_way(
        &self,
        mode: Mode,
        request: &PutRequest<'_>,
        shard: &mut Shard,
        hashed: Hashed<'_>,
        length: u64,
        told: &mut impl Told,
    ) -> Outcome<Way> {
        let now = request.now;
        let Some(object) = shard.get(hashed.hash, hashed.key) else {
            return Ok(Way::Clear);
        };
        let standing = object.standing();
        match (standing, mode) {
            (Standing::Readable, Mode::Put) => return Err(ErrorCode::OBJECT_ALREADY_EXISTS),
            (Standing::Processing, Mode::Put)
                if now.since_ms(object.put_started) < self.policy.put_discard_ms =>
            {
                return Err(ErrorCode::OBJECT_ALREADY_EXISTS);
            }
            _ => {}
        }
        let in_place = standing == Standing::Readable
            && object.complete()
            && !object.leased(now)
            && object.length() == length
            && object.replicas.iter().all(Replica::readable);
        if mode == Mode::Upsert && in_place {
            self.reopen(request, shard, hashed, told);
            return Ok(Way::Reopened);
        }
        let Some(object) = shard.remove(hashed.hash, hashed.key) else {
            return Ok(Way::Clear);
        };
        let pins = Pins {
            soft_ttl_ms: object.soft_pin_ttl_ms,
            soft_until: object.soft_pin_until,
            hard: object.hard_pin,
        };
        self.set_aside(*object, now);
        Ok(if mode == Mode::Upsert { Way::Replaced(pins) } else { Way::Clear })
    }

    fn reopen(&self, request: &PutRequest<'_>, shard: &mut Shard, hashed: Hashed<'_>, told: &mut impl Told) {
        shard.settle(hashed.hash, hashed.key, |object| {
            for replica in &mut object.replicas {
                replica.complete = false;
            }
            object.owner = request.client;
            object.put_started = request.now;
            object.checksum = None;
            if request.config.soft_pin_action != SoftPinAction::Preserve {
                object.soft_pin_ttl_ms = request.soft_pin_ttl_ms(self);
                object.soft_pin_until = Moment::NEVER;
            }
            self.record(&Record::Reopened { id: object.id, owner: object.owner });
            told.started(object);
        });
    }

    /// Takes an object out of use whose bytes somebody may still touch: its writer, or a reader with a lease.
    fn set_aside(&self, object: Object, now: Moment) {
        let writing = object.replicas.iter().any(|replica| !replica.complete);
        let until = if writing {
            self.metrics.puts_discarded.increment();
            object.put_started.after_ms(self.policy.put_release_ms)
        } else {
            object.lease_until
        };
        self.quarantine(object, until, now);
    }

    /// Makes an object readable.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `ILLEGAL_CLIENT`, `INVALID_WRITE`.
    pub fn put_end(
        &self,
        client: Uuid,
        object: &ObjectMeta<'_>,
        kind: ReplicaType,
        now: Moment,
    ) -> Outcome<()> {
        let hashed = self.hashed(object.key);
        self.end(&mut self.shard(hashed), client, hashed, object.checksum, kind, now)
    }

    /// `put_end` of many, and tells the answers.
    pub fn tell_put_end(
        &self,
        client: Uuid,
        objects: &[ObjectMeta<'_>],
        kind: ReplicaType,
        now: Moment,
        entries: &mut Entries<'_>,
    ) {
        let keys: Vec<&[u8]> = objects.iter().map(|object| object.key).collect();
        let mut checksums = objects.iter().map(|object| object.checksum);
        self.each_locked(&keys, |hashed, shard| {
            match self.end(shard, client, hashed, checksums.next().flatten(), kind, now) {
                Ok(()) => entries.done(),
                Err(code) => entries.error(code),
            }
        });
    }

    fn end(
        &self,
        shard: &mut Shard,
        client: Uuid,
        hashed: Hashed<'_>,
        checksum: Option<u64>,
        kind: ReplicaType,
        now: Moment,
    ) -> Outcome<()> {
        let ended = shard.settle(hashed.hash, hashed.key, |known| {
            if !Self::may_settle(known, client, kind)? {
                return Ok(());
            }
            match known.standing() {
                Standing::Readable => return Ok(()),
                Standing::Processing => {}
                Standing::Awaiting | Standing::Lost => return Err(ErrorCode::OBJECT_NOT_FOUND),
            }
            for replica in &mut known.replicas {
                replica.complete = true;
            }
            known.checksum = checksum;
            known.lease_until = now;
            if known.soft_pin_ttl_ms > 0 && known.soft_pin_until == Moment::NEVER {
                known.soft_pin_until = now.after_ms(known.soft_pin_ttl_ms);
            }
            self.record(&Record::Completed { id: known.id, checksum });
            Ok(())
        });
        ended.unwrap_or(Err(ErrorCode::OBJECT_NOT_FOUND))
    }

    /// Gives up a put.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `ILLEGAL_CLIENT`, `INVALID_WRITE`.
    pub fn put_revoke(&self, client: Uuid, key: &[u8], kind: ReplicaType) -> Outcome<()> {
        let hashed = self.hashed(key);
        let mut shard = self.shard(hashed);
        let known = shard.get(hashed.hash, key).ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        if !Self::may_settle(known, client, kind)? {
            return Ok(());
        }
        if known.complete() {
            return Err(ErrorCode::INVALID_WRITE);
        }
        if let Some(object) = shard.remove(hashed.hash, key) {
            self.discard(object);
        }
        Ok(())
    }

    /// Whether there is anything to end or to revoke: an object has replicas in memory only, and of other kinds none,
    /// which upstream takes for all of them.
    fn may_settle(object: &Object, client: Uuid, kind: ReplicaType) -> Outcome<bool> {
        if object.owner != client {
            return Err(ErrorCode::ILLEGAL_CLIENT);
        }
        Ok(kind == ReplicaType::ALL || kind == ReplicaType::MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::policy::Policy;

    #[test]
    fn of_the_metadata_budget_a_batch_takes_a_little_at_a_time() {
        let policy = Policy { metadata_budget_bytes: 1 << 30, ..Policy::default() };
        let state = State::new(policy, None, Arc::new(Metrics::default()));
        let mut room = Room::default();
        for _ in 0..10_000 {
            state.admit(100, &mut room, Moment(0)).unwrap();
            assert!(room.0 < MAX_ROOM_BYTES, "others that run at once would take as much");
        }
    }
}

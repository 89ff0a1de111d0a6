//! Puts: allocate, write, make readable; and upserts, which do so for an object that may exist.

use std::sync::Arc;

use mooncake_wire::model::{self, ObjectMeta, ReplicaType, ReplicateConfig, SoftPinAction, Uuid};
use mooncake_wire::{ErrorCode, Outcome};
use smallvec::SmallVec;

use super::choose::Choice;
use super::object::{Object, Replica, Replicas, Standing};
use super::pool::View;
use super::segment::Range;
use super::shard::Shard;
use super::{Hashed, State};
use crate::journal::Record;
use crate::moment::Moment;

/// Evictions one put runs before it gives up: each takes a fraction of the objects, the oldest first, and the longest
/// free range may still be too short after the first.
const MAX_EVICTIONS_PER_PUT: usize = 8;
/// Longest key that is stored: far above any hash, and a bound on what one object costs.
const MAX_KEY_BYTES: usize = 64 << 10;
/// Most replicas of one object.
const MAX_REPLICAS: u64 = 64;

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
    /// The object itself, to be written again.
    Reopened(Vec<model::Replica>),
}

/// Bytes of the metadata budget that a batch knows to be free, so that it does not sum up all shards for each key.
#[derive(Debug, Default)]
struct Room(u64);

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
        self.start_all(Mode::Put, request, &[key], &[length]).pop().unwrap_or(Err(ErrorCode::INTERNAL_ERROR))
    }

    /// Allocates space for many new objects; one answer for each.
    pub fn batch_put_start(
        &self,
        request: &PutRequest<'_>,
        keys: &[&[u8]],
        lengths: &[u64],
    ) -> Vec<Outcome<Vec<model::Replica>>> {
        self.start_all(Mode::Put, request, keys, lengths)
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
        self.start_all(Mode::Upsert, request, &[key], &[length])
            .pop()
            .unwrap_or(Err(ErrorCode::INTERNAL_ERROR))
    }

    /// `upsert_start` of many; one answer for each.
    pub fn batch_upsert_start(
        &self,
        request: &PutRequest<'_>,
        keys: &[&[u8]],
        lengths: &[u64],
    ) -> Vec<Outcome<Vec<model::Replica>>> {
        self.start_all(Mode::Upsert, request, keys, lengths)
    }

    fn start_all(
        &self,
        mode: Mode,
        request: &PutRequest<'_>,
        keys: &[&[u8]],
        lengths: &[u64],
    ) -> Vec<Outcome<Vec<model::Replica>>> {
        let groups = request.config.group_ids.as_deref();
        let shapes = keys.len() == lengths.len() && groups.is_none_or(|groups| groups.len() == keys.len());
        if let Err(code) = if shapes { request.check(self) } else { Err(ErrorCode::INVALID_PARAMS) } {
            return keys.iter().map(|_| Err(code)).collect();
        }
        let view = self.pool.view();
        let mut same_node: Option<Arc<str>> = None;
        let mut room = Room::default();
        keys.iter()
            .zip(lengths)
            .enumerate()
            .map(|(index, (key, length))| {
                let group = groups.and_then(|groups| groups.get(index)).filter(|group| !group.is_empty());
                self.admit(key.len(), &mut room, request.now)?;
                let started =
                    self.start(mode, request, &view, self.hashed(key), *length, group, same_node.as_deref())?;
                if index == 0 && request.config.prefer_alloc_in_same_node {
                    same_node = started.1;
                }
                Ok(started.0)
            })
            .collect()
    }

    /// Starts one put; also answers the name of the segment of its first replica.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, of which a batch shares most")]
    fn start(
        &self,
        mode: Mode,
        request: &PutRequest<'_>,
        view: &View,
        hashed: Hashed<'_>,
        length: u64,
        group: Option<&String>,
        same_node: Option<&str>,
    ) -> Outcome<(Vec<model::Replica>, Option<Arc<str>>)> {
        if hashed.key.is_empty() || hashed.key.len() > MAX_KEY_BYTES || length == 0 {
            return Err(ErrorCode::INVALID_PARAMS);
        }
        let mut choice = Choice {
            view,
            config: request.config,
            same_node,
            policy: &self.policy,
            random: &self.random,
            now: request.now,
        };
        let wanted = request.config.replica_num;
        let mut pins = Pins::default();
        for attempt in 0..=MAX_EVICTIONS_PER_PUT + 1 {
            let epoch = self.eviction_epoch();
            {
                let mut shard = self.shard(hashed);
                match self.make_way(mode, request, &mut shard, hashed, length)? {
                    Way::Clear => {}
                    Way::Replaced(old) => pins = old,
                    Way::Reopened(replicas) => return Ok((replicas, None)),
                }
                let ranges = choice.allocate(length);
                if !ranges.is_empty() {
                    if (ranges.len() as u64) < wanted {
                        self.metrics.put_partial_allocations.increment();
                    }
                    let name = ranges.first().map(|range| Arc::clone(&range.segment().name));
                    let object = self.new_object(request, hashed, ranges, group, pins);
                    let replicas = object.describe_all();
                    if self.journal.is_some() {
                        self.record(&Record::Object(object.record()));
                    }
                    if let Some(old) = shard.insert(hashed.hash, object) {
                        self.discard(old);
                    }
                    self.metrics.value(length);
                    return Ok((replicas, name));
                }
            }
            let fits =
                view.names.iter().flat_map(|named| &named.segments).any(|segment| segment.size >= length);
            if !fits || attempt >= MAX_EVICTIONS_PER_PUT || !self.evict_for_put(request.now, epoch) {
                // A segment whose owner may be gone is better than none.
                match view.doubtful.as_deref() {
                    Some(doubtful) if !std::ptr::eq(choice.view, doubtful) => choice.view = doubtful,
                    _ => break,
                }
            }
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
                room.0 = budget.saturating_sub(self.metadata_bytes());
            }
            if let Some(left) = room.0.checked_sub(cost) {
                room.0 = left;
                return Ok(());
            }
            if attempt == MAX_EVICTIONS_PER_PUT || !self.evict_for_put(now, epoch) {
                break;
            }
        }
        self.metrics.put_alloc_failures.increment();
        Err(ErrorCode::NO_AVAILABLE_HANDLE)
    }

    fn new_object(
        &self,
        request: &PutRequest<'_>,
        hashed: Hashed<'_>,
        ranges: SmallVec<[Range; 1]>,
        group: Option<&String>,
        pins: Pins,
    ) -> Box<Object> {
        let preserve = request.config.soft_pin_action == SoftPinAction::Preserve;
        let replicas: Replicas =
            ranges.into_iter().map(|range| Replica { id: self.new_id(), range, complete: false }).collect();
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
            return Ok(Way::Reopened(self.reopen(request, shard, hashed)));
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

    fn reopen(&self, request: &PutRequest<'_>, shard: &mut Shard, hashed: Hashed<'_>) -> Vec<model::Replica> {
        let mut replicas = Vec::new();
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
            replicas = object.describe_all();
        });
        replicas
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
        let mut shard = self.shard(hashed);
        let known = shard.get(hashed.hash, hashed.key).ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        Self::check_writer(known, client, kind)?;
        match known.standing() {
            Standing::Readable => return Ok(()),
            Standing::Processing => {}
            Standing::Awaiting | Standing::Lost => return Err(ErrorCode::OBJECT_NOT_FOUND),
        }
        shard.settle(hashed.hash, hashed.key, |known| {
            for replica in &mut known.replicas {
                replica.complete = true;
            }
            known.checksum = object.checksum;
            known.lease_until = now;
            if known.soft_pin_ttl_ms > 0 && known.soft_pin_until == Moment::NEVER {
                known.soft_pin_until = now.after_ms(known.soft_pin_ttl_ms);
            }
            self.record(&Record::Completed { id: known.id, checksum: object.checksum });
        });
        Ok(())
    }

    /// Gives up a put.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `ILLEGAL_CLIENT`, `INVALID_WRITE`.
    pub fn put_revoke(&self, client: Uuid, key: &[u8], kind: ReplicaType) -> Outcome<()> {
        let hashed = self.hashed(key);
        let mut shard = self.shard(hashed);
        let known = shard.get(hashed.hash, key).ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        Self::check_writer(known, client, kind)?;
        if known.complete() {
            return Err(ErrorCode::INVALID_WRITE);
        }
        if let Some(object) = shard.remove(hashed.hash, key) {
            self.discard(object);
        }
        Ok(())
    }

    fn check_writer(object: &Object, client: Uuid, kind: ReplicaType) -> Outcome<()> {
        if object.owner != client {
            return Err(ErrorCode::ILLEGAL_CLIENT);
        }
        // Only replicas in memory exist here.
        if kind == ReplicaType::ALL || kind == ReplicaType::MEMORY {
            Ok(())
        } else {
            Err(ErrorCode::INVALID_WRITE)
        }
    }
}

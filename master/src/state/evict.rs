//! Eviction: near-LRU by the end of the last lease, with groups, soft and hard pins.
//!
//! One eviction takes a fraction of the evictable objects, as upstream counts it: the target is the larger of the
//! ratio and what brings use back under the watermark. Pass 1 takes the oldest objects without a lease and without a
//! soft pin; pass 2, only if fewer than the lower bound were taken, soft-pinned ones, oldest first, where that is
//! allowed. All objects that are as old as the last one taken go with it. A group is one unit: it is as young as its
//! youngest member, and goes whole.
//!
//! Unlike upstream's, a put that finds no space evicts within its own call. It takes only what gives space where puts
//! go: an object whose owners are all in doubt, or silent, would be lost for nothing. Only a put that goes to clients
//! in doubt, because the others have nothing left to give, takes what lies with those, too; with silent ones never. (A
//! group has space there if one of its members has.)

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::object::{Object, Replica};
use super::segment::SegmentStatus;
use super::{SHARDS, State};
use crate::moment::Moment;

/// Pause after an eviction that found nothing, in milliseconds, and the objects looked at that make it one longer.
const SEARCH_PAUSE_MS: u64 = 10;
const OBJECTS_PER_PAUSE_MS: u64 = 5000;

/// What one eviction took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evicted {
    /// Objects.
    pub objects: usize,
    /// Bytes of their replicas.
    pub bytes: u64,
}

/// A unit of eviction: an object by itself, or a group.
#[derive(Debug, Clone, Copy)]
struct Unit {
    lease_until: Moment,
    soft_pinned: bool,
    members: usize,
    /// Whether the end of a member serves what the eviction is for.
    useful: bool,
}

impl Unit {
    const fn of(object: &Object, now: Moment) -> Self {
        Self {
            lease_until: object.lease_until,
            soft_pinned: object.soft_pin_until.0 > now.0,
            members: 1,
            useful: true,
        }
    }

    fn join(&mut self, other: Self) {
        self.lease_until = self.lease_until.max(other.lease_until);
        self.soft_pinned |= other.soft_pinned;
        self.members += other.members;
        self.useful |= other.useful;
    }
}

/// From where an eviction takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reach {
    /// The pool as a whole: for its fill, or its metadata.
    #[default]
    Everything,
    /// The segments that take puts.
    Mounted,
    /// Those, and the ones whose client is in doubt: for a put that found no space in the others.
    InDoubtToo,
}

impl Reach {
    /// Whether an object's end gives space there.
    fn takes(self, object: &Object) -> bool {
        let there = |replica: &Replica| match replica.range.segment().status() {
            SegmentStatus::Mounted => true,
            SegmentStatus::Doubtful => self == Self::InDoubtToo,
            _ => false,
        };
        self == Self::Everything || object.replicas.iter().any(there)
    }
}

/// For each reach, the moment before which nothing is to be found there.
#[derive(Debug, Default)]
pub(super) struct NothingUntil {
    everything: AtomicU64,
    mounted: AtomicU64,
    in_doubt_too: AtomicU64,
}

impl NothingUntil {
    const fn of(&self, reach: Reach) -> &AtomicU64 {
        match reach {
            Reach::Everything => &self.everything,
            Reach::Mounted => &self.mounted,
            Reach::InDoubtToo => &self.in_doubt_too,
        }
    }
}

/// Everything that may be evicted, as it stood when it was looked at.
#[derive(Debug, Default)]
struct Census {
    reach: Reach,
    /// Objects that were looked at, which is what a census costs.
    seen: usize,
    alone: Vec<Unit>,
    groups: HashMap<Arc<str>, Unit>,
}

impl Census {
    fn objects(&self) -> usize {
        self.alone.len() + self.groups.values().map(|unit| unit.members).sum::<usize>()
    }

    /// The latest lease end such that the expired units of one kind up to it have at least `wanted` members.
    fn cutoff(&self, soft_pinned: bool, wanted: usize, now: Moment) -> Option<Moment> {
        let mut ages: Vec<(Moment, usize)> = self
            .alone
            .iter()
            .chain(self.groups.values())
            .filter(|unit| unit.lease_until <= now && unit.soft_pinned == soft_pinned)
            .map(|unit| (unit.lease_until, unit.members))
            .collect();
        if wanted == 0 || ages.is_empty() {
            return None;
        }
        let alone = self.groups.is_empty();
        if alone {
            // Every unit counts one: the order of the others does not matter.
            let last = wanted.min(ages.len()) - 1;
            return Some(ages.select_nth_unstable(last).1.0);
        }
        ages.sort_unstable();
        let mut members = 0;
        ages.iter()
            .find(|(_, count)| {
                members += count;
                members >= wanted
            })
            .or(ages.last())
            .map(|(age, _)| *age)
    }
}

fn part(fraction: f64, count: usize) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "a count of objects is far below 2^52")]
    let exact = (fraction * count as f64).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=count")]
    let whole = exact.max(0.0) as usize;
    whole.min(count)
}

impl State {
    /// How full the pool is, from 0 to 1.
    fn fill(&self) -> f64 {
        let (used, capacity) = self.usage();
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let ratio = used as f64 / capacity.max(1) as f64;
        ratio
    }

    /// Evicts if the pool is above the watermark, or the metadata is near its budget.
    pub fn evict_if_needed(&self, now: Moment) -> Evicted {
        let over_budget = self.policy.metadata_budget_bytes > 0
            && self.metadata_bytes() / 10 > self.policy.metadata_budget_bytes / 10 / 20 * 19;
        if over_budget || self.fill() > self.policy.eviction_high_watermark {
            let _one = self.eviction.lock();
            self.evict(Reach::Everything, now)
        } else {
            Evicted::default()
        }
    }

    /// Evicts for a put that found no room within that reach. False if there is nothing to hope for: nothing was evicted
    /// there by this call, nor anywhere by another since `epoch`, which may have made the room as well.
    pub(super) fn evict_for_put(&self, reach: Reach, now: Moment, epoch: u64) -> bool {
        if self.policy.eviction_ratio <= 0.0 {
            return false;
        }
        let _one = self.eviction.lock();
        if self.eviction_epoch() != epoch {
            // Somebody else evicted while this put looked for space: look again first.
            return true;
        }
        self.metrics.evictions_in_put.increment();
        self.evict(reach, now).objects > 0
    }

    pub(super) fn eviction_epoch(&self) -> u64 {
        self.eviction_epoch.load(Ordering::Acquire)
    }

    fn evict(&self, reach: Reach, now: Moment) -> Evicted {
        self.metrics.evictions_attempted.increment();
        self.release_quarantined(now);
        let nothing_until = self.nothing_until.of(reach);
        if now.0 < nothing_until.load(Ordering::Acquire) {
            return Evicted::default();
        }
        let over = self.fill() - self.policy.eviction_high_watermark;
        let ratio = self.policy.eviction_ratio;
        let target = ratio.max(over + ratio);
        let lower = (target / 2.0).max(over);
        let census = self.census(reach, now);
        let count = census.objects();
        let mut evicted = Evicted::default();
        if let Some(cutoff) = census.cutoff(false, part(target, count), now) {
            self.evict_older(&census, false, cutoff, now, &mut evicted);
        }
        let lower = part(lower, count);
        if evicted.objects < lower
            && self.policy.evict_soft_pinned
            && let Some(cutoff) = census.cutoff(true, lower - evicted.objects, now)
        {
            self.evict_older(&census, true, cutoff, now, &mut evicted);
        }
        if evicted.objects == 0 {
            // A pool full of leases is not searched for each put that fails: the search of a million objects takes
            // about as long as the pause, whether they lie within reach or not.
            let pause_ms = SEARCH_PAUSE_MS + (census.seen as u64) / OBJECTS_PER_PAUSE_MS;
            nothing_until.store(now.after_ms(pause_ms).0, Ordering::Release);
        } else {
            self.eviction_epoch.fetch_add(1, Ordering::AcqRel);
            self.metrics.evictions_succeeded.increment();
            self.metrics.evicted_objects.add(evicted.objects as u64);
            self.metrics.evicted_bytes.add(evicted.bytes);
        }
        evicted
    }

    fn census(&self, reach: Reach, now: Moment) -> Census {
        let mut census = Census { reach, ..Census::default() };
        for index in 0..SHARDS {
            let shard = self.shard_at(index);
            for object in shard.iter() {
                census.seen += 1;
                if !object.evictable() {
                    continue;
                }
                let unit = Unit { useful: reach.takes(object), ..Unit::of(object, now) };
                match &object.group {
                    None if unit.useful => census.alone.push(unit),
                    None => {}
                    Some(group) => {
                        census
                            .groups
                            .entry(Arc::clone(group))
                            .and_modify(|known| known.join(unit))
                            .or_insert(unit);
                    }
                }
            }
        }
        census.groups.retain(|_, unit| unit.useful);
        census
    }

    fn evict_older(
        &self,
        census: &Census,
        soft_pinned: bool,
        cutoff: Moment,
        now: Moment,
        evicted: &mut Evicted,
    ) {
        let chosen = |unit: &Unit| {
            unit.lease_until <= cutoff && unit.lease_until <= now && unit.soft_pinned == soft_pinned
        };
        for index in 0..SHARDS {
            // Looked at again under the lock: a lease may have been granted since.
            let choose = |object: &Object| {
                let unit = Unit::of(object, now);
                object.evictable()
                    && match &object.group {
                        None => chosen(&unit) && census.reach.takes(object),
                        Some(group) => {
                            unit.lease_until <= now && census.groups.get(group).is_some_and(chosen)
                        }
                    }
            };
            self.shard_at(index).extract(choose, |object| {
                evicted.objects += 1;
                evicted.bytes += object.replicas.iter().map(|replica| replica.range.length()).sum::<u64>();
                self.discard(object);
            });
        }
    }
}

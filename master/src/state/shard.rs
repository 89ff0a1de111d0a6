//! One shard of the object table. A key is hashed once; the hash picks the shard and the place in it.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{Mutex, MutexGuard};

use super::object::Object;
use super::segment::Segment;
use crate::moment::Moment;

/// Number of shards; a power of two.
pub const SHARDS: usize = 256;
/// From one id of a shard to the next.
const ID_STEP: u64 = SHARDS as u64;

/// A place in the table: the hash stands beside the object, so that most foreign keys are told apart without it.
#[derive(Debug)]
pub struct Slot {
    hash: u64,
    object: Box<Object>,
}

/// A shard and its lock. Aligned, so that threads in two shards do not take a line of memory from each other, and so
/// that the lock and the start of the table stand on one.
#[derive(Debug)]
#[repr(align(64))]
pub struct Locked(Mutex<Shard>);

impl Locked {
    /// The shard with this number, which is below `SHARDS`.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(Mutex::new(Shard::new(number)))
    }

    /// The shard, for the caller alone.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, Shard> {
        self.0.lock()
    }

    /// The same, if nobody has it.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Shard>> {
        self.0.try_lock()
    }
}

/// The objects of one shard.
#[derive(Debug)]
pub struct Shard {
    table: HashTable<Slot>,
    /// What the next replica is called.
    next_id: u64,
    tally: Tally,
    /// Objects that were taken out so far.
    removed: u64,
}

/// Sums over the objects of a shard, so that nobody has to look at each.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    processing: usize,
    soft_pins: usize,
    key_bytes: u64,
}

impl Tally {
    fn of(object: &Object) -> Self {
        Self {
            processing: usize::from(!object.complete()),
            soft_pins: usize::from(object.soft_pin_ttl_ms > 0),
            key_bytes: object.key.len().next_multiple_of(16) as u64,
        }
    }

    fn add(&mut self, other: Self) {
        self.processing += other.processing;
        self.soft_pins += other.soft_pins;
        self.key_bytes += other.key_bytes;
    }

    fn take(&mut self, other: Self) {
        self.processing -= other.processing;
        self.soft_pins -= other.soft_pins;
        self.key_bytes -= other.key_bytes;
    }
}

/// A table with room for this many more is not shrunk: small tables cost little and grow again.
const SHRINK_SLACK: usize = 64;

impl Shard {
    const fn new(number: u64) -> Self {
        let tally = Tally { processing: 0, soft_pins: 0, key_bytes: 0 };
        Self { table: HashTable::new(), next_id: ID_STEP + number, tally, removed: 0 }
    }

    /// An id that no other replica has, of any shard. Those of one key grow: a key stays with its shard.
    pub const fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += ID_STEP;
        id
    }

    /// From now on, ids are at least `first`.
    pub fn ids_from(&mut self, first: u64) {
        let number = self.next_id % ID_STEP;
        self.next_id = self.next_id.max(first.next_multiple_of(ID_STEP) + number);
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes of metadata of all objects.
    #[must_use]
    pub fn metadata_bytes(&self) -> u64 {
        let each = Object::cost_bytes(0);
        self.tally.key_bytes + each * (self.table.len() as u64)
    }

    /// Objects that were taken out so far; only grows.
    #[must_use]
    pub const fn removed(&self) -> u64 {
        self.removed
    }

    /// Objects whose put has not ended.
    #[must_use]
    pub const fn processing(&self) -> usize {
        self.tally.processing
    }

    /// Whether any object may be soft-pinned.
    #[must_use]
    pub const fn has_soft_pins(&self) -> bool {
        self.tally.soft_pins > 0
    }

    /// The object with this key.
    #[must_use]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&Object> {
        self.table.find(hash, |slot| slot.hash == hash && *slot.object.key == *key).map(|slot| &*slot.object)
    }

    /// Sees to it that what `get_mut` looks at is in the cache soon; it is not waited for.
    #[inline]
    pub fn fetch(&self, hash: u64) {
        if let Some(slot) = self.table.find(hash, |slot| slot.hash == hash) {
            std::hint::black_box((slot.object.lease_until, slot.object.key.first()));
        }
    }

    /// The object with this key, to be changed in what the shard does not sum up; for the rest see `settle`.
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Object> {
        self.table
            .find_mut(hash, |slot| slot.hash == hash && *slot.object.key == *key)
            .map(|slot| &mut *slot.object)
    }

    /// Changes whether an object is complete, or its soft pin; `None` if there is no such object.
    pub fn settle<T>(&mut self, hash: u64, key: &[u8], change: impl FnOnce(&mut Object) -> T) -> Option<T> {
        let object = self.get_mut(hash, key)?;
        let before = Tally::of(object);
        let changed = change(object);
        let after = Tally::of(object);
        self.tally.add(after);
        self.tally.take(before);
        Some(changed)
    }

    /// Adds an object whose key is known not to be there, and gives it back to be looked at.
    pub fn add(&mut self, hash: u64, object: Box<Object>) -> &Object {
        self.tally.add(Tally::of(&object));
        &self.table.insert_unique(hash, Slot { hash, object }, |slot| slot.hash).into_mut().object
    }

    /// Adds an object; one with the same key is replaced and returned.
    pub fn insert(&mut self, hash: u64, object: Box<Object>) -> Option<Box<Object>> {
        self.tally.add(Tally::of(&object));
        let same = |slot: &Slot| slot.hash == hash && slot.object.key == object.key;
        match self.table.entry(hash, same, |slot| slot.hash) {
            Entry::Occupied(mut occupied) => {
                let old = std::mem::replace(&mut occupied.get_mut().object, object);
                self.tally.take(Tally::of(&old));
                self.removed += 1;
                Some(old)
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Slot { hash, object });
                None
            }
        }
    }

    /// Takes an object out.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Box<Object>> {
        let found = self.table.find_entry(hash, |slot| slot.hash == hash && *slot.object.key == *key).ok()?;
        let (slot, _) = found.remove();
        self.tally.take(Tally::of(&slot.object));
        self.removed += 1;
        Some(slot.object)
    }

    /// Takes every object out for which `choose` says so, and gives the table's memory back.
    pub fn extract(&mut self, mut choose: impl FnMut(&Object) -> bool, mut removed: impl FnMut(Box<Object>)) {
        let mut gone = Tally::default();
        for slot in self.table.extract_if(|slot| choose(&slot.object)) {
            gone.add(Tally::of(&slot.object));
            self.removed += 1;
            removed(slot.object);
        }
        self.tally.take(gone);
        self.shrink();
    }

    /// Gives the table's memory back if most of it is empty.
    pub fn shrink(&mut self) {
        let length = self.table.len();
        if self.table.capacity() > length.saturating_mul(4).saturating_add(SHRINK_SLACK) {
            self.table.shrink_to(length.saturating_mul(2), |slot| slot.hash);
        }
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.table.iter().map(|slot| &*slot.object)
    }

    /// All objects, to be changed in what the shard does not sum up.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Object> {
        self.table.iter_mut().map(|slot| &mut *slot.object)
    }

    /// Objects whose put has not ended and began at or before `limit`.
    pub fn extract_unfinished(&mut self, limit: Moment, removed: impl FnMut(Box<Object>)) {
        if self.processing() > 0 {
            self.extract(|object| !object.complete() && object.put_started <= limit, removed);
        }
    }

    /// Drops the replicas in segments that are gone, and the objects that have no other.
    pub fn drop_replicas_in(
        &mut self,
        gone: impl Fn(&Arc<Segment>) -> bool,
        removed: impl FnMut(Box<Object>),
    ) {
        let lost = |object: &Object| object.replicas.iter().all(|replica| gone(replica.range.segment()));
        let mut emptied = false;
        for slot in &mut self.table {
            let object = &mut slot.object;
            if object.replicas.len() > 1
                && !lost(object)
                && object.replicas.iter().any(|replica| gone(replica.range.segment()))
            {
                let before = Tally::of(object);
                object.replicas.retain(|replica| !gone(replica.range.segment()));
                self.tally.add(Tally::of(object));
                self.tally.take(before);
            } else {
                emptied |= lost(object);
            }
        }
        if emptied {
            self.extract(lost, removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_nobody_elses_grow_and_begin_above_those_of_a_journal() {
        let mut shards: Vec<Shard> = (0u64..).take(SHARDS).map(Shard::new).collect();
        let mut seen = std::collections::HashSet::new();
        for first in [0, 1, 1000, 256_000, 700] {
            for shard in &mut shards {
                let before = shard.new_id();
                shard.ids_from(first);
                let after = shard.new_id();
                assert!(before > 0 && after > before && after >= first);
                assert!(seen.insert(before) && seen.insert(after));
            }
        }
    }
}

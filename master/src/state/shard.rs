//! One shard of the object table. A key is hashed once; the hash picks the shard and the place in it.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::object::Object;
use super::segment::Segment;
use crate::moment::Moment;

/// A place in the table: the hash stands beside the object, so that most foreign keys are told apart without it.
#[derive(Debug)]
pub struct Slot {
    hash: u64,
    object: Box<Object>,
}

/// The objects of one shard. Aligned, so that threads in two shards do not take a line of memory from each other.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Shard {
    table: HashTable<Slot>,
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

    /// The object with this key, to be changed in what the shard does not sum up; for the rest see `settle`.
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Object> {
        self.table
            .find_mut(hash, |slot| slot.hash == hash && *slot.object.key == *key)
            .map(|slot| &mut *slot.object)
    }

    /// Changes whether an object is complete, or its soft pin.
    pub fn settle(&mut self, hash: u64, key: &[u8], change: impl FnOnce(&mut Object)) {
        if let Some(object) = self.get_mut(hash, key) {
            let before = Tally::of(object);
            change(object);
            let after = Tally::of(object);
            self.tally.add(after);
            self.tally.take(before);
        }
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

//! Reads: whether and where. Each grants a lease, within which the object is not evicted.

use mooncake_wire::lists::Entries;
use mooncake_wire::model::{self, ReplicaList};
use mooncake_wire::{ErrorCode, Outcome};
use regex::bytes::Regex;

use super::State;
use super::object::{Object, Standing};
use crate::moment::Moment;

/// Most bytes a compiled pattern may take: a pattern comes from a client.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A pattern that is searched for anywhere in a key.
///
/// # Errors
/// `INVALID_PARAMS` if it is not a pattern. Back references and look-around, which upstream's dialect has, are none.
pub fn pattern(text: &[u8]) -> Outcome<Regex> {
    let text = std::str::from_utf8(text).map_err(|_| ErrorCode::INVALID_PARAMS)?;
    let mut builder = regex::bytes::RegexBuilder::new(text);
    builder.unicode(false).size_limit(MAX_PATTERN_BYTES).build().map_err(|_| ErrorCode::INVALID_PARAMS)
}

/// Reads of one call, which are counted once.
#[derive(Default)]
struct Sums {
    reads: u64,
    hits: u64,
    bytes: u64,
}

impl State {
    fn lease(&self, object: &mut Object, now: Moment) {
        object.lease_until = object.lease_until.max(now.after_ms(self.policy.lease_ttl_ms));
    }

    /// Whether an object is readable; if so, it has a lease.
    pub fn exists(&self, key: &[u8], now: Moment) -> bool {
        let hashed = self.hashed(key);
        self.leased(self.shard(hashed).get_mut(hashed.hash, key), now)
    }

    /// Tells the same of many objects.
    pub fn tell_exists(&self, keys: &[&[u8]], now: Moment, entries: &mut Entries<'_>) {
        self.each_found(keys, |found| entries.flag(self.leased(found, now)));
    }

    /// Whether an object was found that is readable; if so, it has a lease.
    fn leased(&self, found: Option<&mut Object>, now: Moment) -> bool {
        match found.filter(|object| object.standing() == Standing::Readable) {
            Some(object) => {
                self.lease(object, now);
                true
            }
            None => false,
        }
    }

    /// The readable replicas of an object, which has a lease then.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `REPLICA_IS_NOT_READY`.
    pub fn replicas(&self, key: &[u8], now: Moment) -> Outcome<ReplicaList> {
        let mut sums = Sums::default();
        let hashed = self.hashed(key);
        let mut shard = self.shard(hashed);
        let list = self.read(shard.get_mut(hashed.hash, key), now, &mut sums, |object| ReplicaList {
            replicas: object.describe(),
            lease_ttl_ms: self.policy.lease_ttl_ms,
            checksum: object.checksum,
        });
        drop(shard);
        self.count(&sums);
        list
    }

    /// Tells the same of many objects.
    pub fn tell_replicas(&self, keys: &[&[u8]], now: Moment, entries: &mut Entries<'_>) {
        let mut sums = Sums::default();
        let lease_ttl_ms = self.policy.lease_ttl_ms;
        self.each_found(keys, |found| {
            let told = self.read(found, now, &mut sums, |object| {
                if let [only] = &*object.replicas {
                    // It is what makes the object readable.
                    entries.readable(std::iter::once(only.tell()), lease_ttl_ms, object.checksum);
                    return;
                }
                let readable = object.readable();
                let replicas = readable.iter().map(|replica| replica.tell());
                entries.readable(replicas, lease_ttl_ms, object.checksum);
            });
            if let Err(code) = told {
                entries.error(code);
            }
        });
        self.count(&sums);
    }

    fn count(&self, sums: &Sums) {
        self.metrics.reads.add(sums.reads);
        self.metrics.hits.add(sums.hits);
        self.metrics.hit_bytes.add(sums.bytes);
    }

    /// What `tell` makes of an object that was found and is readable; it has a lease then.
    fn read<T>(
        &self,
        found: Option<&mut Object>,
        now: Moment,
        sums: &mut Sums,
        tell: impl FnOnce(&Object) -> T,
    ) -> Outcome<T> {
        sums.reads += 1;
        let object = found.ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        match object.standing() {
            Standing::Readable => {}
            Standing::Processing => return Err(ErrorCode::REPLICA_IS_NOT_READY),
            Standing::Awaiting | Standing::Lost => return Err(ErrorCode::OBJECT_NOT_FOUND),
        }
        self.lease(object, now);
        sums.hits += 1;
        sums.bytes = sums.bytes.saturating_add(object.length());
        Ok(tell(object))
    }

    /// The replicas of every readable object whose key the pattern finds; each has a lease then.
    pub fn replicas_by_pattern(&self, pattern: &Regex, now: Moment) -> Vec<(Box<[u8]>, Vec<model::Replica>)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            for object in shard.lock().iter_mut() {
                if object.standing() == Standing::Readable && pattern.is_match(&object.key) {
                    self.lease(object, now);
                    found.push((object.key.clone(), object.describe()));
                }
            }
        }
        found
    }

    /// What an administrator sees of an object: no lease, no count.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `REPLICA_IS_NOT_READY`.
    pub fn inspect(&self, key: &[u8]) -> Outcome<Vec<model::Replica>> {
        let hashed = self.hashed(key);
        let shard = self.shard(hashed);
        let object = shard.get(hashed.hash, key).ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        match object.standing() {
            Standing::Readable => Ok(object.describe()),
            Standing::Processing => Err(ErrorCode::REPLICA_IS_NOT_READY),
            Standing::Awaiting | Standing::Lost => Err(ErrorCode::OBJECT_NOT_FOUND),
        }
    }

    /// Calls `each` with the key of every readable object, shard by shard.
    pub fn for_each_key(&self, mut each: impl FnMut(&[u8])) {
        for shard in &self.shards {
            for object in shard.lock().iter() {
                if object.standing() == Standing::Readable {
                    each(&object.key);
                }
            }
        }
    }
}

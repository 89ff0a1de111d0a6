//! Removal, by key, pattern or all. A lease protects unless the caller forces; an unfinished put always does.

use mooncake_wire::model::Uuid;
use mooncake_wire::{ErrorCode, Outcome};
use regex::bytes::Regex;

use super::State;
use super::object::{Object, Standing};
use crate::journal::Record;
use crate::moment::Moment;

impl State {
    /// Removes an object.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `REPLICA_IS_NOT_READY`, `OBJECT_HAS_LEASE`.
    pub fn remove(&self, key: &[u8], force: bool, now: Moment) -> Outcome<()> {
        let hashed = self.hashed(key);
        let mut shard = self.shard(hashed);
        let object = shard.get(hashed.hash, key).ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        match object.standing() {
            Standing::Awaiting | Standing::Lost => return Err(ErrorCode::OBJECT_NOT_FOUND),
            Standing::Readable | Standing::Processing => {}
        }
        if !object.complete() {
            return Err(ErrorCode::REPLICA_IS_NOT_READY);
        }
        if !force && object.leased(now) {
            return Err(ErrorCode::OBJECT_HAS_LEASE);
        }
        if let Some(object) = shard.remove(hashed.hash, key) {
            self.discard(object);
        }
        shard.shrink();
        Ok(())
    }

    /// Removes every complete object whose key the pattern finds; answers how many.
    pub fn remove_by_pattern(&self, pattern: &Regex, force: bool, now: Moment) -> i64 {
        self.remove_where(|object| pattern.is_match(&object.key), force, now)
    }

    /// Removes every complete object; answers how many.
    pub fn remove_all(&self, force: bool, now: Moment) -> i64 {
        self.remove_where(|_| true, force, now)
    }

    fn remove_where(&self, wanted: impl Fn(&Object) -> bool, force: bool, now: Moment) -> i64 {
        let mut removed = 0i64;
        for shard in &self.shards {
            let chosen = |object: &Object| {
                object.complete()
                    && (force || !object.leased(now))
                    && object.standing() == Standing::Readable
                    && wanted(object)
            };
            shard.lock().extract(chosen, |object| {
                removed = removed.saturating_add(1);
                self.discard(object);
            });
        }
        removed
    }

    /// Drops the replicas that a client's objects have in the segments of a name (empty: in all); answers the keys
    /// of which something was dropped. Objects of others, leased and unfinished ones are passed over.
    pub fn clear_replicas(
        &self,
        keys: &[&[u8]],
        client: Uuid,
        segment_name: &str,
        now: Moment,
    ) -> Vec<Box<[u8]>> {
        let mut cleared = Vec::new();
        for key in keys {
            let hashed = self.hashed(key);
            let mut shard = self.shard(hashed);
            let Some(object) = shard.get_mut(hashed.hash, key) else {
                continue;
            };
            if object.owner != client || object.leased(now) || !object.complete() {
                continue;
            }
            let there = |replica: &super::object::Replica| *replica.range.segment().name == *segment_name;
            if segment_name.is_empty() || object.replicas.iter().all(there) {
                if let Some(object) = shard.remove(hashed.hash, key) {
                    self.discard(object);
                    cleared.push((*key).into());
                }
                continue;
            }
            let before = object.replicas.len();
            let id = object.id;
            object.replicas.retain(|replica| {
                let drop = there(replica);
                if drop {
                    self.record(&Record::ReplicaDropped { id, replica: replica.id });
                }
                !drop
            });
            if object.replicas.len() < before {
                cleared.push((*key).into());
            }
        }
        cleared
    }
}

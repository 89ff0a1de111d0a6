//! How a batch goes through the shards.
//!
//! A lock taken or given back makes a processor wait for everything before it, so with one lock for each key the object
//! of a key would only be looked for when that of the last one had come from memory. A batch therefore works on a few
//! keys at a time: it hashes them all, locks their shards, and looks at all their objects at once.

use std::hash::BuildHasher;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::object::Object;
use super::shard::Shard;
use super::{Hashed, State};

/// Keys at a time. More would have to wait for each other's shards too often.
const KEYS_AT_A_TIME: usize = 8;

type Few<T> = SmallVec<[T; KEYS_AT_A_TIME]>;

impl State {
    /// Calls `each` with every key, in order.
    pub(super) fn each_hashed<'k>(&self, keys: &[&'k [u8]], mut each: impl FnMut(Hashed<'k>)) {
        for keys in keys.chunks(KEYS_AT_A_TIME) {
            self.hash_few(keys).into_iter().for_each(&mut each);
        }
    }

    /// Calls `each` with every key, in order, and its object, if there is one. Only what a shard does not sum up may be
    /// changed; for the rest see `each_locked`.
    pub(super) fn each_found(&self, keys: &[&[u8]], mut each: impl FnMut(Option<&mut Object>)) {
        self.few_locked(keys, |few, shards| {
            let found: Few<Option<&mut Object>> = few
                .iter()
                .zip(shards)
                .map(|(hashed, shard)| shard.get_mut(hashed.hash, hashed.key))
                .collect();
            found.into_iter().for_each(&mut each);
        });
    }

    /// Calls `each` with every key, in order, and its shard, which is locked.
    pub(super) fn each_locked<'k>(&self, keys: &[&'k [u8]], mut each: impl FnMut(Hashed<'k>, &mut Shard)) {
        self.few_locked(keys, |few, shards| {
            for (hashed, shard) in few.iter().zip(&*shards) {
                shard.fetch(hashed.hash);
            }
            for (hashed, shard) in few.iter().zip(shards) {
                each(*hashed, shard);
            }
        });
    }

    /// Calls `each` with a few keys at a time, in order, and their shards, which are locked.
    ///
    /// Only for the first shard is waited, while no other is held, so that two batches cannot wait for each other.
    fn few_locked<'k>(
        &self,
        keys: &[&'k [u8]],
        mut each: impl FnMut(&[Hashed<'k>], &mut Few<MutexGuard<'_, Shard>>),
    ) {
        for keys in keys.chunks(KEYS_AT_A_TIME) {
            let hashed = self.hash_few(keys);
            let mut left = &*hashed;
            while let Some((first, others)) = left.split_first() {
                let mut shards: Few<MutexGuard<'_, Shard>> = Few::new();
                shards.push(self.shard(*first));
                // Ends at one that is taken, be it by this batch itself.
                shards.extend(others.iter().map_while(|other| self.try_shard(*other)));
                let (few, later) = left.split_at_checked(shards.len()).unwrap_or((left, &[]));
                each(few, &mut shards);
                left = later;
            }
        }
    }

    fn hash_few<'k>(&self, keys: &[&'k [u8]]) -> Few<Hashed<'k>> {
        keys.iter().map(|key| Hashed { hash: self.hasher.hash_one(key), key }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;
    use crate::policy::Policy;

    fn state() -> State {
        State::new(Policy::default(), None, Arc::new(Metrics::default()))
    }

    fn names(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|index| format!("key {index}").into_bytes()).collect()
    }

    #[test]
    fn every_key_comes_in_order_with_its_shard_also_if_it_comes_again() {
        let state = state();
        let names = names(100);
        // Every key twice in a row, and some next to others of their shard: there are fewer shards than keys.
        let keys: Vec<&[u8]> = names
            .iter()
            .chain(&names)
            .flat_map(|name| [&name[..], &name[..]])
            .chain([&b"last"[..]])
            .collect();
        let (mut hashed, mut locked) = (Vec::new(), Vec::new());
        state.each_hashed(&keys, |one| hashed.push(one.key));
        state.each_locked(&keys, |one, shard| {
            assert!(state.try_shard(one).is_none(), "its shard is locked");
            assert_eq!(shard.new_id() % 256, one.shard() as u64, "and is the one that is given");
            locked.push(one.key);
        });
        assert_eq!(hashed, keys);
        assert_eq!(locked, keys);
        assert!(state.shards.iter().all(|shard| shard.try_lock().is_some()), "all are given back");
    }

    #[test]
    fn batches_in_opposite_order_do_not_wait_for_each_other_for_ever() {
        let state = state();
        let names = names(64);
        let forward: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
        let backward: Vec<&[u8]> = forward.iter().rev().copied().collect();
        let count = |keys: &[&[u8]]| {
            let mut count = 0;
            for _ in 0..500 {
                state.each_locked(keys, |_, _| count += 1);
            }
            count
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = [&forward, &backward, &forward, &backward]
                .into_iter()
                .map(|keys| scope.spawn(|| count(keys)))
                .collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), 500 * 64);
            }
        });
    }
}

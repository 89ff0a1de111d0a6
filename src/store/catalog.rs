//! What the master alone answers: existence, sizes, replicas, removal.

use mooncake_wire::ErrorCode;
use mooncake_wire::method::{
    BatchExistKey, BatchGetReplicaList, BatchRemove, BatchReplicaClear, GetReplicaListByRegex, Remove,
    RemoveAll, RemoveByRegex,
};
use mooncake_wire::model::Replica;

use super::Store;
use super::failure::{Failure, Outcome};
use super::put::{MAX_KEYS_PER_CALL, counted};
use super::rpc::Repeat;

impl Store {
    /// Whether a key can be read; true keeps it from eviction for the time of a lease.
    ///
    /// # Errors
    /// `RPC_FAIL`, `RPC_TIMEOUT`.
    pub fn is_exist(&self, key: &[u8]) -> Outcome<bool> {
        self.batch_is_exist(&[key])
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(ErrorCode::INTERNAL_ERROR.into()))
    }

    /// [`Store::is_exist`] of many, in one call; one result each.
    #[must_use]
    pub fn batch_is_exist(&self, keys: &[&[u8]]) -> Vec<Outcome<bool>> {
        self.each(keys, |store, chunk| {
            let call = BatchExistKey { keys: chunk.to_vec(), tenant: store.core.tenant() };
            let answers = store.core.master.call(&call, Repeat::Harmless)?;
            Ok(answers.into_iter().map(|answer| answer.map_err(Failure::from)).collect())
        })
    }

    /// Bytes of an object.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `REPLICA_IS_NOT_READY`, `RPC_FAIL`, `RPC_TIMEOUT`.
    pub fn get_size(&self, key: &[u8]) -> Outcome<u64> {
        let _use = self.enter()?;
        let found = self.core.find(&[key]).into_iter().next();
        found.unwrap_or_else(|| Err(ErrorCode::INTERNAL_ERROR.into())).map(|object| object.size)
    }

    /// The replicas of an object.
    ///
    /// # Errors
    /// As [`Store::get_size`].
    pub fn replicas(&self, key: &[u8]) -> Outcome<Vec<Replica>> {
        self.batch_replicas(&[key])
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(ErrorCode::INTERNAL_ERROR.into()))
    }

    /// [`Store::replicas`] of many, one result each.
    #[must_use]
    pub fn batch_replicas(&self, keys: &[&[u8]]) -> Vec<Outcome<Vec<Replica>>> {
        self.each(keys, |store, chunk| {
            let call = BatchGetReplicaList { keys: chunk.to_vec(), tenant: store.core.tenant() };
            let answers = store.core.master.call(&call, Repeat::Harmless)?;
            let replicas = |answer: Result<mooncake_wire::model::ReplicaList, ErrorCode>| {
                answer.map(|list| list.replicas).map_err(Failure::from)
            };
            Ok(answers.into_iter().map(replicas).collect())
        })
    }

    /// The objects whose key the pattern finds (ECMAScript syntax, anywhere in the key), with their replicas.
    ///
    /// # Errors
    /// `INVALID_PARAMS` for a pattern that cannot be read, `RPC_FAIL`, `RPC_TIMEOUT`.
    pub fn replicas_by_regex(&self, pattern: &str) -> Outcome<Vec<(Vec<u8>, Vec<Replica>)>> {
        let _use = self.enter()?;
        let call = GetReplicaListByRegex { pattern: pattern.as_bytes(), tenant: self.core.tenant() };
        let found = self.core.master.call(&call, Repeat::Harmless)??;
        Ok(found.0.into_iter().map(|(key, replicas)| (key.into_vec(), replicas)).collect())
    }

    /// Removes an object; `force` overrides leases.
    ///
    /// # Errors
    /// `OBJECT_NOT_FOUND`, `OBJECT_HAS_LEASE`, `REPLICA_IS_NOT_READY`, `RPC_FAIL`, `RPC_TIMEOUT`.
    pub fn remove(&self, key: &[u8], force: bool) -> Outcome<()> {
        let _use = self.enter()?;
        let call = Remove { key, force, tenant: self.core.tenant() };
        Ok(self.core.master.call(&call, Repeat::Never)??)
    }

    /// [`Store::remove`] of many, one result each.
    #[must_use]
    pub fn batch_remove(&self, keys: &[&[u8]], force: bool) -> Vec<Outcome<()>> {
        self.each(keys, |store, chunk| {
            let call = BatchRemove { keys: chunk.to_vec(), force, tenant: store.core.tenant() };
            let answers = store.core.master.call(&call, Repeat::Never)?;
            Ok(answers.into_iter().map(|answer| answer.map_err(Failure::from)).collect())
        })
    }

    /// Removes the objects whose key the pattern finds; gives their number. Leased ones stay unless `force`.
    ///
    /// # Errors
    /// `INVALID_PARAMS` for a pattern that cannot be read, `RPC_FAIL`, `RPC_TIMEOUT`.
    pub fn remove_by_regex(&self, pattern: &str, force: bool) -> Outcome<i64> {
        let _use = self.enter()?;
        let call = RemoveByRegex { pattern: pattern.as_bytes(), force, tenant: self.core.tenant() };
        Ok(self.core.master.call(&call, Repeat::Never)??)
    }

    /// Removes all objects; gives their number. Leased ones stay unless `force`.
    ///
    /// # Errors
    /// `RPC_FAIL`, `RPC_TIMEOUT`.
    pub fn remove_all(&self, force: bool) -> Outcome<i64> {
        let _use = self.enter()?;
        self.core.master.call(&RemoveAll { force, tenant: self.core.tenant() }, Repeat::Never)
    }

    /// Drops this client's replicas of objects without a lease, of one segment or (empty) of all; gives the keys.
    ///
    /// # Errors
    /// `RPC_FAIL`, `RPC_TIMEOUT`.
    pub fn batch_replica_clear(&self, keys: &[&[u8]], segment_name: &str) -> Outcome<Vec<Vec<u8>>> {
        let _use = self.enter()?;
        let call = BatchReplicaClear {
            keys: keys.to_vec(),
            client: self.core.client,
            segment_name: segment_name.to_owned(),
        };
        let cleared = self.core.master.call(&call, Repeat::Never)??;
        Ok(cleared.into_iter().map(<[u8]>::into_vec).collect())
    }

    /// Makes a call for each part of a list; one result a key.
    fn each<T>(
        &self,
        keys: &[&[u8]],
        call: impl Fn(&Self, &[&[u8]]) -> Outcome<Vec<Outcome<T>>>,
    ) -> Vec<Outcome<T>> {
        let _use = match self.enter() {
            Ok(entered) => entered,
            Err(failure) => return keys.iter().map(|_| Err(failure.clone())).collect(),
        };
        let mut results = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(MAX_KEYS_PER_CALL) {
            match call(self, chunk).and_then(|answers| counted(answers, chunk.len())) {
                Ok(answers) => results.extend(answers),
                Err(failure) => results.extend(chunk.iter().map(|_| Err(failure.clone()))),
            }
        }
        self.core.report(&results);
        results
    }
}

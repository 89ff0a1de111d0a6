//! Storing values: two calls to the master and one engine batch, however many keys.
//!
//! All replicas of a key must arrive; else its space is given back and the key fails. A place that cannot be reached
//! is tried anew elsewhere, a few times, and so is one whose owner leaves the pool before the value is complete. A key
//! that exists counts as stored, and keeps its first value.
//!
//! That the owner has left is what the master means when it does not know the key at the end of its put. When the end
//! was sent twice, because the connection broke, it may also mean that the first one was carried out and the key was
//! removed since: that is the answer then, and the value is not put again.
//!
//! A put whose transfer could not be made quiet is not given back: the master keeps its space until no writer can
//! be left, and only then lends it again.

use std::sync::Arc;
use std::time::Duration;

use mooncake_wire::ErrorCode;
use mooncake_wire::method::{
    BatchPutEnd, BatchPutRevoke, BatchPutStart, BatchUpsertEnd, BatchUpsertRevoke, BatchUpsertStart,
};
use mooncake_wire::model::{ObjectMeta, Placement, Replica, ReplicaType, ReplicateConfig};

use super::Core;
use super::failure::{Failure, Outcome};
use super::rpc::Repeat;
use super::transfer::{Move, Piece, Pieces, Run, is_of_peer};
use crate::deadline::Deadline;
use crate::engine::Direction;
use crate::error::{Code, Error, Stage};

/// Most keys of one call to the master.
pub const MAX_KEYS_PER_CALL: usize = 16_384;
/// How often a place is asked for when places turn out to be unreachable. The master goes on lending the memory of
/// an owner that died for some seconds; each time it may choose another owner, and a known dead one costs no wait.
pub const PUT_ATTEMPTS: usize = 12;
/// How often space is asked for again when the pool is full: a master that evicts by a timer needs a moment.
pub const FULL_RETRIES: usize = 2;
/// Pause before that; upstream's master looks every 10 ms.
const FULL_PAUSE: Duration = Duration::from_millis(12);
/// Time for giving back what a failed call may have left behind.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(2);

/// What is done with a key that exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It keeps its value.
    Put,
    /// It gets the new one.
    Upsert,
}

/// A key on its way.
struct Entry<'a> {
    /// Its place in the caller's list.
    index: usize,
    key: &'a [u8],
    pieces: &'a [Piece],
    length_bytes: u64,
}

impl Core {
    /// Stores values; each is the row of its pieces.
    pub(super) fn write(
        &self,
        kind: Kind,
        keys: &[&[u8]],
        values: &[&[Piece]],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<()>> {
        if let Err(failure) = check(keys, values, config) {
            let results = vec![Err(failure); keys.len()];
            self.report(&results);
            return results;
        }
        let mut config = config.clone();
        if config.host_id.is_empty() {
            config.host_id.clone_from(&self.owner.host_id);
        }
        let mut results: Vec<Option<Outcome<()>>> = vec![None; keys.len()];
        let mut entries = Vec::with_capacity(keys.len());
        for (index, (key, pieces)) in keys.iter().zip(values).enumerate() {
            match length_of(key, pieces) {
                Ok(length_bytes) => entries.push(Entry { index, key, pieces, length_bytes }),
                Err(failure) => set(&mut results, index, Err(failure)),
            }
        }
        for attempt in 1..=PUT_ATTEMPTS {
            entries = self.attempt(kind, entries, &config, attempt == PUT_ATTEMPTS, &mut results);
            if entries.is_empty() {
                break;
            }
        }
        let lost = || Failure::from(ErrorCode::INTERNAL_ERROR);
        let results: Vec<_> =
            results.into_iter().map(|result| result.unwrap_or_else(|| Err(lost()))).collect();
        self.report(&results);
        results
    }

    /// Tries once; gives back the keys that are worth another attempt.
    fn attempt<'a>(
        &self,
        kind: Kind,
        entries: Vec<Entry<'a>>,
        config: &ReplicateConfig,
        last: bool,
        results: &mut [Option<Outcome<()>>],
    ) -> Vec<Entry<'a>> {
        let started = self.start_all(kind, &entries, config);
        let mut moves = Vec::new();
        // Entries with space, each with the end of its moves.
        let mut placed = Vec::new();
        let mut failed = Vec::new();
        let mut replica_type = ReplicaType::ALL;
        for (entry, started) in entries.into_iter().zip(started) {
            match started {
                Ok(replicas) => match places(&replicas, entry.length_bytes) {
                    Ok(buffers) => {
                        if buffers.len() < replicas.len() {
                            replica_type = ReplicaType::MEMORY;
                        }
                        moves.extend(buffers.into_iter().map(|(endpoint, remote)| Move {
                            endpoint,
                            remote,
                            pieces: Pieces::Whole(entry.pieces, entry.length_bytes),
                        }));
                        placed.push((entry, moves.len()));
                    }
                    Err(failure) => failed.push((entry, failure)),
                },
                Err(failure) if kind == Kind::Put && failure.code() == ErrorCode::OBJECT_ALREADY_EXISTS => {
                    set(results, entry.index, Ok(()));
                }
                Err(failure) => set(results, entry.index, Err(failure)),
            }
        }
        let mut run = Run { direction: Direction::Write, pause: None, during: &mut || None };
        let moved = self.transfers.run(&moves, &mut run);
        let mut written = Vec::with_capacity(placed.len());
        let mut again = Vec::new();
        let mut first = 0;
        for (entry, end) in placed {
            let own = moved.get(first..end).unwrap_or_default();
            first = end;
            match own.iter().find_map(|moved| moved.as_ref().err()) {
                None => written.push(entry),
                Some(error) if error.code() == Code::StillRunning => {
                    let failure = Failure::new(ErrorCode::TRANSFER_FAIL, error.clone());
                    set(results, entry.index, Err(failure));
                }
                // A deadline that has passed is the caller's; there is no time for another one.
                Some(error) if is_of_peer(error) && error.code() != Code::Timeout && !last => {
                    again.push(entry);
                }
                Some(error) => {
                    failed.push((entry, Failure::new(ErrorCode::TRANSFER_FAIL, error.clone())));
                }
            }
        }
        let gone: Vec<&[u8]> =
            failed.iter().map(|(entry, _)| entry.key).chain(again.iter().map(|entry| entry.key)).collect();
        let lost = self.finish(kind, written, replica_type, last, results);
        self.revoke(kind, &gone);
        again.extend(lost);
        for (entry, failure) in failed {
            set(results, entry.index, Err(failure));
        }
        again
    }

    /// Asks for space for all entries, and again for those that find the pool full.
    fn start_all(
        &self,
        kind: Kind,
        entries: &[Entry<'_>],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<Vec<Replica>>> {
        let all: Vec<&Entry<'_>> = entries.iter().collect();
        let mut started = self.start_some(kind, &all, config);
        for _ in 0..FULL_RETRIES {
            let is_full = |outcome: &Outcome<Vec<Replica>>| {
                outcome.as_ref().is_err_and(|failure| failure.code() == ErrorCode::NO_AVAILABLE_HANDLE)
            };
            let full: Vec<usize> =
                (0..started.len()).filter(|position| started.get(*position).is_some_and(is_full)).collect();
            if full.is_empty() {
                break;
            }
            std::thread::sleep(FULL_PAUSE);
            let some: Vec<&Entry<'_>> = full.iter().filter_map(|position| entries.get(*position)).collect();
            for (position, outcome) in full.iter().zip(self.start_some(kind, &some, config)) {
                if let Some(place) = started.get_mut(*position) {
                    *place = outcome;
                }
            }
        }
        started
    }

    fn start_some(
        &self,
        kind: Kind,
        entries: &[&Entry<'_>],
        config: &ReplicateConfig,
    ) -> Vec<Outcome<Vec<Replica>>> {
        let mut started = Vec::with_capacity(entries.len());
        for chunk in entries.chunks(MAX_KEYS_PER_CALL) {
            let keys: Vec<&[u8]> = chunk.iter().map(|entry| entry.key).collect();
            let lengths = chunk.iter().map(|entry| entry.length_bytes).collect();
            let mut config = config.clone();
            if let Some(groups) = &config.group_ids {
                let own = |entry: &&Entry<'_>| groups.get(entry.index).cloned().unwrap_or_default();
                config.group_ids = Some(chunk.iter().map(own).collect());
            }
            let (client, tenant) = (self.client, self.tenant());
            // Not repeated: the second time the key would exist, and its value never arrive.
            let answer = match kind {
                Kind::Put => self.master.call(
                    &BatchPutStart { client, keys: keys.clone(), lengths, config, tenant },
                    Repeat::Never,
                ),
                Kind::Upsert => self.master.call(
                    &BatchUpsertStart { client, keys: keys.clone(), lengths, config, tenant },
                    Repeat::Never,
                ),
            };
            match answer.and_then(|answers| counted(answers, chunk.len())) {
                Ok(answers) => {
                    started.extend(answers.into_iter().map(|answer| answer.map_err(Failure::from)))
                }
                Err(failure) => {
                    // The master may have carried it out all the same.
                    self.revoke(kind, &keys);
                    started.extend(chunk.iter().map(|_| Err(failure.clone())));
                }
            }
        }
        started
    }

    /// Makes what was written readable; gives back the keys whose space is gone, because its owner left the pool
    /// meanwhile, unless this is the last attempt.
    fn finish<'a>(
        &self,
        kind: Kind,
        written: Vec<Entry<'a>>,
        replica_type: ReplicaType,
        last: bool,
        results: &mut [Option<Outcome<()>>],
    ) -> Vec<Entry<'a>> {
        let mut lost = vec![false; written.len()];
        let mut marks = lost.iter_mut();
        for chunk in written.chunks(MAX_KEYS_PER_CALL) {
            let objects: Vec<_> =
                chunk.iter().map(|entry| ObjectMeta { key: entry.key, checksum: None }).collect();
            let (client, tenant) = (self.client, self.tenant());
            let answer = match kind {
                Kind::Put => self.master.call_counted(&BatchPutEnd { client, objects, replica_type, tenant }),
                Kind::Upsert => self.master.call_counted(&BatchUpsertEnd { client, objects, tenant }),
            };
            let answer = answer.and_then(|(answers, sent)| Ok((counted(answers, chunk.len())?, sent)));
            match answer {
                Ok((answers, sent)) => {
                    for ((entry, answer), mark) in chunk.iter().zip(answers).zip(&mut marks) {
                        if !last && sent == 1 && answer == Err(ErrorCode::OBJECT_NOT_FOUND) {
                            *mark = true;
                        } else {
                            set(results, entry.index, answer.map_err(Failure::from));
                        }
                    }
                }
                Err(failure) => {
                    for (entry, _mark) in chunk.iter().zip(&mut marks) {
                        set(results, entry.index, Err(failure.clone()));
                    }
                }
            }
        }
        drop(marks);
        written.into_iter().zip(lost).filter_map(|(entry, lost)| lost.then_some(entry)).collect()
    }

    /// Gives space back; what cannot be given back the master takes back by itself.
    fn revoke(&self, kind: Kind, keys: &[&[u8]]) {
        let deadline = self.master.deadline().sooner(Deadline::after(CLEAN_UP_LIMIT));
        for chunk in keys.chunks(MAX_KEYS_PER_CALL) {
            let (client, tenant, keys) = (self.client, self.tenant(), chunk.to_vec());
            let answer = match kind {
                Kind::Put => self.master.call_by(
                    &BatchPutRevoke { client, keys, replica_type: ReplicaType::ALL, tenant },
                    Repeat::Harmless,
                    deadline,
                ),
                Kind::Upsert => self.master.call_by(
                    &BatchUpsertRevoke { client, keys, tenant },
                    Repeat::Harmless,
                    deadline,
                ),
            };
            if let Err(failure) = answer {
                log::debug!("the space of {} keys is not given back yet: {failure}", chunk.len());
            }
        }
    }
}

fn set(results: &mut [Option<Outcome<()>>], index: usize, outcome: Outcome<()>) {
    if let Some(place) = results.get_mut(index) {
        *place = Some(outcome);
    }
}

/// An answer has one entry for each key, or it is none.
pub(super) fn counted<T>(answers: Vec<T>, expected: usize) -> Outcome<Vec<T>> {
    if answers.len() == expected {
        return Ok(answers);
    }
    let text = format!("the master answered {} entries for {expected} keys", answers.len());
    Err(Failure::new(ErrorCode::RPC_FAIL, Error::new(Code::RejectHandshake, Stage::Connect, text)))
}

fn check(keys: &[&[u8]], values: &[&[Piece]], config: &ReplicateConfig) -> Outcome<()> {
    if keys.len() != values.len() {
        return Err(Failure::refused(format!("{} keys, but {} values", keys.len(), values.len())));
    }
    if let Some(groups) = &config.group_ids
        && groups.len() != keys.len()
    {
        return Err(Failure::refused(format!("{} keys, but {} group ids", keys.len(), groups.len())));
    }
    if config.prefer_alloc_in_same_node && config.replica_num != 1 {
        return Err(Failure::refused("prefer_alloc_in_same_node is for one replica"));
    }
    Ok(())
}

/// Bytes of a value that can be stored.
fn length_of(key: &[u8], pieces: &[Piece]) -> Outcome<u64> {
    if key.is_empty() {
        return Err(Failure::refused("the key is empty"));
    }
    let sum = pieces.iter().try_fold(0_u64, |sum, &(address, length)| {
        (address != 0 && length != 0).then_some(sum)?.checked_add(length)
    });
    match sum {
        Some(length) if length > 0 => Ok(length),
        _ => Err(Failure::refused("a value needs pieces, each with an address and a length above 0")),
    }
}

/// Where the replicas of a value are to go: endpoint and address.
fn places(replicas: &[Replica], length_bytes: u64) -> Outcome<Vec<(Arc<str>, u64)>> {
    let mut places = Vec::with_capacity(replicas.len());
    for replica in replicas {
        // Others are written by whoever offers them; here nobody does.
        let Placement::Memory(buffer) = &replica.placement else { continue };
        if buffer.size != length_bytes {
            let text = format!("space of {} bytes for a value of {length_bytes}", buffer.size);
            let error = Error::new(Code::Metadata, Stage::Submit, text).peer(&*buffer.endpoint);
            return Err(Failure::new(ErrorCode::TRANSFER_FAIL, error));
        }
        places.push((Arc::clone(&buffer.endpoint), buffer.address));
    }
    if places.is_empty() {
        return Err(ErrorCode::INVALID_REPLICA.into());
    }
    Ok(places)
}

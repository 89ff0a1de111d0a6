//! Reading values: one call to the master and one engine batch, however many keys.
//!
//! The master's answer is a lease: for its time the object is not evicted. While a read runs longer, the leases are
//! taken again. A read whose lease ran out all the same (this process or the master stood still) is done again, since
//! its bytes may be another object's, and is an error after a few times. Of several replicas the nearest is read first,
//! then the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mooncake_wire::ErrorCode;
use mooncake_wire::method::BatchGetReplicaList;
use mooncake_wire::model::{Placement, ReplicaList, ReplicaStatus};

use super::Core;
use super::failure::{Failure, Outcome};
use super::put::{MAX_KEYS_PER_CALL, counted};
use super::rpc::Repeat;
use super::transfer::{Move, Pieces, Run, is_of_peer};
use crate::engine::Direction;

/// Shortest time between two looks at the leases of a running read.
const SHORTEST_LOOK: Duration = Duration::from_millis(2);

/// How often the values whose lease ran out before they were read are read again.
const MAX_RETRIES: u32 = 2;

/// A replica that can be read.
#[derive(Clone, Debug)]
struct Source {
    id: u64,
    endpoint: Arc<str>,
    address: u64,
}

/// An object that can be read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Nearest first; never empty.
    sources: Vec<Source>,
    /// Bytes of the object.
    pub(super) size: u64,
    /// When the lease ends.
    until: Instant,
    lease: Duration,
}

impl Core {
    /// Finds the objects and takes a lease on each.
    pub(super) fn find(&self, keys: &[&[u8]]) -> Vec<Outcome<Found>> {
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(MAX_KEYS_PER_CALL) {
            let before = Instant::now();
            let call = BatchGetReplicaList { keys: chunk.to_vec(), tenant: self.tenant() };
            match self.master.call(&call, Repeat::Harmless).and_then(|lists| counted(lists, chunk.len())) {
                Ok(lists) => found.extend(lists.into_iter().map(|list| self.readable(list?, before))),
                Err(failure) => found.extend(chunk.iter().map(|_| Err(failure.clone()))),
            }
        }
        found
    }

    fn readable(&self, list: ReplicaList, before: Instant) -> Outcome<Found> {
        let lease = Duration::from_millis(list.lease_ttl_ms);
        let mut sources = Vec::with_capacity(list.replicas.len());
        let mut size = None;
        let mut writing = false;
        for replica in list.replicas {
            if replica.status != ReplicaStatus::Complete {
                writing = true;
                continue;
            }
            let Placement::Memory(buffer) = replica.placement else { continue };
            if *size.get_or_insert(buffer.size) != buffer.size {
                return Err(ErrorCode::INVALID_REPLICA.into());
            }
            sources.push(Source { id: replica.id, endpoint: buffer.endpoint, address: buffer.address });
        }
        let Some(size) = size else {
            let code = if writing { ErrorCode::REPLICA_IS_NOT_READY } else { ErrorCode::INVALID_REPLICA };
            return Err(code.into());
        };
        if sources.len() > 1 {
            sources.sort_by_cached_key(|source| self.distance(&source.endpoint));
        }
        let until = before.checked_add(lease).unwrap_or(before);
        Ok(Found { sources, size, until, lease })
    }

    /// Own process, same host, others; and last what failed a moment ago.
    fn distance(&self, endpoint: &str) -> u32 {
        let own = self.transfers.engine.name();
        let far = if endpoint == own {
            0
        } else if host_of(endpoint) == host_of(own) {
            1
        } else {
            2
        };
        if self.transfers.suspects.contains(endpoint) { far + 3 } else { far }
    }

    /// Reads objects to where they belong; gives the bytes of each.
    pub(super) fn fetch(
        &self,
        keys: &[&[u8]],
        mut found: Vec<Outcome<Found>>,
        targets: &[Pieces<'_>],
    ) -> Vec<Outcome<u64>> {
        let mut results: Vec<Option<Outcome<u64>>> =
            found.iter().map(|found| found.as_ref().err().map(|failure| Err(failure.clone()))).collect();
        // Position, and which of its sources is next.
        let mut open: Vec<(usize, usize)> = (0..found.len())
            .filter(|index| found.get(*index).is_some_and(Result::is_ok))
            .map(|index| (index, 0))
            .collect();
        let mut retries = 0;
        while !open.is_empty() {
            let moves: Vec<Move<'_>> = open
                .iter()
                .filter_map(|&(index, next)| {
                    let source = found.get(index)?.as_ref().ok()?.sources.get(next)?;
                    let pieces = *targets.get(index)?;
                    Some(Move { endpoint: Arc::clone(&source.endpoint), remote: source.address, pieces })
                })
                .collect();
            if moves.len() != open.len() {
                break;
            }
            let pause = look_in(&found, &open);
            let mut during = || {
                self.renew(keys, &mut found, &open);
                look_in(&found, &open)
            };
            let mut run = Run { direction: Direction::Read, pause, during: &mut during };
            let moved = self.transfers.run(&moves, &mut run);
            let now = Instant::now();
            let (mut again, mut late) = (Vec::new(), Vec::new());
            for ((index, next), moved) in open.into_iter().zip(moved) {
                let Some(Ok(object)) = found.get(index) else { continue };
                let result = match moved {
                    Ok(()) if now >= object.until && retries < MAX_RETRIES => {
                        late.push(index);
                        continue;
                    }
                    Ok(()) if now >= object.until => Err(ErrorCode::LEASE_EXPIRED.into()),
                    Ok(()) => Ok(targets.get(index).and_then(Pieces::length_bytes).unwrap_or(0)),
                    Err(error) if is_of_peer(&error) && next + 1 < object.sources.len() => {
                        again.push((index, next + 1));
                        continue;
                    }
                    Err(error) => Err(Failure::new(ErrorCode::TRANSFER_FAIL, error)),
                };
                if let Some(place) = results.get_mut(index) {
                    *place = Some(result);
                }
            }
            open = again;
            if !late.is_empty() {
                retries += 1;
                open.extend(self.find_again(keys, &late, &mut found, &mut results));
            }
        }
        let lost = || Failure::from(ErrorCode::INTERNAL_ERROR);
        let results: Vec<_> =
            results.into_iter().map(|result| result.unwrap_or_else(|| Err(lost()))).collect();
        self.report(&results);
        results
    }

    /// Finds the values of these positions anew. Gives what is to be read; what cannot be gets its result.
    fn find_again(
        &self,
        keys: &[&[u8]],
        late: &[usize],
        found: &mut [Outcome<Found>],
        results: &mut [Option<Outcome<u64>>],
    ) -> Vec<(usize, usize)> {
        let own: Vec<&[u8]> = late.iter().filter_map(|index| keys.get(*index).copied()).collect();
        let mut open = Vec::with_capacity(late.len());
        for (&index, fresh) in late.iter().zip(self.find(&own)) {
            let (Some(Ok(object)), Some(result)) = (found.get_mut(index), results.get_mut(index)) else {
                continue;
            };
            match fresh {
                Ok(fresh) if fresh.size == object.size => {
                    *object = fresh;
                    open.push((index, 0));
                }
                // Another value, for which the caller's memory was not measured.
                Ok(_) => *result = Some(Err(ErrorCode::LEASE_EXPIRED.into())),
                Err(failure) => *result = Some(Err(failure)),
            }
        }
        open
    }

    /// Takes the leases of running reads again. One that cannot be had, or that came too late, is left to run out.
    fn renew(&self, keys: &[&[u8]], found: &mut [Outcome<Found>], open: &[(usize, usize)]) {
        let own: Vec<&[u8]> = open.iter().filter_map(|(index, _)| keys.get(*index).copied()).collect();
        let renewed = self.find(&own);
        let now = Instant::now();
        for (&(index, next), renewed) in open.iter().zip(renewed) {
            let (Some(Ok(object)), Ok(renewed)) = (found.get_mut(index), renewed) else { continue };
            let Some(source) = object.sources.get(next) else { continue };
            let same =
                renewed.sources.iter().any(|other| other.id == source.id && other.address == source.address);
            // A gap between two leases is time in which the object may have been evicted and its place lent again.
            if same && now < object.until {
                object.until = renewed.until;
            }
        }
    }
}

/// When the leases should be looked at next: half of the shortest time that one still has.
fn look_in(found: &[Outcome<Found>], open: &[(usize, usize)]) -> Option<Duration> {
    let now = Instant::now();
    let left = |(index, _): &(usize, usize)| {
        let object = found.get(*index)?.as_ref().ok()?;
        let left = object.until.saturating_duration_since(now);
        // One that ran out is lost; the others still count.
        (!left.is_zero()).then(|| left.min(object.lease) / 2)
    };
    open.iter().filter_map(left).min().map(|pause| pause.max(SHORTEST_LOOK))
}

fn host_of(endpoint: &str) -> &str {
    endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host)
}

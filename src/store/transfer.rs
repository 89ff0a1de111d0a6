//! One engine batch for the values of many keys, and what became of each.
//!
//! A value is a row of pieces in this process and one contiguous place in a segment. The batch is one submission
//! however many values there are; only more pieces than a batch may hold make it several. An endpoint that just
//! failed is not tried again for a moment, so that it costs its keys an error and not a timeout each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::deadline::Deadline;
use crate::engine::{Direction, Engine, Request, TaskStatus};
use crate::error::{Code, Error, Result, Stage};

/// Most endpoints remembered as failed; the one that failed first is forgotten.
pub const MAX_SUSPECTS: usize = 256;
/// How long an endpoint that failed is not tried.
const SUSPECT_TIME: Duration = Duration::from_secs(1);
/// Most transfers remembered that could not be made quiet; of more, the memory stays locked until the engine ends.
pub const MAX_STUCK: usize = 1024;

/// Address and length in bytes of a piece of a value in this process.
pub(super) type Piece = (u64, u64);

/// One value to move: the pieces one after the other, from or to one place.
pub(super) struct Move<'a> {
    /// Where the place is.
    pub(super) endpoint: Arc<str>,
    /// Its address there.
    pub(super) remote: u64,
    /// The pieces here, each with its offset in the value.
    pub(super) pieces: Pieces<'a>,
}

/// The pieces of a value.
#[derive(Clone, Copy)]
pub(super) enum Pieces<'a> {
    /// All of the value, in order; at most `limit` bytes of them.
    Whole(&'a [Piece], u64),
    /// Parts of it: address, offset in the value, length.
    Parts(&'a [(u64, u64, u64)]),
}

impl Pieces<'_> {
    /// Bytes that move.
    pub(super) fn length_bytes(&self) -> Option<u64> {
        match self {
            Self::Whole(_, limit) => Some(*limit),
            Self::Parts(parts) => parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.2)),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Whole(pieces, _) => pieces.len(),
            Self::Parts(parts) => parts.len(),
        }
    }

    /// Address here, offset there, length.
    fn each(&self, mut take: impl FnMut(u64, u64, u64)) {
        match self {
            Self::Whole(pieces, limit) => {
                let mut offset = 0;
                for &(address, length) in *pieces {
                    let length = length.min(limit.saturating_sub(offset));
                    if length > 0 {
                        take(address, offset, length);
                    }
                    offset += length;
                }
            }
            Self::Parts(parts) => {
                for &(address, offset, length) in *parts {
                    take(address, offset, length);
                }
            }
        }
    }
}

/// What became of one value.
pub(super) type Moved = Result<()>;

/// Transfers that go on although their call has returned: batch and number of tasks.
#[derive(Default)]
pub(super) struct Stuck(Mutex<Vec<(u64, usize)>>);

impl Stuck {
    fn add(&self, batch: u64, tasks: usize) {
        let mut stuck = self.0.lock();
        if stuck.len() < MAX_STUCK {
            stuck.push((batch, tasks));
        }
    }

    /// Frees what is over; tells how many go on.
    pub(super) fn look(&self, engine: &Engine) -> usize {
        let mut over = Vec::new();
        let left = {
            let mut stuck = self.0.lock();
            let mut index = 0;
            while let Some((batch, tasks)) = stuck.get(index).copied() {
                if waiting(engine, batch, tasks) {
                    index += 1;
                } else {
                    over.push(stuck.swap_remove(index));
                }
            }
            stuck.len()
        };
        for (batch, _) in over {
            if let Err(error) = engine.free_batch(batch) {
                log::debug!("a transfer that had been given up: {error}");
            }
        }
        left
    }
}

fn waiting(engine: &Engine, batch: u64, tasks: usize) -> bool {
    (0..tasks)
        .any(|task| engine.status(batch, task).is_ok_and(|state| matches!(state.status, TaskStatus::Waiting)))
}

/// Endpoints that failed a moment ago.
#[derive(Default)]
pub(super) struct Suspects(Mutex<HashMap<Arc<str>, (Instant, Error)>>);

impl Suspects {
    fn failure(&self, endpoint: &str) -> Option<Error> {
        let suspects = self.0.lock();
        let (since, error) = suspects.get(endpoint)?;
        (since.elapsed() < SUSPECT_TIME).then(|| error.clone())
    }

    /// Whether the endpoint should be tried after others.
    pub(super) fn contains(&self, endpoint: &str) -> bool {
        self.failure(endpoint).is_some()
    }

    fn add(&self, endpoint: &Arc<str>, error: &Error) {
        let mut suspects = self.0.lock();
        if suspects.len() >= MAX_SUSPECTS && !suspects.contains_key(endpoint) {
            suspects.retain(|_, (since, _)| since.elapsed() < SUSPECT_TIME);
            let oldest =
                suspects.iter().min_by_key(|(_, (since, _))| *since).map(|(name, _)| Arc::clone(name));
            if suspects.len() >= MAX_SUSPECTS
                && let Some(oldest) = oldest
            {
                suspects.remove(&oldest);
            }
        }
        suspects.insert(Arc::clone(endpoint), (Instant::now(), error.clone()));
    }
}

/// Whether a failure is that of the other end: then another replica, or another place, may serve.
pub(super) fn is_of_peer(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::Dns
            | Code::Socket
            | Code::Endpoint
            | Code::RejectHandshake
            | Code::Metadata
            | Code::MalformedJson
            | Code::StaleIncarnation
            | Code::AddressNotRegistered
            | Code::NotSupportedTransport
            | Code::Timeout
    )
}

/// What moves data for one store.
pub(super) struct Transfers {
    pub(super) engine: Arc<Engine>,
    pub(super) suspects: Suspects,
    pub(super) stuck: Stuck,
}

/// How a batch is to be run.
pub(super) struct Run<'r> {
    pub(super) direction: Direction,
    /// Called now and then while the batch runs, when this much time has gone by since the last call.
    pub(super) pause: Option<Duration>,
    pub(super) during: &'r mut dyn FnMut() -> Option<Duration>,
}

impl Transfers {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, suspects: Suspects::default(), stuck: Stuck::default() }
    }

    /// Moves all values; one answer each.
    pub(super) fn run(&self, moves: &[Move<'_>], run: &mut Run<'_>) -> Vec<Moved> {
        let most = self.engine.config().max_batch.max(1);
        let mut results = Vec::with_capacity(moves.len());
        let mut rest = moves;
        while !rest.is_empty() {
            let mut pieces = 0_usize;
            let count = rest
                .iter()
                .take_while(|item| {
                    pieces = pieces.saturating_add(item.pieces.count());
                    pieces <= most
                })
                .count();
            let (now, later) = rest.split_at(count.clamp(1, rest.len()));
            self.run_batch(now, run, &mut results);
            rest = later;
        }
        results
    }

    fn run_batch(&self, moves: &[Move<'_>], run: &mut Run<'_>, results: &mut Vec<Moved>) {
        let mut requests = Vec::with_capacity(moves.iter().map(|item| item.pieces.count()).sum());
        // The end of each value's tasks, or why it has none.
        let mut ends: Vec<Result<usize>> = Vec::with_capacity(moves.len());
        let mut segments: Vec<(&Arc<str>, Result<i32>)> = Vec::new();
        for item in moves {
            let known = segments.iter().rev().find(|(endpoint, _)| **endpoint == item.endpoint);
            let segment = match known {
                Some((_, segment)) => segment.clone(),
                None => {
                    let segment = self.open(&item.endpoint);
                    segments.push((&item.endpoint, segment.clone()));
                    segment
                }
            };
            ends.push(segment.map(|segment| {
                item.pieces.each(|local, offset, length_bytes| {
                    let remote = item.remote.saturating_add(offset);
                    requests.push(Request { direction: run.direction, local, segment, remote, length_bytes });
                });
                requests.len()
            }));
        }
        let outcome = if requests.is_empty() { Ok(Vec::new()) } else { self.run_requests(&requests, run) };
        let mut first = 0;
        for (item, end) in moves.iter().zip(ends) {
            let moved = end.and_then(|end| {
                let start = std::mem::replace(&mut first, end);
                let moved = match &outcome {
                    Ok(failed) => {
                        let next = failed.partition_point(|(task, _)| *task < start);
                        match failed.get(next) {
                            Some((task, error)) if *task < end => Err(error.clone()),
                            _ => Ok(()),
                        }
                    }
                    Err(error) => Err(error.clone()),
                };
                moved.inspect_err(|error| self.suspect(&item.endpoint, error))
            });
            results.push(moved);
        }
    }

    fn open(&self, endpoint: &Arc<str>) -> Result<i32> {
        if let Some(error) = self.suspects.failure(endpoint) {
            return Err(error);
        }
        self.engine.open_segment(endpoint, true).inspect_err(|error| self.suspect(endpoint, error))
    }

    /// Remembers an endpoint that could not be reached.
    fn suspect(&self, endpoint: &Arc<str>, error: &Error) {
        let unreachable = matches!(
            error.code(),
            Code::Dns | Code::Socket | Code::Endpoint | Code::Metadata | Code::Timeout
        );
        if unreachable && **endpoint != *self.engine.name() {
            self.suspects.add(endpoint, error);
        }
    }

    /// Runs requests to their end; gives the tasks that failed, or why nothing was done.
    fn run_requests(&self, requests: &[Request], run: &mut Run<'_>) -> Result<Vec<(usize, Error)>> {
        let engine = &*self.engine;
        let bytes = requests.iter().fold(0_u64, |sum, request| sum.saturating_add(request.length_bytes));
        let config = engine.config();
        let limit = config.transfer_timeout;
        // After its deadline a batch stops by itself; what is then not over after the time to make it quiet is stuck.
        let quiet = limit
            .saturating_add(Duration::from_nanos(bytes))
            .saturating_add(config.drain_grace.saturating_mul(2));
        let batch = engine.allocate_batch(requests.len())?;
        if let Err(error) = engine.submit(batch, requests, None, Some(limit)) {
            let _freed = engine.free_batch(batch);
            return Err(error);
        }
        let end = Deadline::after(quiet);
        let mut pause = run.pause;
        loop {
            let slice = pause.unwrap_or(Duration::MAX).min(end.remaining());
            match engine.wait(batch, slice) {
                Ok(()) => {
                    engine.free_batch(batch)?;
                    return Ok(Vec::new());
                }
                Err(error) if waiting(engine, batch, requests.len()) => {
                    if error.code() == Code::StillRunning || end.expired() {
                        self.stuck.add(batch, requests.len());
                        let text = format!("the transfer is not quiet after its deadline: {error}");
                        return Err(Error::new(Code::StillRunning, Stage::Drain, text).advice(
                            "keep the memory until the store's drain has answered that nothing runs",
                        ));
                    }
                    if pause.is_some() {
                        pause = (run.during)();
                    }
                }
                Err(_) => break,
            }
        }
        let failed = |task| {
            let failed = engine
                .status(batch, task)
                .map_or(true, |state| !matches!(state.status, TaskStatus::Completed));
            failed.then(|| {
                let unknown = || Error::new(Code::Internal, Stage::Execute, "a task failed without a reason");
                (task, engine.task_error(batch, task).unwrap_or_else(unknown))
            })
        };
        let failed = (0..requests.len()).filter_map(failed).collect();
        engine.free_batch(batch)?;
        Ok(failed)
    }
}

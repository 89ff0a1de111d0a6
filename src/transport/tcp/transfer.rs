//! A job on its way over the lanes: cut into pieces that may finish in any order.
//!
//! Invariants: every piece is over exactly once; an extent is reported once, when its last piece is over; the
//! pins go before the last extent is reported, so that who waited for the job can unregister at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::peer::TcpPeer;
use crate::batch::{Batch, Submission};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Stage};
use crate::plan::{Direction, Extent};
use crate::registry::Pin;
use crate::transport::Job;

/// Extents are cut into pieces so that one job can use all lanes; a piece is at least this long.
const MIN_PIECE_BYTES: u64 = 256 << 10;
/// A piece is at most this long, so that lanes are balanced and a stop is prompt.
const MAX_PIECE_BYTES: u64 = 4 << 20;
/// The same for peers that take one connection for each request.
const MAX_UNCONFIRMED_PIECE_BYTES: u64 = 64 << 20;

/// One extent's state: pieces that are not over.
struct Progress(AtomicU32);

/// A job that is under way.
pub(super) struct Transfer {
    // First, so that they go before the submission does when a transfer is lost.
    pins: Mutex<Vec<Pin>>,
    direction: Direction,
    extents: Vec<Extent>,
    progress: Box<[Progress]>,
    errors: Mutex<BTreeMap<u32, Error>>,
    pieces: AtomicUsize,
    piece_bytes: u64,
    submission: Arc<Submission>,
    deadline: Deadline,
    name: Arc<str>,
    /// Keeps the lanes as long as anything is under way on them.
    _peer: Arc<TcpPeer>,
}

/// Part of an extent: one request on the wire.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) transfer: Arc<Transfer>,
    extent: u32,
    pub(super) local: u64,
    pub(super) remote: u64,
    pub(super) length_bytes: u64,
    /// How often a connection broke before anything of it was sent.
    pub(super) retries: u8,
}

/// Where the next piece of a transfer begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    extent: u32,
    offset_bytes: u64,
}

/// How a piece ended, to be reported once no lock is held.
pub(super) struct Over {
    piece: Piece,
    error: Option<Error>,
}

impl Over {
    pub(super) fn done(piece: Piece) -> Self {
        Self { piece, error: None }
    }

    pub(super) fn failed(piece: Piece, error: &Error) -> Self {
        Self { piece, error: Some(error.clone()) }
    }
}

/// Reports pieces that are over.
pub(super) fn report(overs: &mut Vec<Over>) {
    for Over { piece, error } in overs.drain(..) {
        piece.transfer.over(piece.extent, error);
    }
}

fn pieces_of(length_bytes: u64, piece_bytes: u64) -> u32 {
    u32::try_from(length_bytes.div_ceil(piece_bytes)).unwrap_or(u32::MAX)
}

impl Transfer {
    /// Cuts a job into pieces for `lanes` lanes.
    pub(super) fn new(job: Job, lanes: usize, confirmed: bool, peer: &Arc<TcpPeer>) -> Arc<Self> {
        let total_bytes =
            job.extents.iter().fold(0_u64, |sum, extent| sum.saturating_add(extent.length_bytes));
        let lanes = u64::try_from(lanes).unwrap_or(1).max(1);
        let piece_bytes = if confirmed {
            total_bytes.div_ceil(lanes).clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES)
        } else {
            MAX_UNCONFIRMED_PIECE_BYTES
        };
        let counts = job.extents.iter().map(|extent| pieces_of(extent.length_bytes, piece_bytes));
        let progress: Box<[Progress]> = counts.map(|count| Progress(AtomicU32::new(count))).collect();
        let pieces = job
            .extents
            .iter()
            .map(|extent| pieces_of(extent.length_bytes, piece_bytes))
            .fold(0, |sum, count| {
                usize::try_from(count).map_or(usize::MAX, |count| count.saturating_add(sum))
            });
        Arc::new(Self {
            pins: Mutex::new(job.pins),
            direction: job.direction,
            extents: job.extents,
            progress,
            errors: Mutex::default(),
            pieces: AtomicUsize::new(pieces),
            piece_bytes,
            submission: job.submission,
            deadline: job.deadline,
            name: job.peer,
            _peer: Arc::clone(peer),
        })
    }

    /// Number of pieces that are not over.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.load(Ordering::Acquire)
    }

    /// Number of bytes of all extents.
    pub(super) fn length_bytes(&self) -> u64 {
        self.extents.iter().fold(0, |sum: u64, extent| sum.saturating_add(extent.length_bytes))
    }

    /// The next piece, and moves the cursor behind it; `None` at the end.
    pub(super) fn next(self: &Arc<Self>, cursor: &mut Cursor) -> Option<Piece> {
        let extent = self.extents.get(usize::try_from(cursor.extent).ok()?)?;
        let offset_bytes = cursor.offset_bytes;
        let left_bytes = extent.length_bytes.saturating_sub(offset_bytes);
        let length_bytes = left_bytes.min(self.piece_bytes);
        let piece = Piece {
            transfer: Arc::clone(self),
            extent: cursor.extent,
            local: extent.local.saturating_add(offset_bytes),
            remote: extent.remote.saturating_add(offset_bytes),
            length_bytes,
            retries: 0,
        };
        if length_bytes == left_bytes {
            *cursor = Cursor { extent: cursor.extent.saturating_add(1), offset_bytes: 0 };
        } else {
            cursor.offset_bytes = offset_bytes.saturating_add(length_bytes);
        }
        Some(piece)
    }

    /// What its tasks belong to.
    pub(super) fn batch(&self) -> &Batch {
        self.submission.batch()
    }

    /// Write to the peer, or read from it.
    pub(super) fn is_write(&self) -> bool {
        self.direction == Direction::Write
    }

    /// Whether its batch was asked to stop, without a look at the clock.
    pub(super) fn is_stopped(&self) -> bool {
        self.submission.cancelled()
    }

    /// Why it must not go on, if so. Reads the clock.
    pub(super) fn must_stop(&self, what: &str) -> Option<Error> {
        let code = match self.submission.must_stop() {
            Some(stop) => stop.code(),
            None if self.deadline.expired() => Code::Timeout,
            None => return None,
        };
        let waited_ms = self.submission.elapsed().as_millis();
        Some(Error::new(code, Stage::Execute, format!("{what} after {waited_ms} ms")))
    }

    fn over(&self, extent: u32, error: Option<Error>) {
        let Some((index, progress)) =
            usize::try_from(extent).ok().and_then(|index| Some((index, self.progress.get(index)?)))
        else {
            return;
        };
        if let Some(error) = error {
            self.errors.lock().entry(extent).or_insert_with(|| error.peer(&*self.name));
        }
        let extent_over = progress.0.fetch_sub(1, Ordering::AcqRel) == 1;
        if self.pieces.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(std::mem::take(&mut *self.pins.lock()));
        }
        if !extent_over {
            return;
        }
        let Some(range) = self.extents.get(index) else { return };
        let error = self.errors.lock().remove(&extent);
        match error {
            Some(error) => self.submission.extent_failed(range, &error),
            None => {
                self.submission.note_moved(self.direction, range.length_bytes);
                self.submission.extent_done(range);
            }
        }
    }
}

impl Piece {
    /// The local memory, for messages.
    pub(super) fn named(&self, error: Error) -> Error {
        error.range(self.remote, self.length_bytes)
    }
}

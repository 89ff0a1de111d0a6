//! A request in pieces that fit a slot, and how the pieces' ends become the request's.
//!
//! Pieces are taken in order and may end in any order; the request hears of an end when all before it are over, so
//! its extents finish in order as everywhere. After a failure no piece is taken any more, and the request fails when
//! the last piece that was taken is over, which is when nothing of it runs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Stage};
use crate::transport::Request;

/// Most blocks of a piece; bounds the message that names them.
pub const MAX_PIECE_BLOCKS: usize = 2048;

/// Shortest piece that a request is cut into for the sake of overlap.
const SHORTEST_PIECE_BYTES: u64 = 256 << 10;

/// Pieces that a request is cut into at least, if they do not become too short: gather, wire and scatter of
/// neighbours then overlap.
const OVERLAP: u64 = 6;

/// A contiguous part of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Address here.
    pub local: u64,
    /// Address at the peer.
    pub remote: u64,
    /// Number of bytes.
    pub length_bytes: u64,
}

/// What of a request goes through one slot.
pub struct Piece {
    /// Whose.
    pub work: Arc<Work>,
    /// In the order in which they stand in the slot.
    pub blocks: Vec<Block>,
    /// All of them.
    pub length_bytes: u64,
    number: u64,
}

/// How a piece ended.
pub enum End {
    /// It has arrived.
    Arrived,
    /// It has not, and is quiet.
    Failed(Error),
}

/// One piece under way, or over while an earlier one is not.
struct Taken {
    /// Extents before this have arrived when the piece and all before it have.
    end: usize,
    arrived: bool,
}

#[derive(Default)]
struct State {
    extent: usize,
    offset_bytes: u64,
    /// Pieces from the first that is not over; `first` is its number.
    taken: VecDeque<Taken>,
    first: u64,
    running: usize,
    failure: Option<Error>,
}

/// A request on its way through slots.
pub struct Work {
    request: Arc<Request>,
    piece_bytes: u64,
    state: Mutex<State>,
    /// When its first piece was taken.
    begun: OnceLock<Instant>,
    told: AtomicBool,
}

impl Work {
    /// All of a request, for slots of `slot_bytes`; `fill_bytes` of a slot are used where the costs say how much.
    #[must_use]
    pub fn new(request: &Arc<Request>, slot_bytes: u64, fill_bytes: Option<u64>) -> Arc<Self> {
        let share_bytes = || request.length_bytes().div_ceil(OVERLAP).max(SHORTEST_PIECE_BYTES);
        let state = State { extent: request.finished(), ..State::default() };
        Arc::new(Self {
            request: Arc::clone(request),
            piece_bytes: fill_bytes.unwrap_or_else(share_bytes).min(slot_bytes).max(1),
            state: Mutex::new(state),
            begun: OnceLock::new(),
            told: AtomicBool::new(false),
        })
    }

    /// From the first piece until now, if there was one.
    #[must_use]
    pub fn executing(&self) -> Option<Duration> {
        self.begun.get().map(Instant::elapsed)
    }

    /// Whose.
    #[must_use]
    pub fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// Whether this is the first time that somebody wants to tell of its end.
    #[must_use]
    pub fn tell(&self) -> bool {
        !self.told.swap(true, Ordering::AcqRel)
    }

    /// How many pieces it comes to, about.
    #[must_use]
    pub fn pieces(&self) -> usize {
        let by_bytes = self.request.length_bytes().div_ceil(self.piece_bytes);
        let by_blocks = self.request.extents().len().div_ceil(MAX_PIECE_BLOCKS);
        usize::try_from(by_bytes).unwrap_or(usize::MAX).max(by_blocks)
    }

    /// The next piece; `None` when there is none any more.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Piece> {
        let mut state = self.state.lock();
        if state.failure.is_some() {
            return None;
        }
        let mut blocks = Vec::new();
        let mut length_bytes = 0_u64;
        while blocks.len() < MAX_PIECE_BLOCKS && length_bytes < self.piece_bytes {
            let Some(extent) = self.request.extents().get(state.extent) else { break };
            let left_bytes = extent.length_bytes.saturating_sub(state.offset_bytes);
            let step_bytes = left_bytes.min(self.piece_bytes.saturating_sub(length_bytes));
            blocks.push(Block {
                local: extent.local.saturating_add(state.offset_bytes),
                remote: extent.remote.saturating_add(state.offset_bytes),
                length_bytes: step_bytes,
            });
            length_bytes = length_bytes.saturating_add(step_bytes);
            if step_bytes == left_bytes {
                state.extent = state.extent.saturating_add(1);
                state.offset_bytes = 0;
            } else {
                state.offset_bytes = state.offset_bytes.saturating_add(step_bytes);
            }
        }
        if blocks.is_empty() {
            return None;
        }
        self.begun.get_or_init(Instant::now);
        let number = state.first.saturating_add(u64::try_from(state.taken.len()).unwrap_or(u64::MAX));
        let end = state.extent;
        state.taken.push_back(Taken { end, arrived: false });
        state.running = state.running.saturating_add(1);
        Some(Piece { work: Arc::clone(self), blocks, length_bytes, number })
    }

    /// Fails it if it has to stop and nothing of it runs; whether it is over.
    pub fn stop_if_overdue(&self, what: &str) -> bool {
        if self.request.is_overdue()
            && let Some(error) = self.request.must_stop(Stage::Submit, what)
        {
            self.fail(&error);
        }
        let state = self.state.lock();
        state.failure.is_some() && state.running == 0
    }

    /// No piece of it is taken any more; it fails when nothing of it runs.
    pub fn fail(&self, error: &Error) {
        let mut state = self.state.lock();
        let error = state.failure.get_or_insert_with(|| error.clone()).clone();
        if state.running == 0 {
            self.request.fail(&error);
        }
    }
}

impl Piece {
    /// The piece is over.
    pub fn finish(self, end: End) {
        let mut state = self.work.state.lock();
        state.running = state.running.saturating_sub(1);
        match end {
            End::Arrived => {
                let index = usize::try_from(self.number.saturating_sub(state.first)).unwrap_or(usize::MAX);
                if let Some(taken) = state.taken.get_mut(index) {
                    taken.arrived = true;
                }
            }
            End::Failed(error) => {
                state.failure.get_or_insert(error);
            }
        }
        let mut arrived = None;
        while state.taken.front().is_some_and(|taken| taken.arrived) {
            arrived = state.taken.pop_front().map(|taken| taken.end);
            state.first = state.first.saturating_add(1);
        }
        // Under the lock: the request is told of its ends one after another.
        if let Some(end) = arrived {
            self.work.request.arrived(end);
        }
        if state.running == 0
            && let Some(error) = &state.failure
        {
            self.work.request.fail(error);
        }
    }
}

//! A request in pieces that fit a slot, and how the pieces' ends become the request's.
//!
//! Pieces are taken in order and may end in any order; the request hears of an end when all before it are over, so
//! its extents finish in order as everywhere. After a failure no piece is taken any more, and the request fails when
//! the last piece that was taken is over, which is when nothing of it runs.
//!
//! A request that both ends launch is cut alike, only that its pieces go through no slots: each is launched by the end
//! that has fewer of them, and they shorten towards the end of the request, so that both ends are done at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Stage};
use crate::plan::{Fill, MAX_EXTENTS_PER_CALL};
use crate::transport::Request;

/// Most blocks of a piece; bounds the message that names them.
pub const MAX_PIECE_BLOCKS: usize = 2048;

/// Shortest piece that a request is cut into for the sake of overlap.
const SHORTEST_PIECE_BYTES: u64 = 256 << 10;

/// Pieces that a request is cut into at least, if they do not become too short: gather, wire and scatter of
/// neighbours then overlap.
const OVERLAP: u64 = 6;

/// Blocks of a piece that is launched by one end: one call of the vendor's at most, and few enough at the end of a
/// request that neither end waits long for the other.
const LAUNCHED_BLOCKS: std::ops::RangeInclusive<usize> = 4..=MAX_EXTENTS_PER_CALL;

/// A piece that is launched by one end is this part of what is left.
const LAUNCHED_PART: usize = 8;

/// Which way a request's pieces go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Through slots, filled as planned where that was planned.
    Slots(Option<Fill>),
    /// A descriptor for each block, launched by either end.
    BothEnds,
}

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
    /// The peer launches it, where both ends do.
    pub by_peer: bool,
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
    /// Bytes of all pieces that were taken.
    moved_bytes: u64,
    /// Where the next piece is to end, and the number of the slot it was planned for.
    until_bytes: u64,
    planned: u64,
    /// Pieces from the first that is not over; `first` is its number.
    taken: VecDeque<Taken>,
    first: u64,
    running: usize,
    /// Of these, how many the peer launches.
    running_at_peer: usize,
    /// The peer takes none.
    peer_refuses: bool,
    failure: Option<Error>,
}

/// A request on its way through slots.
pub struct Work {
    request: Arc<Request>,
    fill: Fill,
    slot_bytes: u64,
    both_ends: bool,
    modelled_us: Option<f64>,
    state: Mutex<State>,
    /// When its first piece was taken.
    begun: OnceLock<Instant>,
    told: AtomicBool,
}

impl Work {
    /// All of a request, for slots of `slot_bytes` where it goes through slots.
    #[must_use]
    pub fn new(request: &Arc<Request>, slot_bytes: u64, means: Means, modelled_us: Option<f64>) -> Arc<Self> {
        let (both_ends, slot_bytes, fill) = match means {
            Means::Slots(fill) => (false, slot_bytes, fill),
            // Blocks are as long as they are.
            Means::BothEnds => (true, u64::MAX, Some(Fill::even(u64::MAX))),
        };
        let share_bytes = || request.length_bytes().div_ceil(OVERLAP).max(SHORTEST_PIECE_BYTES);
        let slot_bytes = slot_bytes.max(1);
        let state = State { extent: request.finished(), ..State::default() };
        Arc::new(Self {
            request: Arc::clone(request),
            fill: fill.unwrap_or_else(|| Fill::even(share_bytes().min(slot_bytes))),
            slot_bytes,
            both_ends,
            modelled_us,
            state: Mutex::new(state),
            begun: OnceLock::new(),
            told: AtomicBool::new(false),
        })
    }

    /// Whether its pieces are launched by both ends and go through no slots.
    #[must_use]
    pub fn is_from_both_ends(&self) -> bool {
        self.both_ends
    }

    /// What the table of costs says that all of it takes, where it was asked.
    #[must_use]
    pub fn modelled_us(&self) -> Option<f64> {
        self.modelled_us
    }

    /// The peer launches nothing of it from now on.
    pub fn peer_refuses(&self) {
        self.state.lock().peer_refuses = true;
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
        if self.both_ends {
            return self.request.extents().len().div_ceil(*LAUNCHED_BLOCKS.start());
        }
        let by_bytes =
            self.request.length_bytes().div_ceil(self.fill.fullest_bytes.clamp(1, self.slot_bytes));
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
        let most_blocks = if self.both_ends {
            let left = self.request.extents().len().saturating_sub(state.extent);
            (left / LAUNCHED_PART).clamp(*LAUNCHED_BLOCKS.start(), *LAUNCHED_BLOCKS.end())
        } else {
            MAX_PIECE_BLOCKS
        };
        while blocks.len() < most_blocks {
            let Some(extent) = self.request.extents().get(state.extent) else { break };
            let left_bytes = extent.length_bytes.saturating_sub(state.offset_bytes);
            if blocks.is_empty() {
                self.plan_piece(&mut state, left_bytes);
            }
            let aim_bytes = state.until_bytes.saturating_sub(state.moved_bytes.saturating_add(length_bytes));
            let room_bytes = self.slot_bytes.saturating_sub(length_bytes);
            let Some(step_bytes) = self.step_bytes(left_bytes, aim_bytes, room_bytes) else { break };
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
        state.moved_bytes = state.moved_bytes.saturating_add(length_bytes);
        self.begun.get_or_init(Instant::now);
        let number = state.first.saturating_add(u64::try_from(state.taken.len()).unwrap_or(u64::MAX));
        let end = state.extent;
        state.taken.push_back(Taken { end, arrived: false });
        let at_peer = state.running_at_peer;
        let by_peer =
            self.both_ends && !state.peer_refuses && at_peer < state.running.saturating_sub(at_peer);
        state.running = state.running.saturating_add(1);
        state.running_at_peer = at_peer.saturating_add(usize::from(by_peer));
        Some(Piece { work: Arc::clone(self), blocks, length_bytes, by_peer, number })
    }

    /// Sets where the next piece is to end, which begins with `left_bytes` of an extent. What the piece before it
    /// took too much or too little is made up for.
    fn plan_piece(&self, state: &mut State, left_bytes: u64) {
        let half_bytes = if self.is_whole(left_bytes) { left_bytes / 2 } else { 0 };
        let least_bytes = state.moved_bytes.saturating_add(half_bytes).saturating_add(1);
        while state.until_bytes < least_bytes {
            let length_bytes = self.fill.length_bytes(state.planned).clamp(1, self.slot_bytes);
            state.until_bytes = state.until_bytes.saturating_add(length_bytes);
            state.planned = state.planned.saturating_add(1);
        }
    }

    /// How much a piece takes of an extent that has `left_bytes`, when `aim_bytes` are planned yet and `room_bytes`
    /// would fit; `None` when it is full.
    fn step_bytes(&self, left_bytes: u64, aim_bytes: u64, room_bytes: u64) -> Option<u64> {
        if self.is_whole(left_bytes) {
            return (left_bytes <= room_bytes && left_bytes / 2 < aim_bytes).then_some(left_bytes);
        }
        let step_bytes = left_bytes.min(aim_bytes).min(room_bytes);
        (step_bytes > 0).then_some(step_bytes)
    }

    /// Whether so much of an extent is taken by one piece or not at all, since each part costs copies of its own.
    fn is_whole(&self, left_bytes: u64) -> bool {
        left_bytes <= self.fill.fullest_bytes.min(self.slot_bytes)
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
        state.running_at_peer = state.running_at_peer.saturating_sub(usize::from(self.by_peer));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{Batch, Submission};
    use crate::deadline::Deadline;
    use crate::plan::{Direction, Extent};
    use crate::transport::{Job, Route};

    fn work(lengths: &[u64], slot_bytes: u64, fill: Option<Fill>) -> Arc<Work> {
        work_by(lengths, slot_bytes, Means::Slots(fill))
    }

    fn work_by(lengths: &[u64], slot_bytes: u64, means: Means) -> Arc<Work> {
        let batch = Arc::new(Batch::new(u32::try_from(lengths.len()).unwrap()).unwrap());
        let deadline = Deadline::after(Duration::from_secs(60));
        let submission = Submission::start(&batch, lengths.iter().copied(), deadline).unwrap();
        let extent = |(task, length_bytes): (u32, &u64)| Extent {
            local: u64::from(task) << 32,
            remote: u64::from(task) << 33,
            length_bytes: *length_bytes,
            first_task: task,
            task_count: 1,
            skip_bytes: 0,
        };
        let request = Request::new(Job {
            direction: Direction::Write,
            extents: (0..).zip(lengths).map(extent).collect(),
            submission,
            pins: Vec::new(),
            deadline,
            local_device: None,
            remote_device: None,
            route: Route::Staged,
            peer: Arc::from("peer"),
        });
        Work::new(&request, slot_bytes, means, None)
    }

    fn pieces(work: &Arc<Work>) -> Vec<Vec<Block>> {
        let mut blocks = Vec::new();
        while let Some(piece) = work.take() {
            blocks.push(piece.blocks.clone());
            piece.finish(End::Arrived);
        }
        assert!(work.request().is_finished());
        blocks
    }

    #[test]
    fn pieces_shorten_as_planned_and_cut_no_block() {
        let fill = Fill::tapered(1000, 6, 250, 50, false).unwrap();
        let counts: Vec<usize> = pieces(&work(&[10; 100], 300, Some(fill))).iter().map(Vec::len).collect();
        assert_eq!(counts, [25, 25, 20, 15, 10, 5]);
        // Blocks that the lengths are no multiples of: none is cut, and the sums stay as planned.
        let counts: Vec<usize> = pieces(&work(&[40; 25], 300, Some(fill))).iter().map(Vec::len).collect();
        assert_eq!(counts.iter().sum::<usize>(), 25);
        assert!(counts.is_sorted_by(|one, next| next <= one || next - one <= 1), "{counts:?}");
        assert!(counts.len() <= 6 && counts.iter().all(|count| count * 40 <= 300), "{counts:?}");
    }

    #[test]
    fn pieces_from_both_ends_are_whole_blocks_and_shorten() {
        let lengths: Vec<u64> = (1..=3000).collect();
        let work = work_by(&lengths, 10, Means::BothEnds);
        assert!(work.is_from_both_ends());
        let mut counts = Vec::new();
        let (mut running, mut by_peer, mut next) = (VecDeque::new(), 0_usize, 1);
        while let Some(piece) = work.take() {
            for block in &piece.blocks {
                assert_eq!(block.length_bytes, next);
                next += 1;
            }
            counts.push(piece.blocks.len());
            by_peer += usize::from(piece.by_peer);
            running.push_back(piece);
            // Two of either end at a time.
            if running.len() == 4 {
                running.pop_front().unwrap().finish(End::Arrived);
            }
        }
        running.into_iter().for_each(|piece| piece.finish(End::Arrived));
        assert!(work.request().is_finished() && next == 3001);
        assert!(counts.iter().all(|count| *count <= MAX_EXTENTS_PER_CALL), "{counts:?}");
        assert!(counts.is_sorted_by(|one, next| next <= one) && counts.last().unwrap() <= &4, "{counts:?}");
        assert!(by_peer.abs_diff(counts.len() / 2) <= 1, "{by_peer} of {}", counts.len());
    }

    #[test]
    fn a_peer_that_refuses_launches_nothing() {
        let work = work_by(&[10; 100], 10, Means::BothEnds);
        let first = work.take().unwrap();
        let second = work.take().unwrap();
        assert!(!first.by_peer && second.by_peer);
        work.peer_refuses();
        let mut rest = Vec::new();
        while let Some(piece) = work.take() {
            assert!(!piece.by_peer);
            rest.push(piece);
        }
        rest.into_iter().chain([second, first]).for_each(|piece| piece.finish(End::Arrived));
        assert!(work.request().is_finished());
    }

    proptest! {
        /// Whatever the lengths are: every byte is in one piece, in order, no piece is longer than a slot, and no
        /// block is cut that is no longer than the fullest piece.
        #[test]
        fn pieces_are_the_extents(
            lengths in prop::collection::vec(1_u64..5000, 1..200),
            slot_bytes in 1_u64..3000,
            share_percent in 1_u64..=100,
            slots in 1_u64..60,
            step_bytes in 0_u64..200,
            way in 0..4,
        ) {
            let total_bytes = lengths.iter().sum();
            let fill = match way {
                0 => None,
                1 => Some(Fill::even(slot_bytes * share_percent / 100)),
                _ => Fill::tapered(total_bytes, slots, slot_bytes, step_bytes, way == 2),
            };
            let work = work(&lengths, slot_bytes, fill);
            let pieces = pieces(&work);
            let mut rest = lengths.iter().zip(0_u64..).map(|(length, task)| (task, *length)).peekable();
            let (mut moved, mut offset) = (0, 0);
            for piece in &pieces {
                prop_assert!(piece.iter().map(|block| block.length_bytes).sum::<u64>() <= slot_bytes);
                for block in piece {
                    let (task, length) = *rest.peek().unwrap();
                    prop_assert_eq!(block.local, (task << 32) + offset);
                    prop_assert_eq!(block.remote, (task << 33) + offset);
                    prop_assert!(block.length_bytes > 0);
                    prop_assert!(
                        block.length_bytes == length || length > work.fill.fullest_bytes.min(slot_bytes)
                    );
                    moved += block.length_bytes;
                    offset += block.length_bytes;
                    prop_assert!(offset <= length);
                    if offset == length {
                        rest.next();
                        offset = 0;
                    }
                }
            }
            prop_assert_eq!(moved, total_bytes);
        }
    }
}

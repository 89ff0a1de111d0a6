//! One task: four atomics that settle into a terminal state.

use crate::sync::{AtomicU8, AtomicU64, Ordering};

const COMPLETED: u8 = 1;
const FAILED: u8 = 2;
/// A poll or a finished wait has seen the terminal state.
const OBSERVED: u8 = 4;
/// Some bytes failed; what the state becomes once the rest is settled.
const DOOMED: u8 = 8;

const TERMINAL: u8 = COMPLETED | FAILED;

/// What a poll sees. Upstream's other statuses are never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskStatus {
    /// Not finished.
    Waiting,
    /// All bytes are where they should be.
    Completed,
    /// At least one byte failed, and nothing of it is running any more.
    Failed,
}

/// What became of a share of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Moved,
    Failed,
}

/// What settling a share led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// More is to come, or all was settled before.
    No,
    Completed,
    Failed,
}

#[derive(Debug)]
pub(super) struct Task {
    length_bytes: AtomicU64,
    unsettled_bytes: AtomicU64,
    moved_bytes: AtomicU64,
    state: AtomicU8,
}

impl Task {
    pub(super) fn new() -> Self {
        Self {
            length_bytes: AtomicU64::new(0),
            unsettled_bytes: AtomicU64::new(0),
            moved_bytes: AtomicU64::new(0),
            state: AtomicU8::new(0),
        }
    }

    /// Gives the task its length; before any transport knows of it. True when there is nothing to do.
    pub(super) fn start(&self, length_bytes: u64) -> bool {
        self.length_bytes.store(length_bytes, Ordering::Relaxed);
        self.unsettled_bytes.store(length_bytes, Ordering::Relaxed);
        if length_bytes == 0 {
            self.state.store(COMPLETED, Ordering::Release);
        }
        length_bytes == 0
    }

    pub(super) fn length_bytes(&self) -> u64 {
        self.length_bytes.load(Ordering::Relaxed)
    }

    /// Settles `share_bytes` of the task. A share that was settled before is ignored.
    pub(super) fn settle(&self, share_bytes: u64, fate: Fate) -> Settled {
        if share_bytes == self.length_bytes() {
            return self.settle_whole(share_bytes, fate);
        }
        match fate {
            Fate::Moved => _ = self.moved_bytes.fetch_add(share_bytes, Ordering::Relaxed),
            Fate::Failed => _ = self.state.fetch_or(DOOMED, Ordering::Relaxed),
        }
        // Release what this share wrote, acquire what the others wrote: the one who settles the last byte
        // sees all of it.
        let before = self
            .unsettled_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| left.checked_sub(share_bytes));
        match before {
            Ok(left) if left == share_bytes && share_bytes > 0 => self.finish(),
            Ok(_) => Settled::No,
            Err(_) => {
                log::error!("more bytes of a task were settled than it has");
                Settled::No
            }
        }
    }

    /// The common case: one extent holds the whole task, so one exchange settles it.
    fn settle_whole(&self, share_bytes: u64, fate: Fate) -> Settled {
        let (terminal, settled) = match fate {
            Fate::Moved => (COMPLETED, Settled::Completed),
            Fate::Failed => (FAILED, Settled::Failed),
        };
        if fate == Fate::Moved {
            self.moved_bytes.store(share_bytes, Ordering::Relaxed);
        }
        match self.state.compare_exchange(0, terminal, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => settled,
            Err(_) => Settled::No,
        }
    }

    fn finish(&self) -> Settled {
        let doomed = self.state.load(Ordering::Relaxed) & DOOMED != 0;
        let (terminal, settled) =
            if doomed { (FAILED, Settled::Failed) } else { (COMPLETED, Settled::Completed) };
        let before = self.state.fetch_or(terminal, Ordering::Release);
        if before & TERMINAL == 0 { settled } else { Settled::No }
    }

    /// Fails the task whatever is left of it; only when nothing of it runs. False when it was terminal.
    pub(super) fn abandon(&self) -> bool {
        let before = self.state.fetch_update(Ordering::Release, Ordering::Relaxed, |state| {
            (state & TERMINAL == 0).then_some(state | FAILED)
        });
        before.is_ok()
    }

    /// Status and bytes moved so far, without counting as an observation.
    pub(super) fn peek(&self) -> (TaskStatus, u64) {
        let state = self.state.load(Ordering::Acquire);
        (status(state), self.moved_bytes.load(Ordering::Relaxed))
    }

    /// Status and bytes moved so far; a terminal state counts as observed from now on.
    pub(super) fn observe(&self) -> (TaskStatus, u64) {
        let state = self.state.load(Ordering::Acquire);
        if state & TERMINAL != 0 && state & OBSERVED == 0 {
            self.state.fetch_or(OBSERVED, Ordering::Relaxed);
        }
        (status(state), self.moved_bytes.load(Ordering::Relaxed))
    }

    /// Whether somebody has seen the terminal state.
    pub(super) fn is_observed(&self) -> bool {
        self.state.load(Ordering::Acquire) & OBSERVED != 0
    }
}

fn status(state: u8) -> TaskStatus {
    if state & FAILED != 0 {
        TaskStatus::Failed
    } else if state & COMPLETED != 0 {
        TaskStatus::Completed
    } else {
        TaskStatus::Waiting
    }
}

//! Moving host memory by calls that copy: small requests at once, larger ones on a few threads that share each
//! request piece by piece. How a piece is copied is a [`Mover`]'s business.
//!
//! A request is seen as one string of bytes, its extents one behind another; threads take the next piece of it until
//! none is left, and who finishes the last piece finishes the request.
//!
//! Who waits for a request copies, too. Threads of the pool come to his help as far as there are cores that do not
//! copy already ([`seats`]), and a request that has nobody who waits gets one in any case. A thread that has come to
//! the end of its work looks for more for [`IDLE_LIMIT`] before it sleeps, if requests came that fast of late: to wake
//! one takes a virtual machine longer than to copy a megabyte.

mod pieces;
mod queue;
mod seats;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::batch::{Batch, Help};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::copy::Caching;
use crate::plan::Direction;
use crate::transport::Request;
use pieces::Copy;
use queue::{Queue, Queued};
use seats::{Seat, Seats};

/// What is copied on the caller's thread.
const INLINE_LIMIT_BYTES: u64 = 256 << 10;

/// The most that a thread takes at once.
pub(crate) const PIECE_BYTES: u64 = 512 << 10;

/// The least that a thread takes at once, of requests that several share.
const LEAST_PIECE_BYTES: u64 = 128 << 10;

/// Pieces of a request for each thread, so that all come to its end at about the same time.
const PIECES_PER_THREAD: u64 = 4;

/// Every thread that helps has so much to copy, or it is not worth its coming.
const HELPER_BYTES: u64 = 256 << 10;

/// How long a thread without work looks for more before it sleeps.
const IDLE_LIMIT: Duration = Duration::from_micros(60);

/// Pauses between two looks.
const PAUSES: u32 = 16;

/// Most threads of a copier, or at one peer of a copier that waits; memory bandwidth is used up by few.
const THREAD_LIMIT: usize = 4;

/// Most threads of a copier whose movers wait for peers. It takes six peers that stand still, and nobody has noticed
/// yet, to hold them all; they end with the time limits of what they work on.
const WAITING_THREAD_LIMIT: usize = 16;

/// How often a thread without work looks whether a request has to stop whose peer may have no more threads.
const HELD_BACK_LOOK: Duration = Duration::from_millis(50);

/// Most blocks of one call of a mover.
pub(crate) const MAX_BLOCKS: usize = 128;

/// A part of an extent, at both ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Block {
    /// Address here.
    pub(crate) local: u64,
    /// Address at the other end.
    pub(crate) remote: u64,
    /// Number of bytes.
    pub(crate) length_bytes: u64,
}

/// Copies blocks: at most [`MAX_BLOCKS`] and as many bytes as a piece has, so that a stop is prompt.
pub(crate) trait Mover: Send + Sync {
    /// Copies all of them, or fails and touches nothing any more; a panic is a failure like any other.
    fn copy(&self, direction: Direction, blocks: &[Block], caching: Caching) -> Result<()>;
}

/// A request that who waits for it may work on, too.
struct Assisted {
    copy: Copy,
    shared: Weak<Shared>,
}

impl Help for Assisted {
    fn may_sleep(&self) -> bool {
        false
    }

    fn help(&self, _batch: &Batch, deadline: Deadline) {
        let Some(shared) = self.shared.upgrade() else { return };
        // The request's own deadline is looked at piece by piece, as on any thread. The helper's may be sooner: then the
        // thread goes on that was told of it. A request that he alone is to work on has no more time than he.
        let helped =
            shared.queue.lock().copies.iter().find(|queued| queued.is(self)).map(|queued| queued.helped);
        if let Some(helped) = helped {
            let _seat = shared.seats.map(Seats::call);
            shared.work(self, Some(deadline).filter(|_| !helped));
        }
    }
}

impl Assisted {
    /// Whose memory it is about.
    fn peer(&self) -> &Arc<str> {
        &self.copy.request().job().peer
    }

    /// Whether all that is left of it is to say that it has failed.
    fn is_overdue(&self, now: Instant) -> bool {
        let request = self.copy.request();
        let submission = &request.job().submission;
        submission.cancelled() || submission.deadline().sooner(request.deadline()).at() <= now
    }
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    stopping: AtomicBool,
    /// Requests in the queue that somebody works on, and those that need a thread. For who looks without the lock.
    helped: AtomicUsize,
    alone: AtomicUsize,
    /// Where threads that copy are counted; nowhere when they mostly wait.
    seats: Option<&'static Seats>,
}

/// Copies host memory.
pub(crate) struct HostCopier {
    shared: Arc<Shared>,
    /// Name of its threads, to which a number is added.
    name: &'static str,
    /// Up to so many bytes are copied on the caller's thread.
    inline_bytes: u64,
}

impl HostCopier {
    /// Without threads yet.
    pub(crate) fn new(name: &'static str) -> Self {
        let shared = Arc::new(Shared::new(Some(Seats::of_process())));
        Self { shared, name, inline_bytes: INLINE_LIMIT_BYTES }
    }

    /// The same for movers that wait for somebody: nothing is done on the caller's thread.
    pub(crate) fn that_waits(name: &'static str) -> Self {
        Self { shared: Arc::new(Shared::new(None)), name, inline_bytes: 0 }
    }

    /// Copies now, or queues the request.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] after [`stop`](Self::stop), [`Code::Internal`] when no thread can be had.
    pub(crate) fn submit(&self, request: &Arc<Request>, mover: &Arc<dyn Mover>) -> Result<()> {
        let copy = Copy::new(request, mover);
        let length_bytes = copy.length_bytes();
        if length_bytes <= self.inline_bytes {
            copy.work(&self.shared.stopping, None);
            return Ok(());
        }
        let (most, piece_bytes) = match self.shared.seats {
            Some(seats) => {
                let most = seats.limit().min(THREAD_LIMIT);
                (most, piece_bytes(length_bytes, most))
            }
            None => (WAITING_THREAD_LIMIT, PIECE_BYTES),
        };
        let copy =
            Arc::new(Assisted { copy: copy.in_pieces_of(piece_bytes), shared: Arc::downgrade(&self.shared) });
        let help: Weak<dyn Help> = Arc::downgrade(&copy) as Weak<dyn Help>;
        let signals = {
            // Held from the offer on: who takes that finds the request in the queue, or knows that it was not accepted.
            let mut queue = self.shared.queue.lock();
            if queue.stopped {
                return Err(Error::new(Code::StaleHandle, Stage::Submit, "the engine was shut down"));
            }
            // Who waits for it begins at once, which takes less time than to wake anybody; others come for the rest.
            let helped = self.inline_bytes > 0 && request.job().submission.batch().offer(help);
            let own = usize::from(helped);
            let worth =
                usize::try_from(length_bytes / HELPER_BYTES).unwrap_or(usize::MAX).saturating_sub(own);
            let helpers = match (&queue.shares, self.shared.seats) {
                // One comes even to a peer that may have no more of them, to see that the request ends in time.
                (Some(shares), _) => worth.min(shares.room_for(copy.peer())).max(1),
                (None, seats) => {
                    let free = seats.map_or(most, |seats| seats.room(own));
                    worth.min(free).min(most).max(1 - own)
                }
            };
            // Those that work on something may do so for long: a mover may wait for a peer that does not answer.
            let more = helpers.saturating_sub(queue.free());
            let wanted = queue.threads.saturating_add(more).min(most);
            self.have_threads(&mut queue, wanted, 1 - own)?;
            self.shared.push(&mut queue, Queued { copy, helped });
            queue.claim(helpers)
        };
        for _ in 0..signals {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Starts threads until there are `wanted`; `needed` are enough if there cannot be more.
    fn have_threads(&self, queue: &mut Queue, wanted: usize, needed: usize) -> Result<()> {
        while queue.threads < wanted {
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new()
                .name(format!("{}-{}", self.name, queue.threads))
                .spawn(move || shared.run());
            match started {
                Ok(_) => {
                    queue.threads += 1;
                    queue.idle += 1;
                }
                Err(_) if queue.threads >= needed => break,
                Err(error) => {
                    return Err(Error::new(
                        Code::Internal,
                        Stage::Submit,
                        format!("no copying thread: {error}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Ends the threads; what is queued fails.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.queue.lock().stopped = true;
        self.shared.changed.notify_all();
    }

    /// Waits for the threads' end.
    ///
    /// # Errors
    /// [`Code::StillRunning`] at the deadline.
    pub(crate) fn wait_stopped(&self, deadline: Deadline) -> Result<()> {
        let mut queue = self.shared.queue.lock();
        while queue.threads > 0 {
            if self.shared.changed.wait_until(&mut queue, deadline.at()).timed_out() {
                return Err(Error::new(
                    Code::StillRunning,
                    Stage::Drain,
                    "a copy between host memory is still running",
                ));
            }
        }
        Ok(())
    }
}

/// What a thread takes at once of a request that `threads` share.
fn piece_bytes(length_bytes: u64, threads: usize) -> u64 {
    let pieces = PIECES_PER_THREAD.saturating_mul(u64::try_from(threads).unwrap_or(u64::MAX)).max(1);
    // Whole pages, so that a piece does not end within one.
    length_bytes.div_ceil(pieces).next_multiple_of(4096).clamp(LEAST_PIECE_BYTES, PIECE_BYTES)
}

impl Shared {
    fn new(seats: Option<&'static Seats>) -> Self {
        Self {
            // Threads that have seats do not wait for anybody.
            queue: Mutex::new(Queue::new(seats.is_none())),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            helped: AtomicUsize::new(0),
            alone: AtomicUsize::new(0),
            seats,
        }
    }

    fn run(&self) {
        let mut looks = false;
        while self.serve(&mut looks) {}
        let mut queue = self.queue.lock();
        queue.threads = queue.threads.saturating_sub(1);
        queue.idle = queue.idle.saturating_sub(1);
        self.changed.notify_all();
    }

    /// A thread works on the next request; false at the end. `looks` is whether to look for it without sleeping, and is
    /// set for the one after.
    fn serve(&self, looks: &mut bool) -> bool {
        let idle_since = Instant::now();
        let Some((copy, seat)) = self.next(*looks) else { return false };
        // Had it looked, would it have found this one?
        *looks = copy.copy.request().accepted().saturating_duration_since(idle_since) < IDLE_LIMIT;
        self.work(&copy, None);
        drop(seat);
        self.queue.lock().ends(&copy);
        true
    }

    fn push(&self, queue: &mut Queue, queued: Queued) {
        let number = self.number(&queued);
        queue.push(queued);
        number.fetch_add(1, Ordering::Release);
    }

    fn number(&self, queued: &Queued) -> &AtomicUsize {
        if queued.helped { &self.helped } else { &self.alone }
    }

    /// Works on a request, until `until` if there is such a time.
    fn work(&self, copy: &Assisted, until: Option<Deadline>) {
        if !copy.copy.work(&self.stopping, until) {
            return;
        }
        // Nothing of it is left to take; others may still be copying theirs.
        if let Some(queued) = self.queue.lock().remove(copy) {
            self.number(&queued).fetch_sub(1, Ordering::Release);
        }
    }

    /// The next request to work on, and the seat for it; `None` after the end. With `looks` without sleeping, for a
    /// while.
    fn next(&self, mut looks: bool) -> Option<(Arc<Assisted>, Option<Seat<'static>>)> {
        let mut queue = self.queue.lock();
        loop {
            queue.came();
            if let Some(found) = self.choose(&queue) {
                queue.begins(&found.0);
                return Some(found);
            }
            if queue.stopped {
                return None;
            }
            if std::mem::take(&mut looks) {
                drop(queue);
                self.look(Instant::now() + IDLE_LIMIT);
                queue = self.queue.lock();
            } else {
                self.sleep(&mut queue);
            }
        }
    }

    /// Sleeps until a request counts on this thread, or until it has to look at those that are held back.
    fn sleep(&self, queue: &mut MutexGuard<'_, Queue>) {
        let held_back = self.seats.is_none() && !queue.copies.is_empty();
        let until = held_back.then(|| Instant::now() + HELD_BACK_LOOK);
        queue.sleeps();
        while !queue.wakes() {
            match until {
                Some(until) if self.changed.wait_until(queue, until).timed_out() => break,
                Some(_) => {}
                None => self.changed.wait(queue),
            }
        }
        queue.woke();
    }

    /// A request that needs a thread, or one for which there is a core, and a seat for it.
    fn choose(&self, queue: &Queue) -> Option<(Arc<Assisted>, Option<Seat<'static>>)> {
        if let Some(queued) = queue.first_alone() {
            return Some((Arc::clone(&queued.copy), self.seats.map(Seats::help)));
        }
        let queued = queue.copies.front()?;
        let seat = self.seats?.help_if_room()?;
        Some((Arc::clone(&queued.copy), Some(seat)))
    }

    /// Waits until there is something to choose, without sleeping.
    fn look(&self, until: Instant) {
        while Instant::now() < until && !self.stopping.load(Ordering::Relaxed) {
            let welcome = self.seats.is_none_or(|seats| seats.room(0) > 0);
            if self.alone.load(Ordering::Acquire) > 0 || welcome && self.helped.load(Ordering::Acquire) > 0 {
                return;
            }
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
        }
    }
}

/// The error of what a shutdown ended.
pub(crate) fn shut_down() -> Error {
    Error::new(Code::Cancelled, Stage::Drain, "the engine was shut down")
}

//! What is to be staged to one peer's device, and the lanes that do it.
//!
//! Each lane is a thread that takes one piece after another through all of its steps, so that the steps of successive
//! pieces overlap in successive lanes. A route has lanes of its own: a peer that hangs holds up nobody else's.
//!
//! Invariants: at most [`LANES_PER_ROUTE`] lanes a route; a request is in the queue until its last piece was taken;
//! a route that is closed takes nothing more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Staged;
use super::lane;
use super::station::Station;
use super::work::{Piece, Work};
use crate::control::Connection;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// Pieces of one peer's that are under way at once: one in each of gather, wire and scatter, and one that waits for
/// its turn.
pub const LANES_PER_ROUTE: usize = 4;

/// How long a lane waits for more before it ends.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// How often requests that wait are looked at.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Work>>,
    lanes: usize,
    idle: usize,
    closed: Option<Error>,
    /// When the requests that wait were looked at last.
    looked: Option<Instant>,
}

/// One peer's device, seen from one device of ours.
pub struct Route {
    station: Arc<Station>,
    connection: Arc<Connection>,
    /// As the peer numbers it, or -1 for whichever it works with.
    remote_device: i32,
    state: Mutex<State>,
    changed: Condvar,
}

impl Route {
    /// Without lanes yet.
    #[must_use]
    pub fn new(station: &Arc<Station>, connection: &Arc<Connection>, remote_device: i32) -> Arc<Self> {
        Arc::new(Self {
            station: Arc::clone(station),
            connection: Arc::clone(connection),
            remote_device,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// This side's device.
    #[must_use]
    pub fn station(&self) -> &Arc<Station> {
        &self.station
    }

    /// The connection to the peer.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The peer's device.
    #[must_use]
    pub fn remote_device(&self) -> i32 {
        self.remote_device
    }

    /// Queues a request, and starts lanes for it.
    ///
    /// # Errors
    /// Why the route is closed, or [`Code::TooManyRequests`] without a thread; the request is not taken then.
    pub fn submit(self: &Arc<Self>, staged: &Arc<Staged>, work: &Arc<Work>) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        let wanted =
            work.pieces().min(LANES_PER_ROUTE.saturating_sub(state.lanes).saturating_add(state.idle));
        for _ in state.idle..wanted {
            let (route, on_thread) = (Arc::clone(self), Arc::clone(staged));
            match staged.start_lane(move || lane::run(&route, &on_thread)) {
                Ok(()) => state.lanes = state.lanes.saturating_add(1),
                Err(_) if state.lanes > 0 => break,
                Err(error) => return Err(error),
            }
        }
        state.queue.push_back(Arc::clone(work));
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// A lane has ended, in whichever way.
    pub fn lane_ended(&self) {
        let mut state = self.state.lock();
        state.lanes = state.lanes.saturating_sub(1);
    }

    /// The next piece. `None` when there was none for long, or when the route is closed: the lane ends then.
    pub fn next(&self) -> Option<Piece> {
        let idle_until = Deadline::after(IDLE_LIMIT);
        let mut state = self.state.lock();
        loop {
            if let Some(piece) = state.pop() {
                return Some(piece);
            }
            if state.closed.is_some() || idle_until.expired() {
                state.lanes = state.lanes.saturating_sub(1);
                return None;
            }
            state.idle = state.idle.saturating_add(1);
            let _ = self.changed.wait_until(&mut state, idle_until.at());
            state.idle = state.idle.saturating_sub(1);
        }
    }

    /// The next piece, if there is one before `until`.
    #[must_use]
    pub fn next_before(&self, until: Deadline) -> Option<Piece> {
        let mut state = self.state.lock();
        loop {
            if let Some(piece) = state.pop() {
                return Some(piece);
            }
            if state.closed.is_some() {
                return None;
            }
            state.idle = state.idle.saturating_add(1);
            let late = self.changed.wait_until(&mut state, until.at()).timed_out();
            state.idle = state.idle.saturating_sub(1);
            if late {
                return state.pop();
            }
        }
    }

    /// Fails requests that must stop and of which nothing runs; every now and then. Whether any wait.
    pub fn look(&self) -> bool {
        let works: Vec<Arc<Work>> = {
            let mut state = self.state.lock();
            if state.queue.is_empty() {
                return false;
            }
            if state.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
                return true;
            }
            state.looked = Some(Instant::now());
            state.queue.iter().cloned().collect()
        };
        for work in works {
            let _ = work.stop_if_overdue("no turn to be staged came");
        }
        true
    }

    /// Whether it takes nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed.is_some()
    }

    /// Takes nothing more; what has not begun fails with `why`, what runs ends by itself.
    pub fn close(&self, why: &Error) {
        let mut state = self.state.lock();
        state.closed.get_or_insert_with(|| why.clone());
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.changed.notify_all();
        for work in queue {
            work.fail(why);
        }
    }

    /// Up to the next look at requests that wait.
    #[must_use]
    pub fn slice() -> Deadline {
        Deadline::after(LOOK)
    }
}

impl State {
    fn pop(&mut self) -> Option<Piece> {
        while let Some(work) = self.queue.front() {
            if let Some(piece) = work.take() {
                return Some(piece);
            }
            self.queue.pop_front();
        }
        None
    }
}

/// The error when no more threads may be had.
#[must_use]
pub fn no_thread(why: &str) -> Error {
    Error::new(Code::TooManyRequests, Stage::Submit, format!("no thread to stage a transfer: {why}"))
}

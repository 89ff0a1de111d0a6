//! One generation of the connection between two devices, as everybody but its worker sees it.
//!
//! A channel takes requests that its memory covers, hands them to its worker one after another, and ends when it is
//! told to [`close`](Channel::close): at once, or after what is in flight.
//!
//! Invariants: a request is in the queue, or with the worker (`active`), or handed back, never in two places; after
//! the first close nothing is taken any more; a channel that has ended has no requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::direct::Reach;
use super::rank::Link;
use crate::control::Connection;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::plan::LinkCosts;
use crate::transport::{Request, Route};

/// Why a channel ends.
#[derive(Clone, Debug)]
pub enum Close {
    /// It is not wanted any more: what is in flight ends, the rest goes back to the slot.
    Retire,
    /// The peer or the engine is gone: everything fails with this.
    Fail(Error),
}

/// What a worker does next.
pub enum Order {
    /// Go on with this request.
    Start(Arc<Request>),
    /// Nothing new.
    Nothing,
    /// Take nothing more; end when what is in flight has.
    Finish,
    /// Stop at once.
    Stop(Error),
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Request>>,
    active: Vec<Arc<Request>>,
    close: Option<Close>,
    /// The peer has nothing in flight on it any more.
    peer_done: bool,
    ended: bool,
}

/// A channel that is ready, or was.
pub struct Channel {
    name: String,
    link: Link,
    /// What it costs, for the choice of a route.
    costs: LinkCosts,
    /// What this side bound, and what the peer did; the latter shrinks when the peer withdraws memory.
    reach: Mutex<Arc<Reach>>,
    /// Memory of either side that the link cannot take, for messages.
    unfit: Reach,
    connection: Arc<Connection>,
    state: Mutex<State>,
    changed: Condvar,
    born: Instant,
    /// Milliseconds after `born` when it last took a request.
    used_ms: AtomicU64,
}

impl Channel {
    /// A channel that was just prepared.
    #[must_use]
    pub fn new(
        name: String,
        link: Link,
        costs: LinkCosts,
        reach: Reach,
        unfit: Reach,
        connection: Arc<Connection>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            link,
            costs,
            reach: Mutex::new(Arc::new(reach)),
            unfit,
            connection,
            state: Mutex::default(),
            changed: Condvar::new(),
            born: Instant::now(),
            used_ms: AtomicU64::new(0),
        })
    }

    /// The communicator's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What joins the two devices.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// What transfers on it cost.
    #[must_use]
    pub fn costs(&self) -> &LinkCosts {
        &self.costs
    }

    /// The connection it was agreed on.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The memory it reaches.
    #[must_use]
    pub fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.reach.lock())
    }

    /// How long ago it last took a request.
    #[must_use]
    pub fn idle(&self) -> Duration {
        let used = Duration::from_millis(self.used_ms.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(used)
    }

    /// Requests that it has.
    #[must_use]
    pub fn load(&self) -> usize {
        let state = self.state.lock();
        state.queue.len().saturating_add(state.active.len())
    }

    /// Tells the waiters of requests that had to stop longer than `grace` ago and are still with the worker.
    pub fn report_stuck(&self, grace: Duration) {
        let active = self.state.lock().active.clone();
        for request in active {
            request.report_if_stuck(grace);
        }
    }

    /// Queues a request that its memory covers; hands back one that it does not, or that comes too late.
    ///
    /// # Errors
    /// The request itself.
    pub fn push(&self, request: Arc<Request>) -> Result<(), Arc<Request>> {
        if self.reach().uncovered(&request).is_some() {
            return Err(request);
        }
        let mut state = self.state.lock();
        if state.close.is_some() {
            return Err(request);
        }
        self.used_ms
            .store(u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        state.queue.push_back(request);
        self.changed.notify_all();
        Ok(())
    }

    /// Why no channel over this link can take the request: memory of one side is not fit for the link.
    #[must_use]
    pub fn misfit(&self, request: &Request) -> Option<Error> {
        let (side, gap) = self.reach().uncovered(request)?;
        self.is_unfit(side, gap).then(|| self.refusal(request)).flatten()
    }

    fn is_unfit(&self, side: &str, gap: ByteRange) -> bool {
        let unfit = if side == "local" { &self.unfit.local } else { &self.unfit.remote };
        unfit.iter().any(|range| range.overlaps(gap))
    }

    /// Why the channel cannot take the request, if its memory is the reason.
    #[must_use]
    pub fn refusal(&self, request: &Request) -> Option<Error> {
        let (side, gap) = self.reach().uncovered(request)?;
        let error = if self.is_unfit(side, gap) {
            Error::new(
                Code::NotSupportedTransport,
                Stage::Submit,
                format!(
                    "the link to this peer is {}, which takes device memory in whole 2 MiB pages only; the {side} \
                     memory is not",
                    self.link.name()
                ),
            )
            .advice("set HCCL_INTRA_ROCE_ENABLE=1 on both sides, or use 2 MiB aligned NPU memory")
        } else {
            Error::new(
                Code::AddressNotRegistered,
                Stage::Submit,
                format!("the {side} memory is not registered with the NPU transport"),
            )
            .advice("register it on the side that owns it, with the location npu:N")
        };
        Some(error.range(gap.start(), gap.length_bytes()))
    }

    /// Ends the channel. The first reason counts, but a failure goes before a retirement.
    pub fn close(&self, why: Close) {
        let mut state = self.state.lock();
        match (&state.close, &why) {
            (None, _) | (Some(Close::Retire), Close::Fail(_)) => state.close = Some(why),
            _ => {}
        }
        self.changed.notify_all();
    }

    /// The peer gives the channel up and has nothing in flight on it.
    pub fn peer_closed(&self) {
        self.state.lock().peer_done = true;
        self.close(Close::Retire);
    }

    /// What the worker does next. Waits for something when `idle`; otherwise `wants` says whether it can start a
    /// request now.
    #[must_use]
    pub fn next(&self, idle: bool, wants: bool) -> Order {
        let mut state = self.state.lock();
        loop {
            match &state.close {
                Some(Close::Fail(error)) => return Order::Stop(error.clone()),
                Some(Close::Retire) => return Order::Finish,
                None => {}
            }
            if (wants || idle)
                && let Some(request) = state.queue.pop_front()
            {
                state.active.push(Arc::clone(&request));
                return Order::Start(request);
            }
            if !idle {
                return Order::Nothing;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Whether a request waits that is to be launched behind what is in flight. A piece that both ends launch is not:
    /// the end of the one before it has to be seen at once, since who is done first takes the next one.
    #[must_use]
    pub fn has_next(&self) -> bool {
        let is_piece = |request: &Request| request.job().route == Route::Wire && request.extents().len() > 1;
        self.state.lock().queue.front().is_some_and(|request| !is_piece(request))
    }

    /// The worker is done with a request.
    pub fn settle(&self, request: &Arc<Request>) {
        let mut state = self.state.lock();
        state.active.retain(|active| !Arc::ptr_eq(active, request));
        self.changed.notify_all();
    }

    /// Takes out the requests that have not begun.
    #[must_use]
    pub fn drain_queue(&self) -> Vec<Arc<Request>> {
        self.state.lock().queue.drain(..).collect()
    }

    /// Takes out those requests that have not begun and that `unwanted` picks.
    #[must_use]
    pub fn take_if(&self, unwanted: impl Fn(&Request) -> bool) -> Vec<Arc<Request>> {
        let mut state = self.state.lock();
        let (taken, kept): (Vec<_>, VecDeque<_>) = state
            .queue
            .drain(..)
            .map(|request| (unwanted(&request), request))
            .fold(Default::default(), |(mut taken, mut kept): (Vec<_>, VecDeque<_>), (out, request)| {
                if out {
                    taken.push(request)
                } else {
                    kept.push_back(request)
                }
                (taken, kept)
            });
        state.queue = kept;
        taken
    }

    /// Waits until the peer has given the channel up as well, or is gone, at most until `deadline`.
    pub fn wait_peer(&self, deadline: Deadline) {
        let mut state = self.state.lock();
        while !state.peer_done && !matches!(state.close, Some(Close::Fail(_))) && self.connection.is_alive() {
            let soon = Deadline::after(Duration::from_millis(50)).sooner(deadline);
            if self.changed.wait_until(&mut state, soon.at()).timed_out() && deadline.expired() {
                return;
            }
        }
    }

    /// The worker is done with the channel.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        self.changed.notify_all();
    }

    /// Removes ranges of the peer's memory from what the channel takes from now on, and waits until nothing that
    /// runs touches them. Requests for them that have not begun come back first.
    ///
    /// # Errors
    /// [`Code::Busy`] at the deadline.
    pub fn withdraw_remote(&self, ranges: &[ByteRange], deadline: Deadline) -> Result<()> {
        let mut state = self.state.lock();
        while state.active.iter().any(|request| request.touches_remote(ranges)) {
            if self.wait(&mut state, deadline) {
                return Err(Error::new(
                    Code::Busy,
                    Stage::Register,
                    "transfers still touch the memory that the peer takes back",
                ));
            }
        }
        Ok(())
    }

    /// Makes the channel refuse requests for ranges of the peer's memory; answers those that wait already.
    #[must_use]
    pub fn refuse_remote(&self, ranges: &[ByteRange]) -> Vec<Arc<Request>> {
        let mut reach = self.reach.lock();
        Arc::make_mut(&mut reach).withdraw_remote(ranges);
        drop(reach);
        self.take_if(|request| request.touches_remote(ranges))
    }

    /// Whether the channel has one of these regions of this side bound.
    #[must_use]
    pub fn binds(&self, regions: &[ByteRange]) -> bool {
        self.reach().local.iter().any(|bound| regions.iter().any(|region| region.overlaps(*bound)))
    }

    fn wait(&self, state: &mut MutexGuard<'_, State>, deadline: Deadline) -> bool {
        self.changed.wait_until(state, deadline.at()).timed_out()
    }
}

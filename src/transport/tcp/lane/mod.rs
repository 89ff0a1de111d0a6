//! One connection to a peer: requests go out in order, answers come in the same order.
//!
//! A lane belongs to an event loop, which drives it; who submits may give it a small push on its own thread.
//! Both hold the lane's lock for as long as they touch sockets or memory, so a piece that was reported is quiet.
//!
//! Invariants: after a piece is reported its memory is not touched again. A read that is given up has its bytes
//! thrown away as they come; a write given up half-way ends the sending side of the connection, so that nothing
//! wrong follows it, while the answers to what was sent before are still read. Nothing is sent twice: only
//! pieces of which no byte was sent, or which the peer has said it did not reach, go to another lane.

mod connecting;
mod failure;
mod helping;
mod receiving;
mod request;
mod sending;
mod stopping;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::Instant;

use mio::Token;
use mio::net::TcpStream;
use parking_lot::{Mutex, MutexGuard};

use super::peer::TcpPeer;
use super::reactor::{Handle, Turn, Watched};
use super::transfer::{Over, report};
use super::wire::STATUS_BYTES;
use crate::error::{Code, Error, Stage};
use crate::memory::io::unexpected;

use failure::socket_error;
use request::Request;

/// Requests under way on one lane.
const MAX_REQUESTS: usize = 32;
/// Bytes under way on one lane, unless a single request has more.
const MAX_BYTES: u64 = 2 << 20;
/// Bytes moved in one turn.
const TURN_BYTES: usize = 1 << 20;
/// How often a piece is tried again after a connection broke before anything of it was sent.
const MAX_RETRIES: u8 = 2;

/// What a call on the socket did.
enum Io {
    Moved(usize),
    Blocked,
    /// Memory that was named is not there.
    Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Connecting { until: Instant },
    Ready,
}

struct State {
    phase: Phase,
    stream: Option<Arc<TcpStream>>,
    /// What of the stream wakes the loop.
    watched: Watched,
    /// The address tried, as an index.
    address: usize,
    requests: VecDeque<Request>,
    /// Requests at the front that were sent whole.
    sent: usize,
    /// Bytes of the next one that were sent.
    part_bytes: u64,
    /// Sum over the requests.
    under_way_bytes: u64,
    status: [u8; STATUS_BYTES],
    status_bytes: usize,
    /// Bytes of the first request that have arrived.
    arrived_bytes: u64,
    /// Nothing more is sent: the lane ends when the answers are in.
    ending: bool,
    moved_at: Instant,
}

/// A lane; see the module.
pub(super) struct Lane {
    peer: Weak<TcpPeer>,
    confirmed: bool,
    handle: Arc<Handle>,
    token: Token,
    idle: AtomicBool,
    /// Work was queued while somebody else held the lock: see [`Lane::was_pushed`].
    pushed: AtomicBool,
    state: Mutex<State>,
}

impl Lane {
    pub(super) fn new(peer: &Arc<TcpPeer>, handle: Arc<Handle>, token: Token) -> Arc<Self> {
        Arc::new(Self {
            peer: Arc::downgrade(peer),
            confirmed: peer.confirmed,
            handle,
            token,
            idle: AtomicBool::new(true),
            pushed: AtomicBool::new(false),
            state: Mutex::new(State {
                phase: Phase::Closed,
                stream: None,
                watched: Watched::Everything,
                address: 0,
                requests: VecDeque::with_capacity(MAX_REQUESTS),
                sent: 0,
                part_bytes: 0,
                under_way_bytes: 0,
                status: [0; STATUS_BYTES],
                status_bytes: 0,
                arrived_bytes: 0,
                ending: false,
                moved_at: Instant::now(),
            }),
        })
    }

    /// Takes a connection that is up.
    pub(super) fn adopt(&self, stream: TcpStream) -> io::Result<()> {
        let mut state = self.state.lock();
        self.handle.watch(self.token, &stream)?;
        state.stream = Some(Arc::new(stream));
        state.watched = Watched::Everything;
        self.up(&mut state);
        self.let_go(state);
        Ok(())
    }

    /// Whether it has nothing to do. A hint.
    pub(super) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Whether its deadlines have to be watched.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.state.lock();
        let under_way = !state.requests.is_empty() || matches!(state.phase, Phase::Connecting { .. });
        self.let_go(state);
        under_way || self.peer.upgrade().is_some_and(|peer| peer.has_work())
    }

    /// Looks for work: on this thread when it is little, else on the loop's.
    pub(super) fn wake(&self, here: bool) {
        if !here {
            self.handle.drive(self.token);
            return;
        }
        self.pushed.store(true, Ordering::SeqCst);
        // Together with the fence of `was_pushed`: either the lock is free here, or who holds it sees the flag.
        fence(Ordering::SeqCst);
        let Some(mut state) = self.state.try_lock() else { return };
        self.pushed.store(false, Ordering::SeqCst);
        let mut overs = Vec::new();
        let turn = if state.phase == Phase::Ready {
            self.guarded(&mut state, &mut overs, Self::push)
        } else {
            Turn::More
        };
        drop(state);
        report(&mut overs);
        if turn != Turn::Waiting || self.was_pushed() {
            self.handle.drive(self.token);
        } else {
            self.handle.stay_awake();
        }
    }

    /// Whether work was queued by somebody who could not have the lock. To be asked after the lock was let go of, by
    /// everyone who has held it; who is told so looks for the work.
    fn was_pushed(&self) -> bool {
        fence(Ordering::SeqCst);
        self.pushed.load(Ordering::Relaxed) && self.pushed.swap(false, Ordering::SeqCst)
    }

    /// For who has held the lock and does not look for work himself.
    fn let_go(&self, state: MutexGuard<'_, State>) {
        drop(state);
        if self.was_pushed() {
            self.handle.drive(self.token);
        }
    }

    /// A turn on the loop's thread. `may_have_ended`: the kernel has said that the peer sends no more.
    pub(super) fn drive(&self, may_have_ended: bool) -> Turn {
        let mut overs = Vec::new();
        loop {
            self.pushed.store(false, Ordering::SeqCst);
            let turn = {
                let mut state = self.state.lock();
                self.guarded(&mut state, &mut overs, |lane, state, peer, overs| {
                    lane.advance(state, peer, overs, may_have_ended)
                })
            };
            report(&mut overs);
            if turn != Turn::Waiting || !self.was_pushed() {
                return turn;
            }
        }
    }

    /// Looks at deadlines; true while there is anything to watch.
    pub(super) fn tick(&self, now: Instant) -> bool {
        let mut overs = Vec::new();
        let peer = self.peer.upgrade();
        if let Some(peer) = &peer {
            peer.expire(&mut overs);
        }
        let mut again = false;
        {
            let mut state = self.state.lock();
            if let (Phase::Connecting { until }, Some(peer)) = (state.phase, &peer)
                && now >= until
            {
                let limit_ms = peer.settings.connect_timeout.as_millis();
                let error = Error::new(
                    Code::Timeout,
                    Stage::Connect,
                    format!("no connection to the peer's data port in {limit_ms} ms"),
                );
                again = self.next_address(&mut state, peer, error, &mut overs) == Turn::More;
            }
            let stopped = self.stop_requests(&mut state, &mut overs);
            if let Some(error) = stopped.or_else(|| self.stalled(&state, now)) {
                again |= self.broken(&mut state, &error, &mut overs) == Turn::More;
            }
            // Whatever has closed the lane, what waits for the peer needs one.
            again |= state.phase == Phase::Closed && peer.as_ref().is_some_and(|peer| peer.has_work());
            self.let_go(state);
        }
        report(&mut overs);
        drop(peer);
        if again {
            self.handle.drive(self.token);
        }
        self.is_busy()
    }

    /// Everything on the lane fails with `error`, and it is closed.
    pub(super) fn abandon(&self, error: &Error) {
        let mut overs = Vec::new();
        {
            let mut state = self.state.lock();
            overs.extend(
                state
                    .requests
                    .drain(..)
                    .filter_map(|request| request.piece)
                    .map(|piece| Over::failed(piece, error)),
            );
            self.disconnect(&mut state);
            self.let_go(state);
        }
        report(&mut overs);
    }

    /// The loop ends: nothing of the peer can go on.
    pub(super) fn give_up(&self, error: &Error) {
        match self.peer.upgrade() {
            Some(peer) => peer.close(error),
            None => self.abandon(error),
        }
    }

    /// The loop lets go of the lane; its socket goes with it.
    pub(super) fn detach(&self) {
        self.handle.detach(self.token);
    }

    /// Runs a step; a failure breaks the lane.
    fn guarded(
        &self,
        state: &mut MutexGuard<'_, State>,
        overs: &mut Vec<Over>,
        step: impl FnOnce(&Self, &mut State, &Arc<TcpPeer>, &mut Vec<Over>) -> Result<Turn, Error>,
    ) -> Turn {
        let Some(peer) = self.peer.upgrade() else {
            self.disconnect(state);
            return Turn::Waiting;
        };
        let turn = match step(self, state, &peer, overs) {
            Ok(turn) => turn,
            Err(error) => self.broken(state, &error, overs),
        };
        self.idle.store(state.requests.is_empty(), Ordering::Relaxed);
        turn
    }

    /// Sends what can be sent at once; receives nothing.
    fn push(&self, state: &mut State, peer: &Arc<TcpPeer>, overs: &mut Vec<Over>) -> Result<Turn, Error> {
        if state.requests.is_empty() {
            self.check_idle(state)?;
        }
        if !peer.keeps_lanes() {
            return Ok(Turn::More);
        }
        self.pull(state, peer, overs);
        match self.send(state, overs)? {
            Some(_) if state.phase != Phase::Ready => Ok(Turn::More),
            Some(_) if state.sent < state.requests.len() => Ok(Turn::More),
            _ => Ok(Turn::Waiting),
        }
    }

    /// Sends and receives what can be.
    fn advance(
        &self,
        state: &mut State,
        peer: &Arc<TcpPeer>,
        overs: &mut Vec<Over>,
        may_have_ended: bool,
    ) -> Result<Turn, Error> {
        match state.phase {
            Phase::Closed => {
                if !peer.keeps_lanes() {
                    // A connection serves one request; none is made without.
                    self.pull(state, peer, overs);
                }
                if state.requests.is_empty() && (!peer.keeps_lanes() || !peer.has_work()) {
                    return Ok(Turn::Waiting);
                }
                return Ok(self.connect(state, peer, overs));
            }
            Phase::Connecting { .. } => {
                if let Some(turn) = self.connected(state, peer, overs) {
                    return Ok(turn);
                }
            }
            Phase::Ready => {}
        }
        let mut moved_bytes = 0_usize;
        loop {
            // Bytes that nobody asked for, coming with the last ones, are seen before the next request.
            if state.requests.is_empty() && (moved_bytes == 0 || may_have_ended) {
                self.check_idle(state)?;
            }
            if peer.keeps_lanes() {
                self.pull(state, peer, overs);
            } else if state.requests.is_empty() {
                self.disconnect(state);
                return Ok(if peer.has_work() { Turn::More } else { Turn::Waiting });
            }
            let sent = self.send(state, overs)?;
            let received = self.receive(state, overs)?;
            if state.phase != Phase::Ready {
                return Ok(if peer.has_work() { Turn::More } else { Turn::Waiting });
            }
            if sent.is_none() && received.is_none() {
                return Ok(Turn::Waiting);
            }
            moved_bytes = moved_bytes
                .saturating_add(sent.unwrap_or_default())
                .saturating_add(received.unwrap_or_default());
            if moved_bytes >= TURN_BYTES {
                return Ok(Turn::More);
            }
        }
    }

    /// An idle connection says nothing; one that does has ended or is out of step.
    fn check_idle(&self, state: &State) -> Result<(), Error> {
        let Some(stream) = &state.stream else { return Ok(()) };
        match unexpected(&**stream) {
            None => Ok(()),
            Some(Ok(0)) => Err(socket_error("the peer closed the connection")),
            Some(Ok(_)) => Err(socket_error("the peer sent bytes nobody asked for")),
            Some(Err(error)) => Err(socket_error(&error.to_string())),
        }
    }

    fn pull(&self, state: &mut State, peer: &TcpPeer, overs: &mut Vec<Over>) {
        let max_requests = if peer.keeps_lanes() { MAX_REQUESTS } else { 1 };
        let has_room = |state: &State| {
            state.requests.len() < max_requests
                && (state.requests.is_empty() || state.under_way_bytes < MAX_BYTES)
        };
        if state.ending || !has_room(state) {
            return;
        }
        let was_empty = state.requests.is_empty();
        peer.pull(overs, |piece| {
            state.under_way_bytes = state.under_way_bytes.saturating_add(piece.length_bytes);
            state.requests.push_back(Request::new(piece, self.confirmed));
            has_room(state)
        });
        if was_empty {
            state.moved_at = Instant::now();
        }
    }
}

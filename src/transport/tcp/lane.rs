//! One connection to a peer: requests go out in order, answers come in the same order.
//!
//! A lane belongs to an event loop, which drives it; who submits may give it a small push on its own thread.
//! Both hold the lane's lock for as long as they touch sockets or memory, so a piece that was reported is quiet.
//!
//! Invariants: after a piece is reported its memory is not touched again. A read that is given up has its bytes
//! thrown away as they come; a write given up half-way ends the sending side of the connection, so that nothing
//! wrong follows it, while the answers to what was sent before are still read. Nothing is sent twice: only
//! pieces of which no byte was sent, or which the peer has said it did not reach, go to another lane.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use mio::Token;
use mio::net::TcpStream;
use parking_lot::{Mutex, MutexGuard};

use super::peer::TcpPeer;
use super::reactor::{Handle, Turn};
use super::transfer::{Over, Piece, report};
use super::wire::{self, HEADER_BYTES, Header, STATUS_BYTES};
use crate::error::{Code, Error, Stage};
use crate::memory::io::{Receive, Send, unexpected};

/// Requests under way on one lane.
const MAX_REQUESTS: usize = 32;
/// Bytes under way on one lane, unless a single request has more.
const MAX_BYTES: u64 = 2 << 20;
/// Bytes moved in one turn.
const TURN_BYTES: usize = 1 << 20;
/// Answers looked for in one call.
const MAX_ANSWERS: usize = 24;
/// Bytes thrown away in one call.
const DISCARD_BYTES: usize = 64 << 10;
/// How often a piece is tried again after a connection broke before anything of it was sent.
const MAX_RETRIES: u8 = 2;

/// One request of this lane.
struct Request {
    /// `None` once it was given up and reported.
    piece: Option<Piece>,
    header: [u8; HEADER_BYTES],
    write: bool,
    local: u64,
    length_bytes: u64,
    taken_at: Instant,
}

impl Request {
    fn new(piece: Piece, confirmed: bool) -> Self {
        let (write, local, length_bytes) = (piece.transfer.is_write(), piece.local, piece.length_bytes);
        let header = Header { length_bytes, address: piece.remote, write, confirmed }.encode();
        Self { piece: Some(piece), header, write, local, length_bytes, taken_at: Instant::now() }
    }

    fn wire_bytes(&self) -> u64 {
        let header_bytes = u64::try_from(HEADER_BYTES).unwrap_or_default();
        if self.write { header_bytes.saturating_add(self.length_bytes) } else { header_bytes }
    }
}

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
    stream: Option<TcpStream>,
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
    /// Work was queued while somebody else held the lock.
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
    pub(super) fn adopt(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut state = self.state.lock();
        self.handle.watch(self.token, &mut stream)?;
        state.stream = Some(stream);
        self.up(&mut state);
        Ok(())
    }

    /// Whether it has nothing to do. A hint.
    pub(super) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Whether its deadlines have to be watched.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.state.lock();
        !state.requests.is_empty()
            || matches!(state.phase, Phase::Connecting { .. })
            || self.peer.upgrade().is_some_and(|peer| peer.has_work())
    }

    /// Looks for work: on this thread when it is little, else on the loop's.
    pub(super) fn wake(&self, here: bool) {
        if !here {
            self.handle.drive(self.token);
            return;
        }
        self.pushed.store(true, Ordering::SeqCst);
        // Who holds the lock sees the flag before he is done.
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
        if turn != Turn::Waiting || self.pushed.swap(false, Ordering::SeqCst) {
            self.handle.drive(self.token);
        } else {
            self.handle.stay_awake();
        }
    }

    /// A turn on the loop's thread.
    pub(super) fn drive(&self) -> Turn {
        let mut overs = Vec::new();
        loop {
            self.pushed.store(false, Ordering::SeqCst);
            let turn = {
                let mut state = self.state.lock();
                self.guarded(&mut state, &mut overs, Self::advance)
            };
            report(&mut overs);
            if turn != Turn::Waiting || !self.pushed.swap(false, Ordering::SeqCst) {
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
    fn advance(&self, state: &mut State, peer: &Arc<TcpPeer>, overs: &mut Vec<Over>) -> Result<Turn, Error> {
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
            if state.requests.is_empty() {
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
        match unexpected(stream) {
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

    /// Sends; gives the number of bytes, `None` when the socket takes no more or there is nothing.
    fn send(&self, state: &mut State, overs: &mut Vec<Over>) -> Result<Option<usize>, Error> {
        match self.send_for(state, usize::MAX)? {
            Io::Moved(count) => Ok(Some(count)),
            Io::Blocked => Ok(None),
            Io::Fault => {
                if matches!(self.send_for(state, 1)?, Io::Fault) {
                    self.unreadable(state, overs);
                }
                Ok(Some(0))
            }
        }
    }

    fn send_for(&self, state: &mut State, most: usize) -> Result<Io, Error> {
        let State { stream: Some(stream), requests, sent, part_bytes, .. } = state else {
            return Ok(Io::Blocked);
        };
        if state.ending {
            return Ok(Io::Blocked);
        }
        let mut list = Send::new();
        let mut skip_bytes = *part_bytes;
        for request in requests.iter().skip(*sent).take(most) {
            let header_bytes = u64::try_from(HEADER_BYTES).unwrap_or_default();
            if let Some(rest) = usize::try_from(skip_bytes)
                .ok()
                .and_then(|skip| request.header.get(skip..))
                .filter(|r| !r.is_empty())
                && !list.push_buffer(rest)
            {
                break;
            }
            if request.write {
                let done_bytes = skip_bytes.saturating_sub(header_bytes);
                let left_bytes = request.length_bytes.saturating_sub(done_bytes);
                let turn_bytes = left_bytes.min(u64::try_from(TURN_BYTES).unwrap_or(u64::MAX));
                if !list.push_memory(request.local.saturating_add(done_bytes), turn_bytes)
                    || turn_bytes < left_bytes
                {
                    break;
                }
            }
            skip_bytes = 0;
            if list.length_bytes() >= TURN_BYTES {
                break;
            }
        }
        if list.length_bytes() == 0 {
            return Ok(Io::Blocked);
        }
        let count = match list.send(stream) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Io::Blocked),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Io::Moved(0)),
            Err(error) if is_fault(&error) => return Ok(Io::Fault),
            Err(error) => return Err(io_error(&error)),
        };
        let mut left_bytes = part_bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        while let Some(request) = requests.get(*sent) {
            let Some(rest) = left_bytes.checked_sub(request.wire_bytes()) else { break };
            left_bytes = rest;
            *sent += 1;
            if !self.confirmed && request.write {
                // The peer's end of the connection is all the confirmation there is.
                stream.shutdown(Shutdown::Write).map_err(|error| io_error(&error))?;
            }
        }
        *part_bytes = left_bytes;
        state.moved_at = Instant::now();
        Ok(Io::Moved(count))
    }

    /// Receives; gives the number of bytes, `None` when there is nothing for now.
    fn receive(&self, state: &mut State, overs: &mut Vec<Over>) -> Result<Option<usize>, Error> {
        match self.receive_for(state, overs, MAX_ANSWERS)? {
            Io::Moved(count) => Ok(Some(count)),
            Io::Blocked => Ok(None),
            Io::Fault => {
                // One of several; alone, the first shows whether it is its own memory.
                if matches!(self.receive_for(state, overs, 1)?, Io::Fault) {
                    let piece = state.requests.front_mut().and_then(|request| request.piece.take());
                    overs.extend(piece.map(|piece| Over::failed(piece, &fault())));
                }
                Ok(Some(0))
            }
        }
    }

    fn receive_for(&self, state: &mut State, overs: &mut Vec<Over>, most: usize) -> Result<Io, Error> {
        let State { stream: Some(stream), requests, sent, part_bytes, status_bytes, arrived_bytes, .. } =
            state
        else {
            return Ok(Io::Blocked);
        };
        // The request that is being sent may be refused before its end.
        let awaited = sent.saturating_add(usize::from(*part_bytes > 0)).min(requests.len());
        if awaited == 0 {
            return Ok(Io::Blocked);
        }
        let mut statuses = [[0_u8; STATUS_BYTES]; MAX_ANSWERS];
        // Only a read that was given up, or the end of a connection, needs a place for bytes nobody wants.
        let discards = requests.iter().take(awaited).any(|request| request.piece.is_none());
        let mut discarded = if discards { vec![0_u8; DISCARD_BYTES] } else { vec![0_u8; 0] };
        let mut last = [0_u8; 1];
        let mut discard = Some(&mut discarded);
        let mut list = Receive::new();
        let mut status_seen = if self.confirmed { *status_bytes } else { STATUS_BYTES };
        let mut bytes_seen = *arrived_bytes;
        for (request, status) in requests.iter().take(awaited.min(most)).zip(statuses.iter_mut()) {
            if let Some(rest) = status.get_mut(status_seen..).filter(|rest| !rest.is_empty())
                && !list.push_buffer(rest)
            {
                break;
            }
            let left_bytes = request.length_bytes.saturating_sub(bytes_seen);
            if !request.write {
                if request.piece.is_none() {
                    let room = discard.take().map(|buffer| {
                        let count = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(buffer.len());
                        list.push_buffer(buffer.get_mut(..count).unwrap_or_default())
                    });
                    // One buffer, so what follows comes with the next call.
                    let _ = room;
                    break;
                }
                let turn_bytes = left_bytes.min(u64::try_from(TURN_BYTES).unwrap_or(u64::MAX));
                let taken = list.push_memory(request.local.saturating_add(bytes_seen), turn_bytes);
                if !taken || turn_bytes < left_bytes || list.length_bytes() >= TURN_BYTES {
                    break;
                }
            } else if !self.confirmed {
                // Nothing is to come but the end.
                list.push_buffer(&mut last);
                break;
            }
            status_seen = 0;
            bytes_seen = 0;
        }
        let count = match list.receive(stream) {
            Ok(0) => return self.ended(state, overs).map(|()| Io::Blocked),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Io::Blocked),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Io::Moved(0)),
            Err(error) if is_fault(&error) => return Ok(Io::Fault),
            Err(error) => return Err(io_error(&error)),
        };
        state.moved_at = Instant::now();
        self.account(state, count, &statuses, overs)?;
        Ok(Io::Moved(count))
    }

    /// Gives received bytes to the requests they belong to.
    fn account(
        &self,
        state: &mut State,
        count: usize,
        statuses: &[[u8; STATUS_BYTES]],
        overs: &mut Vec<Over>,
    ) -> Result<(), Error> {
        let mut left = count;
        for status in statuses {
            let Some(request) = state.requests.front() else { break };
            if self.confirmed && state.status_bytes < STATUS_BYTES {
                let wanted = (STATUS_BYTES - state.status_bytes).min(left);
                let end = state.status_bytes.saturating_add(wanted);
                let range = state.status_bytes..end;
                if let (Some(to), Some(from)) = (state.status.get_mut(range.clone()), status.get(range)) {
                    to.copy_from_slice(from);
                }
                state.status_bytes = end;
                left -= wanted;
                if end < STATUS_BYTES {
                    break;
                }
                self.check_status(state)?;
            } else if request.write && !self.confirmed {
                return Err(socket_error("the peer answered a request that has no answer"));
            }
            let Some(request) = state.requests.front() else { break };
            if request.write {
                self.finish_front(state, overs);
            } else {
                let wanted = request.length_bytes.saturating_sub(state.arrived_bytes);
                let taken = wanted.min(u64::try_from(left).unwrap_or(u64::MAX));
                state.arrived_bytes = state.arrived_bytes.saturating_add(taken);
                left = left.saturating_sub(usize::try_from(taken).unwrap_or(left));
                if taken < wanted {
                    break;
                }
                self.finish_front(state, overs);
            }
            if left == 0 {
                break;
            }
        }
        if !self.keeps() && state.requests.is_empty() {
            self.disconnect(state);
        } else if state.ending && state.sent == 0 {
            return Err(socket_error("the connection was ended because a request was given up"));
        }
        Ok(())
    }

    fn keeps(&self) -> bool {
        self.peer.upgrade().is_some_and(|peer| peer.keeps_lanes())
    }

    /// Looks at the status of the first request. A refusal ends the connection: the peer has not looked at what
    /// came after it, so that goes to another lane.
    fn check_status(&self, state: &mut State) -> Result<(), Error> {
        let code = wire::read_status(state.status);
        if code == Some(wire::OK) {
            if state.sent == 0 {
                return Err(socket_error("the peer confirmed a request that was not sent yet"));
            }
            return Ok(());
        }
        let Some(code) = code else { return Err(socket_error("the peer's status frame is none")) };
        let error = Error::new(
            Code::AddressNotRegistered,
            Stage::Execute,
            format!("the peer refused the request with status {code}"),
        )
        .advice("the range must lie in one buffer that is registered at the peer");
        Err(state
            .requests
            .front()
            .and_then(|request| request.piece.as_ref())
            .map_or_else(|| error.clone(), |piece| piece.named(error.clone())))
    }

    fn finish_front(&self, state: &mut State, overs: &mut Vec<Over>) {
        if let Some(request) = state.requests.pop_front() {
            state.sent = state.sent.saturating_sub(1);
            state.under_way_bytes = state.under_way_bytes.saturating_sub(request.length_bytes);
            overs.extend(request.piece.map(Over::done));
        }
        state.status_bytes = 0;
        state.arrived_bytes = 0;
    }

    /// The peer has ended the connection.
    fn ended(&self, state: &mut State, overs: &mut Vec<Over>) -> Result<(), Error> {
        let whole =
            !self.confirmed && state.sent > 0 && state.requests.front().is_some_and(|request| request.write);
        if whole {
            self.finish_front(state, overs);
            self.disconnect(state);
            return Ok(());
        }
        Err(socket_error("the peer closed the connection"))
    }

    /// Gives up the requests that have to stop. An error when the connection is of no more use.
    fn stop_requests(&self, state: &mut State, overs: &mut Vec<Over>) -> Option<Error> {
        let mut broken = None;
        let mut index = 0;
        while let Some(request) = state.requests.get_mut(index) {
            let stop = request.piece.as_ref().and_then(|piece| {
                piece.transfer.must_stop("the transfer was not over").map(|error| piece.named(error))
            });
            let Some(error) = stop else {
                index += 1;
                continue;
            };
            if let Some(piece) = request.piece.take() {
                overs.push(Over::failed(piece, &error));
            }
            if index > state.sent || (index == state.sent && state.part_bytes == 0) {
                // Nothing of it was sent.
                if let Some(request) = state.requests.remove(index) {
                    state.under_way_bytes = state.under_way_bytes.saturating_sub(request.length_bytes);
                }
                continue;
            }
            if error.code() == Code::Timeout && state.moved_at <= request.taken_at {
                broken = Some(error);
            } else if request.write && index == state.sent {
                self.end_sending(state, overs);
            }
            index += 1;
        }
        broken
    }

    /// The memory of the write that is being sent cannot be read.
    fn unreadable(&self, state: &mut State, overs: &mut Vec<Over>) {
        let sent = state.sent;
        let Some(request) = state.requests.get_mut(sent) else { return };
        overs.extend(request.piece.take().map(|piece| Over::failed(piece, &fault())));
        if state.part_bytes > 0 {
            self.end_sending(state, overs);
        } else if let Some(request) = state.requests.remove(sent) {
            state.under_way_bytes = state.under_way_bytes.saturating_sub(request.length_bytes);
        }
    }

    /// A write is given up half-way: nothing may follow its first bytes.
    fn end_sending(&self, state: &mut State, overs: &mut Vec<Over>) {
        state.ending = true;
        if let Some(stream) = &state.stream {
            // A connection that is broken already shows it at the next read.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let behind: Vec<Piece> =
            state.requests.drain(state.sent..).filter_map(|request| request.piece).collect();
        state.part_bytes = 0;
        self.put_back(behind, overs);
        if state.sent == 0 {
            self.disconnect(state);
        }
    }

    fn put_back(&self, pieces: Vec<Piece>, overs: &mut Vec<Over>) {
        if pieces.is_empty() {
            return;
        }
        let gone = Error::new(Code::Endpoint, Stage::Execute, "the peer was given up");
        match self.peer.upgrade() {
            Some(peer) => peer.put_back(pieces.into_iter(), overs),
            None => overs.extend(pieces.into_iter().map(|piece| Over::failed(piece, &gone))),
        }
    }

    fn stalled(&self, state: &State, now: Instant) -> Option<Error> {
        if state.phase != Phase::Ready || state.requests.is_empty() {
            return None;
        }
        let limit = self.peer.upgrade()?.settings.progress_timeout;
        (now.saturating_duration_since(state.moved_at) >= limit).then(|| {
            let text = format!("no byte moved for {} ms", limit.as_millis());
            Error::new(Code::Timeout, Stage::Execute, text)
                .advice("check the peer and the network; MC_TCP_PROGRESS_TIMEOUT_SEC sets the limit")
        })
    }

    /// The connection is of no more use: what was sent fails, what was not goes to another lane.
    fn broken(&self, state: &mut State, error: &Error, overs: &mut Vec<Over>) -> Turn {
        let refused = error.code() == Code::AddressNotRegistered;
        let touched = if refused { 1 } else { state.sent.saturating_add(usize::from(state.part_bytes > 0)) };
        let mut unsent = Vec::new();
        for (index, request) in state.requests.drain(..).enumerate() {
            let Some(mut piece) = request.piece else { continue };
            if index < touched || piece.retries >= MAX_RETRIES {
                overs.push(Over::failed(piece, error));
            } else {
                // After a refusal nothing is wrong with the peer: that is no retry.
                piece.retries = piece.retries.saturating_add(u8::from(!refused));
                unsent.push(piece);
            }
        }
        self.disconnect(state);
        self.put_back(unsent, overs);
        if self.peer.upgrade().is_some_and(|peer| peer.has_work()) { Turn::More } else { Turn::Waiting }
    }

    fn disconnect(&self, state: &mut State) {
        if let Some(mut stream) = state.stream.take() {
            self.handle.forget(&mut stream);
        }
        if state.phase == Phase::Ready
            && let Some(peer) = self.peer.upgrade()
        {
            peer.lane_down();
        }
        state.phase = Phase::Closed;
        state.requests.clear();
        state.sent = 0;
        state.part_bytes = 0;
        state.under_way_bytes = 0;
        state.status_bytes = 0;
        state.arrived_bytes = 0;
        state.ending = false;
        state.address = 0;
        self.idle.store(true, Ordering::Relaxed);
    }

    fn connect(&self, state: &mut State, peer: &Arc<TcpPeer>, overs: &mut Vec<Over>) -> Turn {
        let Some(address) = peer.addresses.get(state.address) else {
            let error = Error::new(Code::Dns, Stage::Connect, "the peer has no address");
            return self.next_address(state, peer, error, overs);
        };
        let started = TcpStream::connect(*address).and_then(|mut stream| {
            self.handle.watch(self.token, &mut stream)?;
            Ok(stream)
        });
        match started {
            Ok(stream) => {
                state.stream = Some(stream);
                let now = Instant::now();
                let until = now.checked_add(peer.settings.connect_timeout).unwrap_or(now);
                state.phase = Phase::Connecting { until };
                Turn::Waiting
            }
            Err(error) => {
                let error = unreachable(*address, &error);
                self.next_address(state, peer, error, overs)
            }
        }
    }

    /// Whether the connection is up: `None` when it is, else what follows.
    fn connected(&self, state: &mut State, peer: &Arc<TcpPeer>, overs: &mut Vec<Over>) -> Option<Turn> {
        let stream = state.stream.as_ref()?;
        let failure = match stream.take_error() {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => match stream.peer_addr() {
                Ok(_) => {
                    self.up(state);
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::NotConnected => return Some(Turn::Waiting),
                Err(error) => error,
            },
        };
        let address = peer.addresses.get(state.address).copied();
        let error = address.map_or_else(|| io_error(&failure), |address| unreachable(address, &failure));
        Some(self.next_address(state, peer, error, overs))
    }

    fn up(&self, state: &mut State) {
        if let Some(stream) = &state.stream {
            // Small requests must not wait for more; without the option they would, and still arrive.
            let _ = stream.set_nodelay(true);
        }
        state.phase = Phase::Ready;
        state.moved_at = Instant::now();
        if let Some(peer) = self.peer.upgrade() {
            peer.lane_up();
        }
    }

    /// Tries the next address, or says that the peer cannot be reached.
    fn next_address(
        &self,
        state: &mut State,
        peer: &Arc<TcpPeer>,
        error: Error,
        overs: &mut Vec<Over>,
    ) -> Turn {
        let next = state.address.saturating_add(1);
        let requests = std::mem::take(&mut state.requests);
        self.disconnect(state);
        if next < peer.addresses.len() {
            state.address = next;
            state.under_way_bytes = requests.iter().map(|request| request.length_bytes).sum();
            state.requests = requests;
            return self.connect(state, peer, overs);
        }
        peer.put_back(requests.into_iter().filter_map(|request| request.piece), overs);
        peer.unreachable(&error, overs);
        Turn::Waiting
    }
}

fn socket_error(text: &str) -> Error {
    Error::new(Code::Socket, Stage::Execute, format!("a data lane broke: {text}"))
}

fn is_fault(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EFAULT)
}

fn fault() -> Error {
    Error::new(Code::InvalidArgument, Stage::Execute, "the local memory is not mapped, or not writable")
        .advice("keep the buffers of a transfer mapped until it is over")
}

fn io_error(error: &io::Error) -> Error {
    socket_error(&error.to_string())
}

fn unreachable(address: std::net::SocketAddr, error: &io::Error) -> Error {
    Error::new(Code::Socket, Stage::Connect, format!("cannot connect to the data port {address}: {error}"))
        .advice("check that the peer runs and that no firewall drops the port")
}

//! One client of the handshake listener, as a state machine without blocking calls.
//!
//! A session reads one frame, writes one reply, half-closes, and waits for the client to close: each within the
//! same bounded time. The caller gives it readiness and time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use serde::de::IgnoredAny;

use super::Responder;
use super::frame::{Assembler, Kind, encode};
use crate::error::Stage;
use crate::notify::Note;
use crate::segment::json;

/// What upstream's engine answers to an exchange of RDMA endpoints when it has none.
pub(super) const NO_ENDPOINT: &[u8] =
    b"{\"local_gid\":\"\",\"local_lid\":0,\"local_nic_path\":\"\",\"payload\":\"\",\"peer_nic_path\":\"\",\"qp_num\":[],\"reply_msg\":\"\"}\n";
const NOTE_TAKEN: &[u8] = b"{\"name\":\"\",\"notify_msg\":\"success\"}\n";
const ALIVE: &[u8] = b"{\"status\":\"success\"}\n";

/// Bytes a client may send after its frame before it is cut off.
const MAX_DRAINED_BYTES: usize = 1 << 20;

/// Bytes read before other sessions get their turn.
const TURN_BYTES: usize = 256 << 10;

/// What becomes of a session after it was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Waits for the socket.
    Waiting,
    /// Has more to do at once; others come first.
    Again,
    /// Over; drop it.
    Over,
}

enum State {
    Reading(Assembler),
    Writing { reply: Vec<u8>, written: usize },
    Draining { seen: usize },
}

/// One client.
pub(super) struct Session {
    pub(super) stream: TcpStream,
    peer: SocketAddr,
    state: State,
    timeout: Duration,
    /// When the current step has to be over.
    pub(super) due: Instant,
}

impl Session {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, limit_bytes: usize, timeout: Duration) -> Self {
        let due = due_after(timeout);
        Self { stream, peer, state: State::Reading(Assembler::new(limit_bytes)), timeout, due }
    }

    /// Bytes kept for this client.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.state {
            State::Reading(assembler) => assembler.held_bytes(),
            State::Writing { reply, .. } => reply.capacity(),
            State::Draining { .. } => 0,
        }
    }

    /// Goes on as far as the socket allows.
    pub(super) fn drive(&mut self, responder: &dyn Responder, scratch: &mut [u8]) -> Progress {
        let mut turn = TURN_BYTES;
        loop {
            let progress = match &mut self.state {
                State::Reading(_) => self.read(responder, scratch, &mut turn),
                State::Writing { .. } => self.write(),
                State::Draining { .. } => self.drain(scratch, &mut turn),
            };
            match progress {
                Some(progress) => return progress,
                None if turn == 0 => return Progress::Again,
                None => {}
            }
        }
    }

    fn read(&mut self, responder: &dyn Responder, scratch: &mut [u8], turn: &mut usize) -> Option<Progress> {
        let State::Reading(assembler) = &mut self.state else { return None };
        let count = match receive(&mut self.stream, scratch) {
            Ok(0) => return Some(Progress::Over),
            Ok(count) => count,
            Err(progress) => return progress,
        };
        *turn = turn.saturating_sub(count);
        match assembler.push(scratch.get(..count).unwrap_or_default()) {
            Ok(false) => None,
            Ok(true) => match answer(assembler, responder, self.peer) {
                Some(reply) => {
                    self.state = State::Writing { reply, written: 0 };
                    self.due = due_after(self.timeout);
                    None
                }
                None => Some(Progress::Over),
            },
            Err(error) => {
                log::debug!("{}: {error}", self.peer);
                Some(Progress::Over)
            }
        }
    }

    fn write(&mut self) -> Option<Progress> {
        let State::Writing { reply, written } = &mut self.state else { return None };
        let rest = reply.get(*written..).unwrap_or_default();
        if rest.is_empty() {
            // The client sees the end of the reply at once; reading on keeps the reply safe from a reset.
            if self.stream.shutdown(Shutdown::Write).is_err() {
                return Some(Progress::Over);
            }
            self.state = State::Draining { seen: 0 };
            self.due = due_after(self.timeout);
            return None;
        }
        match self.stream.write(rest) {
            Ok(0) => Some(Progress::Over),
            Ok(count) => {
                *written = written.saturating_add(count);
                None
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Progress::Waiting),
            Err(error) if error.kind() == ErrorKind::Interrupted => None,
            Err(_) => Some(Progress::Over),
        }
    }

    fn drain(&mut self, scratch: &mut [u8], turn: &mut usize) -> Option<Progress> {
        let State::Draining { seen } = &mut self.state else { return None };
        match receive(&mut self.stream, scratch) {
            Ok(0) => Some(Progress::Over),
            Ok(count) => {
                *turn = turn.saturating_sub(count);
                *seen = seen.saturating_add(count);
                (*seen > MAX_DRAINED_BYTES).then_some(Progress::Over)
            }
            Err(progress) => progress,
        }
    }
}

fn due_after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now)
}

/// Reads once: the count, or what it means that nothing came.
fn receive(stream: &mut TcpStream, scratch: &mut [u8]) -> Result<usize, Option<Progress>> {
    stream.read(scratch).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Some(Progress::Waiting),
        ErrorKind::Interrupted => None,
        _ => Some(Progress::Over),
    })
}

/// The reply to a whole frame; `None` closes without one, as upstream does for what it cannot read.
fn answer(assembler: &Assembler, responder: &dyn Responder, peer: SocketAddr) -> Option<Vec<u8>> {
    let (kind, body) = assembler.parts()?;
    if kind == Kind::Notify {
        let note: Note = json::parse(body, "the note", Stage::Handshake).ok()?;
        return match responder.notify(note) {
            Ok(()) => Some(encode(kind, NOTE_TAKEN)),
            Err(error) => {
                log::warn!("{peer}: {error}");
                None
            }
        };
    }
    json::parse::<IgnoredAny>(body, "the request", Stage::Handshake).ok()?;
    Some(match kind {
        Kind::Metadata => encode(kind, &responder.descriptor()),
        Kind::Probe => encode(kind, ALIVE),
        Kind::Connection | Kind::OldConnection | Kind::Notify => encode(kind, NO_ENDPOINT),
    })
}

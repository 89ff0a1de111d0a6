//! Giving requests up, one or all: what was reported is quiet, and what was not sent goes to another lane.

use std::net::Shutdown;
use std::time::Instant;

use super::failure::fault;
use super::{Lane, MAX_RETRIES, Phase, State};
use crate::error::{Code, Error, Stage};
use crate::transport::tcp::reactor::Turn;
use crate::transport::tcp::transfer::{Over, Piece};

impl Lane {
    /// Gives up the requests that have to stop. An error when the connection is of no more use.
    pub(super) fn stop_requests(&self, state: &mut State, overs: &mut Vec<Over>) -> Option<Error> {
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
    pub(super) fn unreadable(&self, state: &mut State, overs: &mut Vec<Over>) {
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
    pub(super) fn end_sending(&self, state: &mut State, overs: &mut Vec<Over>) {
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

    pub(super) fn put_back(&self, pieces: Vec<Piece>, overs: &mut Vec<Over>) {
        if pieces.is_empty() {
            return;
        }
        let gone = Error::new(Code::Endpoint, Stage::Execute, "the peer was given up");
        match self.peer.upgrade() {
            Some(peer) => peer.put_back(pieces.into_iter(), overs),
            None => overs.extend(pieces.into_iter().map(|piece| Over::failed(piece, &gone))),
        }
    }

    pub(super) fn stalled(&self, state: &State, now: Instant) -> Option<Error> {
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
    pub(super) fn broken(&self, state: &mut State, error: &Error, overs: &mut Vec<Over>) -> Turn {
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
}

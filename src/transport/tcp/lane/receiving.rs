//! What comes in on a lane: answers in the order of the requests, and the bytes of reads, straight into memory.

use std::io::ErrorKind;
use std::time::Instant;

use super::failure::{fault, io_error, is_fault, socket_error};
use super::{Io, Lane, State, TURN_BYTES};
use crate::error::{Code, Error, Stage};
use crate::memory::io::Receive;
use crate::transport::tcp::transfer::Over;
use crate::transport::tcp::wire::{self, STATUS_BYTES};

/// Answers looked for in one call.
const MAX_ANSWERS: usize = 24;
/// Bytes thrown away in one call.
const DISCARD_BYTES: usize = 64 << 10;

impl Lane {
    /// Receives; gives the number of bytes, `None` when there is nothing for now.
    pub(super) fn receive(&self, state: &mut State, overs: &mut Vec<Over>) -> Result<Option<usize>, Error> {
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

    pub(super) fn receive_for(
        &self,
        state: &mut State,
        overs: &mut Vec<Over>,
        most: usize,
    ) -> Result<Io, Error> {
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
        let count = match list.receive(&**stream) {
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
    pub(super) fn account(
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

    pub(super) fn keeps(&self) -> bool {
        self.peer.upgrade().is_some_and(|peer| peer.keeps_lanes())
    }

    /// Looks at the status of the first request. A refusal ends the connection: the peer has not looked at what
    /// came after it, so that goes to another lane.
    pub(super) fn check_status(&self, state: &mut State) -> Result<(), Error> {
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

    pub(super) fn finish_front(&self, state: &mut State, overs: &mut Vec<Over>) {
        if let Some(request) = state.requests.pop_front() {
            state.sent = state.sent.saturating_sub(1);
            state.under_way_bytes = state.under_way_bytes.saturating_sub(request.length_bytes);
            overs.extend(request.piece.map(Over::done));
        }
        state.status_bytes = 0;
        state.arrived_bytes = 0;
    }

    /// The peer has ended the connection.
    pub(super) fn ended(&self, state: &mut State, overs: &mut Vec<Over>) -> Result<(), Error> {
        let whole =
            !self.confirmed && state.sent > 0 && state.requests.front().is_some_and(|request| request.write);
        if whole {
            self.finish_front(state, overs);
            self.disconnect(state);
            return Ok(());
        }
        Err(socket_error("the peer closed the connection"))
    }
}

//! What goes out on a lane: headers and the memory of writes, in the order of the requests.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Instant;

use super::failure::{io_error, is_fault};
use super::{Io, Lane, State, TURN_BYTES};
use crate::error::Error;
use crate::memory::io::Send;
use crate::transport::tcp::reactor::Watched;
use crate::transport::tcp::transfer::Over;
use crate::transport::tcp::wire::HEADER_BYTES;

impl Lane {
    /// Sends; gives the number of bytes, `None` when the socket takes no more or there is nothing.
    pub(super) fn send(&self, state: &mut State, overs: &mut Vec<Over>) -> Result<Option<usize>, Error> {
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

    pub(super) fn send_for(&self, state: &mut State, most: usize) -> Result<Io, Error> {
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
        let count = match list.send(&**stream) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.watch_for(state, Watched::Everything)?;
                return Ok(Io::Blocked);
            }
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
}

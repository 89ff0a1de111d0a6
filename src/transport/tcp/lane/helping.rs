//! Who waits for a small transfer looks after its connection meanwhile: the answer then wakes the thread that wants
//! it, and not first a loop that has to wake that one. On virtual machines a wake-up costs more than such a transfer.
//! He stays for as long as something of his own is under way there: what is left of his batch may end elsewhere, and
//! who sleeps here would not hear of it.
//!
//! The loop is told to look away as long as that lasts. Invariant: whoever stops helping has the loop look again,
//! which raises an event if something has come in between; deadlines are the loop's business all the time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::net::TcpStream;

use super::failure::io_error;
use super::{Lane, Phase, State};
use crate::batch::{Batch, Help};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::memory::io::wait_readable;
use crate::transport::tcp::reactor::{Turn, Watched};
use crate::transport::tcp::transfer::report;

/// Longest wait between two looks at the batch, which others may have ended.
const SLICE: Duration = Duration::from_millis(5);
/// Waits in vain after which the loop takes over: what takes so long is not small.
const PATIENCE: usize = 8;

impl Help for Lane {
    fn may_sleep(&self) -> bool {
        true
    }

    fn help(&self, batch: &Batch, deadline: Deadline) {
        let Some(stream) = self.take_over(batch) else { return };
        let mut in_vain = 0;
        while !batch.is_finished() && in_vain < PATIENCE && !deadline.expired() {
            let slice = SLICE.min(deadline.remaining());
            if !wait_readable(&*stream, slice) {
                in_vain += 1;
                continue;
            }
            let mut overs = Vec::new();
            let mut state = self.state.lock();
            if !is_on(&state, &stream) {
                break; // it is handed back below
            }
            let turn = self.guarded(&mut state, &mut overs, |lane, state, peer, overs| {
                lane.advance(state, peer, overs, false)
            });
            // Others may use the lane, too: what cannot be sent at once is for the loop, as is what they wait for.
            let more = is_on(&state, &stream) && awaits(&state, batch);
            drop(state);
            report(&mut overs);
            if turn != Turn::Waiting || !more || self.pushed.load(Ordering::SeqCst) {
                break;
            }
        }
        self.hand_back(&stream);
    }
}

/// Whether that is the lane's connection, and in use.
fn is_on(state: &State, stream: &Arc<TcpStream>) -> bool {
    let same = state.stream.as_ref().is_some_and(|current| Arc::ptr_eq(current, stream));
    same && state.phase == Phase::Ready
}

/// Whether nothing is to be done but to wait for answers, some of them for the batch.
fn awaits(state: &State, batch: &Batch) -> bool {
    state.sent == state.requests.len() && state.requests.iter().any(|request| request.is_of(batch))
}

impl Lane {
    /// The stream, if everything on it was sent, the batch waits for it, and nobody else has taken it.
    fn take_over(&self, batch: &Batch) -> Option<Arc<TcpStream>> {
        let mut state = self.state.lock();
        let can = state.phase == Phase::Ready && awaits(&state, batch) && state.watched != Watched::Nothing;
        let stream = state.stream.clone().filter(|_| can);
        // Without this the loop is woken as well, no more.
        let taken = stream.filter(|_| self.watch_for(&mut state, Watched::Nothing).is_ok());
        self.let_go(state);
        taken
    }

    fn hand_back(&self, stream: &Arc<TcpStream>) {
        let mut state = self.state.lock();
        let same = is_on(&state, stream);
        let unsent = state.sent < state.requests.len();
        let watched = if unsent { Watched::Everything } else { Watched::Arrivals };
        let looks = !same || self.watch_for(&mut state, watched).is_ok();
        drop(state);
        if !looks || unsent || self.was_pushed() {
            self.handle.drive(self.token);
        }
    }

    /// Changes what wakes the loop, if that is not so already.
    pub(super) fn watch_for(&self, state: &mut State, watched: Watched) -> Result<(), Error> {
        if state.watched == watched {
            return Ok(());
        }
        if let Some(stream) = &state.stream {
            self.handle.watch_for(self.token, stream, watched).map_err(|error| io_error(&error))?;
        }
        state.watched = watched;
        Ok(())
    }
}

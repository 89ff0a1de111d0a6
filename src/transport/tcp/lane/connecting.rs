//! A lane's connection: made without waiting, by one address of the peer after the other, and taken down.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::net::TcpStream;

use super::failure::{io_error, unreachable};
use super::{Lane, Phase, State};
use crate::error::{Code, Error, Stage};
use crate::transport::tcp::peer::TcpPeer;
use crate::transport::tcp::reactor::{Turn, Watched};
use crate::transport::tcp::transfer::Over;

impl Lane {
    pub(super) fn disconnect(&self, state: &mut State) {
        if let Some(stream) = state.stream.take() {
            self.handle.forget(&stream);
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

    pub(super) fn connect(&self, state: &mut State, peer: &Arc<TcpPeer>, overs: &mut Vec<Over>) -> Turn {
        let Some(address) = peer.addresses.get(state.address) else {
            let error = Error::new(Code::Dns, Stage::Connect, "the peer has no address");
            return self.next_address(state, peer, error, overs);
        };
        let started = TcpStream::connect(*address).and_then(|stream| {
            self.handle.watch(self.token, &stream)?;
            Ok(stream)
        });
        match started {
            Ok(stream) => {
                state.stream = Some(Arc::new(stream));
                state.watched = Watched::Everything;
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
    pub(super) fn connected(
        &self,
        state: &mut State,
        peer: &Arc<TcpPeer>,
        overs: &mut Vec<Over>,
    ) -> Option<Turn> {
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

    pub(super) fn up(&self, state: &mut State) {
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
    pub(super) fn next_address(
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

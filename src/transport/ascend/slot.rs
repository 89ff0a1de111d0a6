//! One pair of devices with its channels: the ready one, the one being made, those that end, and the requests that
//! wait.
//!
//! Invariants: a slot has at most one opening; what is lost takes nothing more.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::channel::{Channel, Close};
use super::device::Device;
use super::opening::{Opening, PORT_TRIES, Role};
use crate::control::Connection;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::transport::Request;

/// One pair of devices, as this side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// This side's device.
    pub local_device: i32,
    /// The peer's incarnation.
    pub peer: u128,
    /// The peer's device, by the id it uses itself, or [`ANY_DEVICE`](super::channels::ANY_DEVICE).
    pub remote_device: i32,
}

/// A request that waits for the next channel.
pub struct Waiting {
    /// The request.
    pub request: Arc<Request>,
    /// Channels that were made meanwhile and do not cover it.
    pub tries: u32,
}

/// What changes about a slot.
#[derive(Default)]
pub struct State {
    /// The channel that takes requests.
    pub ready: Option<Arc<Channel>>,
    /// The channel that is being made.
    pub opening: Option<Arc<Opening>>,
    /// What waits for it.
    pub pending: VecDeque<Waiting>,
    /// Channels that end.
    pub ending: Vec<Arc<Channel>>,
    /// Why nothing may be added any more.
    pub lost: Option<Error>,
    attempts: u32,
    /// Ports of the device that were given up in a row, whichever side made the offers.
    ports_given_up: u32,
}

impl State {
    /// Makes the slot's next opening.
    pub fn begin(&mut self, role: Role) -> Arc<Opening> {
        self.attempts = self.attempts.wrapping_add(1);
        let opening = Arc::new(Opening::new(role, self.attempts, self.ports_given_up));
        self.opening = Some(Arc::clone(&opening));
        opening
    }

    /// Gives the port at hand up for the next one; false when [`PORT_TRIES`] were given up already.
    pub fn next_port(&mut self) -> bool {
        let goes_on = self.ports_given_up < PORT_TRIES;
        if goes_on {
            self.ports_given_up = self.ports_given_up.saturating_add(1);
        }
        goes_on
    }

    /// A channel was made, or nobody wants one any more: the next opening has all tries.
    pub fn forget_ports(&mut self) {
        self.ports_given_up = 0;
    }

    /// Whether `opening` is the one at hand.
    #[must_use]
    pub fn is_opening(&self, opening: &Arc<Opening>) -> bool {
        self.opening.as_ref().is_some_and(|current| Arc::ptr_eq(current, opening))
    }

    /// Whether `channel` is the one that takes requests.
    #[must_use]
    pub fn is_ready(&self, channel: &Arc<Channel>) -> bool {
        self.ready.as_ref().is_some_and(|ready| Arc::ptr_eq(ready, channel))
    }

    /// The channels there are, ready or ending.
    pub fn channels(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.ready.iter().chain(&self.ending)
    }

    /// Those with this communicator's name.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Arc<Channel>> {
        self.channels().filter(|channel| channel.name() == name).cloned().collect()
    }
}

/// A pair of devices with its channels.
pub struct Slot {
    key: Key,
    device: Arc<Device>,
    connection: Mutex<Arc<Connection>>,
    /// What changes.
    pub state: Mutex<State>,
    /// Told when the opening changes.
    pub changed: Condvar,
}

impl Slot {
    /// Without channels yet.
    #[must_use]
    pub fn new(key: Key, device: &Arc<Device>, connection: &Arc<Connection>) -> Arc<Self> {
        Arc::new(Self {
            key,
            device: Arc::clone(device),
            connection: Mutex::new(Arc::clone(connection)),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Which pair.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// This side's device.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The latest control connection to the peer.
    #[must_use]
    pub fn connection(&self) -> Arc<Connection> {
        Arc::clone(&self.connection.lock())
    }

    /// From now on this is the connection to the peer, unless it is over: then a newer one may be here already.
    pub fn set_connection(&self, connection: &Arc<Connection>) {
        if !connection.is_alive() {
            return;
        }
        let mut current = self.connection.lock();
        if !Arc::ptr_eq(&current, connection) {
            *current = Arc::clone(connection);
        }
    }

    /// Whether `opening` is still the slot's.
    #[must_use]
    pub fn is_current(&self, opening: &Arc<Opening>) -> bool {
        self.state.lock().is_opening(opening)
    }

    /// Waits until `opening` is not the slot's any more; false when it still is at the deadline.
    #[must_use]
    pub fn wait_replaced(&self, opening: &Arc<Opening>, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        loop {
            if !state.is_opening(opening) {
                return true;
            }
            if self.changed.wait_until(&mut state, deadline.at()).timed_out() {
                return false;
            }
        }
    }

    /// Takes a ready channel out of its slot, so that new requests go to the next one, and ends it.
    pub fn retire(&self, channel: &Arc<Channel>) {
        let mut state = self.state.lock();
        if state.is_ready(channel) {
            state.ready = None;
            state.ending.push(Arc::clone(channel));
        }
        drop(state);
        channel.close(Close::Retire);
    }

    /// Fails everything, for good; the slot is out of the map already.
    pub fn abandon(&self, why: &Error) {
        let (waiting, channels) = {
            let mut state = self.state.lock();
            state.lost = Some(why.clone());
            if let Some(opening) = state.opening.take() {
                opening.stop(why.clone());
            }
            self.changed.notify_all();
            let waiting = std::mem::take(&mut state.pending);
            let channels: Vec<_> = state.channels().cloned().collect();
            (waiting, channels)
        };
        for waiting in waiting {
            waiting.request.fail(why);
        }
        for channel in channels {
            channel.close(Close::Fail(why.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_whoever_makes_the_offer() {
        let mut state = State::default();
        assert_eq!(state.begin(Role::Initiator).port_try(), 0);
        for given_up in 1..=PORT_TRIES {
            assert!(state.next_port());
            // The peer's offer crosses and takes the place of ours, time and again.
            assert_eq!(state.begin(Role::Initiator).port_try(), given_up);
            assert_eq!(state.begin(Role::Acceptor).port_try(), given_up);
        }
        assert!(!state.next_port(), "tried for ever");
        state.forget_ports();
        assert_eq!(state.begin(Role::Initiator).port_try(), 0);
    }
}

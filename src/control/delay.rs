//! Messages of peers that are held back for a while before they are served, all for the same while.
//!
//! Only for measurements beside a software NPU that is slower than hardware: there a message of this machine would be
//! too fast. Nothing is held unless `MOONCAKE_TRANSFER_CONTROL_LATENCY_US` says how long. The order of the messages of
//! a peer stays, because all wait equally long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::frame::Header;

/// Messages held back; with one more the oldest is served early.
pub const MAX_HELD_FRAMES: usize = 4096;

/// How long before its time a message is waited for without looking at the sockets: the loop's own waits are whole
/// milliseconds.
const SHORT: Duration = Duration::from_millis(2);

/// A message that waits.
pub(super) struct Held {
    pub(super) token: usize,
    pub(super) connection: Arc<Connection>,
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    due: Instant,
}

/// The messages that wait, by time.
pub(super) struct Delay {
    time: Duration,
    held: VecDeque<Held>,
}

impl Delay {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, held: VecDeque::new() }
    }

    /// Whether messages are served as they come.
    pub(super) fn is_off(&self) -> bool {
        self.time.is_zero()
    }

    /// Holds a message; answers one that has to be served at once because too many wait.
    pub(super) fn hold(
        &mut self,
        token: usize,
        connection: Arc<Connection>,
        header: Header,
        body: Vec<u8>,
    ) -> Option<Held> {
        let due = Instant::now() + self.time;
        self.held.push_back(Held { token, connection, header, body, due });
        if self.held.len() > MAX_HELD_FRAMES { self.held.pop_front() } else { None }
    }

    /// When the loop has to look again: a little before the next message is due.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.held.front().map(|held| held.due.checked_sub(SHORT).unwrap_or(held.due))
    }

    /// The next message whose time has come, or is so near that the rest of it is slept here.
    pub(super) fn take_due(&mut self) -> Option<Held> {
        let due = self.held.front()?.due;
        let left = due.saturating_duration_since(Instant::now());
        if left > SHORT {
            return None;
        }
        std::thread::sleep(left);
        self.held.pop_front()
    }

    /// The messages of a connection that ends: they came before its end.
    pub(super) fn take_of(&mut self, token: usize) -> Vec<Held> {
        if !self.held.iter().any(|held| held.token == token) {
            return Vec::new();
        }
        let (of_it, others) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.token == token);
        self.held = others;
        Vec::from(of_it)
    }
}

//! Peers: what we know of each remote engine, each behind one lock of its own.
//!
//! [`state`] is the pure state machine (Unknown, Connecting, Ready, Suspect, Dead), [`worker`] the thread that
//! does for one peer what may block. A peer is one *segment name*; the process behind the name is told apart by
//! its incarnation, which lies in the link the state holds.

pub mod state;
pub mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub use state::{PeerCondition, PeerState, Step};
pub use worker::Worker;

use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// One remote engine, by the name its segment was opened with; `T` is what a ready peer is used through.
pub struct Peer<T> {
    name: String,
    state: Mutex<PeerState<T>>,
    changed: Condvar,
    worker: Arc<Worker>,
}

impl<T: Clone> Peer<T> {
    /// A peer nobody has used yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: Mutex::new(PeerState::default()),
            changed: Condvar::new(),
            worker: Worker::new(format!("mct-peer {name}")),
        }
    }

    /// The segment name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The thread of this peer.
    #[must_use]
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// The link, when the peer is ready; never blocks beyond the peer's own lock.
    #[must_use]
    pub fn ready(&self) -> Option<T> {
        self.state.lock().ready()
    }

    /// The name of the peer's state.
    #[must_use]
    pub fn condition(&self) -> PeerCondition {
        self.state.lock().condition()
    }

    /// The link; connects by `connect` if nobody does, waits if somebody does, fails at once while a back-off
    /// runs. The lock is not held while `connect` runs.
    ///
    /// `patience` is the time that an attempt may take at most. An attempt that fails sooner because `deadline`
    /// passed was the caller's hurry and no word about the peer: nobody backs off for it.
    ///
    /// # Errors
    /// What `connect` returned, now or at the attempt the back-off follows; [`Code::Timeout`] when another
    /// thread's attempt outlives `deadline`.
    pub fn link(
        &self,
        deadline: Deadline,
        patience: Duration,
        connect: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state.lock();
        loop {
            match state.begin(Instant::now()) {
                Step::Use(link) => return Ok(link),
                Step::FailFast(error) => return Err(error),
                Step::Connect => break,
                Step::Wait => {
                    if self.changed.wait_until(&mut state, deadline.at()).timed_out() {
                        return Err(Error::new(
                            Code::Timeout,
                            Stage::Connect,
                            "another attempt to connect to this peer did not end in time",
                        )
                        .peer(&self.name));
                    }
                }
            }
        }
        drop(state);
        // The guard turns a panic of `connect` into a failed attempt: the state never stays at Connecting.
        let mut attempt = Attempt { peer: self, settled: false };
        let started = Instant::now();
        let outcome = connect();
        let hurried = deadline.expired() && started.elapsed() < patience;
        attempt.settle(&outcome, hurried);
        outcome
    }

    /// The link broke; the next use connects again. `is_it` tells whether the link is the one that broke.
    pub fn lost(&self, error: &Error, is_it: impl FnOnce(&T) -> bool) {
        let mut state = self.state.lock();
        if state.ready().is_some_and(|link| is_it(&link)) {
            state.lost(Instant::now(), error.clone());
            self.changed.notify_all();
        }
    }

    /// The peer reached us: a back-off is over.
    pub fn heard_from(&self) {
        self.state.lock().heard_from();
    }
}

struct Attempt<'a, T: Clone> {
    peer: &'a Peer<T>,
    settled: bool,
}

impl<T: Clone> Attempt<'_, T> {
    fn settle(&mut self, outcome: &Result<T>, hurried: bool) {
        self.settled = true;
        let mut state = self.peer.state.lock();
        match outcome {
            Ok(link) => state.connected(link.clone()),
            Err(error) if hurried => state.given_up(Instant::now(), error.clone()),
            Err(error) => state.failed(Instant::now(), error.clone()),
        }
        self.peer.changed.notify_all();
    }
}

impl<T: Clone> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        if !self.settled {
            let error = Error::new(Code::Internal, Stage::Connect, "an attempt to connect ended in a panic");
            self.settle(&Err(error.peer(self.peer.name())), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn soon() -> Deadline {
        Deadline::after(PATIENCE)
    }

    fn refused() -> Result<u32> {
        Err(Error::new(Code::Socket, Stage::Connect, "refused"))
    }

    #[test]
    fn many_threads_share_one_attempt() {
        let peer = Peer::<u32>::new("a:1");
        let attempts = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let link = peer.link(soon(), PATIENCE, || {
                        attempts.fetch_add(1, Ordering::SeqCst);
                        Ok(7)
                    });
                    assert_eq!(link.unwrap(), 7);
                });
            }
        });
        assert_eq!(attempts.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panicking_attempt_frees_the_peer() {
        let peer = Peer::<u32>::new("a:1");
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = peer.link(soon(), PATIENCE, || panic!("on purpose"));
        }));
        assert!(caught.is_err());
        assert_eq!(peer.condition(), PeerCondition::Suspect);
    }

    #[test]
    fn a_callers_hurry_starts_no_back_off() {
        let peer = Peer::<u32>::new("a:1");
        let at_once = || Deadline::after(Duration::ZERO);
        assert!(peer.link(at_once(), PATIENCE, refused).is_err());
        assert_eq!(peer.link(soon(), PATIENCE, || Ok(3)).unwrap(), 3, "the next caller has time");
        // An attempt that had all the time there is counts, whatever the caller's deadline.
        let peer = Peer::<u32>::new("a:1");
        assert!(peer.link(at_once(), Duration::ZERO, refused).is_err());
        assert_eq!(peer.condition(), PeerCondition::Suspect);
        assert!(peer.link(soon(), PATIENCE, || Ok(3)).is_err(), "fails fast");
    }

    #[test]
    fn only_the_link_that_broke_is_lost() {
        let peer = Peer::<u32>::new("a:1");
        peer.link(soon(), PATIENCE, || Ok(2)).unwrap();
        let error = Error::new(Code::Socket, Stage::Execute, "reset");
        peer.lost(&error, |link| *link == 1);
        assert_eq!(peer.ready(), Some(2));
        peer.lost(&error, |link| *link == 2);
        assert_eq!(peer.ready(), None);
    }
}

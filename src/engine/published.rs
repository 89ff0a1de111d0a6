//! The engine's entry in a metadata service: told at every change, looked after while the engine lives, taken out
//! at its end.
//!
//! Invariants: once the end has begun nothing new is told; the entry is taken out after the last word that was under
//! way, by the end itself, or, when it cannot wait for that word any longer, by whoever has it. So no entry is left by
//! a word that arrives late. Peer to peer there is no entry, and nothing of this is used.

use parking_lot::{Condvar, Mutex};

use super::{CLOSE_GRACE, Shared};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::metadata::Standing;

/// Words to the service that are under way, and whether there will be more.
#[derive(Default)]
pub(super) struct Published {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    under_way: usize,
    ended: bool,
    /// The end does not wait any longer: the last word takes the entry out.
    left_to_the_last: bool,
    /// The service may have something else than the newest descriptor.
    stale: bool,
}

impl Published {
    /// False once the end has begun.
    fn begin(&self) -> bool {
        let mut state = self.state.lock();
        if !state.ended {
            state.under_way += 1;
        }
        !state.ended
    }

    /// A word that was begun is over. True if the entry is to be taken out by who had it.
    fn finish(&self, newest: bool) -> bool {
        let mut state = self.state.lock();
        state.under_way = state.under_way.saturating_sub(1);
        state.stale = !newest;
        self.changed.notify_all();
        state.left_to_the_last && state.under_way == 0
    }

    /// Lets no new word begin, and waits for those under way. False if one still is at the deadline.
    fn end(&self, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        state.ended = true;
        while state.under_way > 0 {
            if self.changed.wait_until(&mut state, deadline.at()).timed_out() {
                break;
            }
        }
        state.left_to_the_last = state.under_way > 0;
        !state.left_to_the_last
    }

    fn is_stale(&self) -> bool {
        self.state.lock().stale
    }
}

impl Shared {
    /// Publishes our descriptor. Of several threads at once the one whose word arrives last may not have the
    /// newest, so each looks again whether what it published still stands.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] once the engine ends; [`Code::Metadata`] and what else the service fails with.
    pub(super) fn publish(&self, deadline: Deadline) -> Result<()> {
        // Peer to peer, whoever asks is answered from the registry. To write everything down at each registration
        // would make ten thousand of them cost a hundred million.
        if self.metadata.is_peer_to_peer() {
            return Ok(());
        }
        if !self.published.begin() {
            return Err(Error::new(Code::StaleHandle, Stage::Configure, "the engine is closed"));
        }
        let outcome = self.publish_newest(deadline);
        if self.published.finish(matches!(outcome, Ok(true))) {
            self.withdraw_entry(Deadline::after(CLOSE_GRACE));
        }
        outcome.map(drop)
    }

    /// True if the newest descriptor stands.
    fn publish_newest(&self, deadline: Deadline) -> Result<bool> {
        loop {
            let descriptor = self.descriptor();
            self.metadata.publish(&descriptor, deadline)?;
            let newest = descriptor.ours.as_ref().is_none_or(|ours| ours.epoch == self.registry.epoch());
            if newest || deadline.expired() {
                return Ok(newest);
            }
        }
    }

    /// Publishes again if the service has forgotten this engine, or did not take the last word.
    pub(super) fn look_after_entry(&self) {
        let deadline = self.metadata_deadline();
        let standing = if self.published.is_stale() {
            Ok(Standing::Forgotten)
        } else {
            self.metadata.standing(&self.name, deadline)
        };
        let outcome = match standing {
            Ok(Standing::Known) => return,
            Ok(Standing::Forgotten) => self.publish(deadline),
            Ok(Standing::Taken(other)) => Err(Error::new(
                Code::Metadata,
                Stage::Resolve,
                format!("the metadata service names {other} under this engine's name"),
            )
            .advice("give each engine a name of its own")),
            Err(error) => Err(error),
        };
        match outcome.map_err(|error| error.peer(&self.name)) {
            Ok(()) => log::info!("{}: the metadata service knows this engine again", self.name),
            Err(error) if error.code() == Code::StaleHandle => {}
            Err(error) => self.observed.reporter.report(&error),
        }
    }

    /// Takes the entry out for good.
    pub(super) fn end_entry(&self, deadline: Deadline) {
        if self.metadata.is_peer_to_peer() {
            return;
        }
        if self.published.end(deadline) {
            self.withdraw_entry(deadline);
        } else {
            log::warn!(
                "closing engine {} while the metadata service does not answer: its entry is taken out afterwards",
                self.name
            );
        }
    }

    fn withdraw_entry(&self, deadline: Deadline) {
        if self.announced.load(std::sync::atomic::Ordering::Acquire)
            && let Err(error) = self.metadata.withdraw(&self.name, deadline)
        {
            log::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn the_end_waits_for_the_word_that_is_under_way() {
        let published = Published::default();
        assert!(published.begin());
        std::thread::scope(|scope| {
            let end = scope.spawn(|| published.end(Deadline::after(LONG)));
            while published.begin() {
                assert!(!published.finish(true));
                std::thread::yield_now();
            }
            assert!(!end.is_finished(), "a word is under way");
            assert!(!published.finish(true), "the end takes the entry out");
            assert!(end.join().unwrap());
        });
        assert!(!published.begin(), "nothing is told after the end");
    }

    #[test]
    fn the_last_word_takes_out_what_the_end_could_not_wait_for() {
        let published = Published::default();
        assert!(published.begin() && published.begin());
        assert!(!published.end(Deadline::after(NOW)));
        assert!(!published.finish(true), "not the last");
        assert!(published.finish(false));
    }

    #[test]
    fn a_word_that_was_not_taken_is_remembered_until_one_is() {
        let published = Published::default();
        for newest in [true, false, true] {
            assert!(published.begin());
            assert!(!published.finish(newest));
            assert_eq!(published.is_stale(), !newest);
        }
    }
}

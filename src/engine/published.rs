//! The engine's entry in a metadata service: told at every change, looked after while the engine lives, taken out
//! at its end.
//!
//! Invariants: once the end has begun nothing new is told; the entry is taken out after the last word that was under
//! way, by the end itself, or, when it cannot wait for that word any longer, by whoever has it; nothing is told or
//! taken out where somebody else has taken the name. Peer to peer there is no entry, and nothing of this is used.
//!
//! Two limits: a program that exits as soon as the engine is closed may end before that last word, and then the entry
//! stays; and a word that the service did not answer in time may be applied after the entry was taken out. The next
//! engine of ours with the name finds that nobody answers at such an entry, and takes it over; upstream's is refused by
//! the stock servers as long as the place stands.

use parking_lot::{Condvar, Mutex};

use super::{CLOSE_GRACE, Shared};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::metadata::{Standing, taken};

/// Every so many looks one reads the whole descriptor, which ten thousand buffers make a megabyte; the others read the
/// place alone, which says whose the name is, and is what a service that was started again has forgotten too.
const LOOKS_PER_DESCRIPTOR: u32 = 10;

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
    /// Epoch of the registry that the service has; none when that is not known.
    told: Option<u64>,
    /// A word has failed, and others that were under way with it are not over: which came last is not known.
    in_doubt: bool,
    /// Looks since the last one that read the descriptor.
    looks: u32,
}

/// A word that is under way: over when it is dropped, also by a panic.
struct Word<'a> {
    published: &'a Published,
    /// What the last word does when the end could not wait for it.
    last: &'a dyn Fn(),
    /// The epoch that stands by it; none when it failed or was overtaken.
    stands: Option<u64>,
}

impl Drop for Word<'_> {
    fn drop(&mut self) {
        if self.published.finish(self.stands) {
            (self.last)();
        }
    }
}

impl Published {
    /// Nothing once the end has begun.
    fn begin<'a>(&'a self, last: &'a dyn Fn()) -> Option<Word<'a>> {
        let mut state = self.state.lock();
        if state.ended {
            return None;
        }
        state.under_way += 1;
        Some(Word { published: self, last, stands: None })
    }

    /// A word that was begun is over. True if the entry is to be taken out by who had it.
    fn finish(&self, stands: Option<u64>) -> bool {
        let mut state = self.state.lock();
        state.under_way = state.under_way.saturating_sub(1);
        state.in_doubt |= stands.is_none();
        // Of two that stood, the older was over before the newer was begun.
        state.told = if state.in_doubt { None } else { state.told.max(stands) };
        state.in_doubt &= state.under_way > 0;
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

    /// Whether the service may have something else than the descriptor of that epoch.
    fn is_stale(&self, epoch: u64) -> bool {
        self.state.lock().told != Some(epoch)
    }

    /// Whether it is the turn of the descriptor to be read.
    fn reads_descriptor(&self) -> bool {
        let mut state = self.state.lock();
        state.looks = (state.looks + 1) % LOOKS_PER_DESCRIPTOR;
        state.looks == 0
    }
}

impl Shared {
    /// Publishes our descriptor. Of several threads at once the one whose word arrives last may not have the
    /// newest, so each looks again whether what it published still stands.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] once the engine ends; [`Code::Metadata`], also where another has taken the name; what else
    /// the service fails with.
    pub(super) fn publish(&self, deadline: Deadline) -> Result<()> {
        // Peer to peer, whoever asks is answered from the registry. To write everything down at each registration
        // would make ten thousand of them cost a hundred million.
        if self.metadata.is_peer_to_peer() {
            return Ok(());
        }
        let last = || self.withdraw_entry();
        let Some(mut word) = self.published.begin(&last) else {
            return Err(Error::new(Code::StaleHandle, Stage::Configure, "the engine is closed"));
        };
        word.stands = self.publish_newest(deadline)?;
        Ok(())
    }

    /// The epoch that stands, if it is the newest.
    fn publish_newest(&self, deadline: Deadline) -> Result<Option<u64>> {
        loop {
            let epoch = self.registry.epoch();
            self.metadata.publish(&self.descriptor(), deadline)?;
            if self.registry.epoch() == epoch {
                return Ok(Some(epoch));
            }
            if deadline.expired() {
                return Ok(None);
            }
        }
    }

    /// Publishes again if the service has forgotten this engine, or did not take the last word. A name that somebody
    /// else has taken is left to that one, and reported.
    pub(super) fn look_after_entry(&self) {
        let deadline = self.metadata_deadline();
        let outcome = match self.entry_stands(deadline) {
            Ok(true) => return,
            Ok(false) => self.publish(deadline),
            Err(error) => Err(error),
        };
        match outcome.map_err(|error| error.peer(&self.name)) {
            Ok(()) => log::info!("{}: the metadata service knows this engine again", self.name),
            Err(error) if error.code() == Code::StaleHandle => {}
            Err(error) => self.observed.reporter.report(&error),
        }
    }

    fn entry_stands(&self, deadline: Deadline) -> Result<bool> {
        match self.metadata.standing(&self.name, deadline)? {
            Standing::Taken(other) => return Err(taken(&self.name, &other)),
            Standing::Forgotten => return Ok(false),
            Standing::Known => {}
        }
        let epoch = self.registry.epoch();
        if self.published.is_stale(epoch) {
            return Ok(false);
        }
        if !self.published.reads_descriptor() {
            return Ok(true);
        }
        // Who clears up after clients that were silent for long may take it without the place.
        let Some(found) = self.metadata.published(&self.name, deadline)? else { return Ok(false) };
        match &found.ours {
            Some(ours) if ours.incarnation == self.incarnation => Ok(ours.epoch >= epoch),
            // The place is ours, and so is the name: this is a late word of who had it before, or of another engine
            // that says it is where we are, which is for people to see.
            other => {
                let whose = other.as_ref().map_or("an engine of another kind".to_owned(), |ours| {
                    format!("engine {}", ours.incarnation)
                });
                log::warn!("{}: {whose} has written over what the metadata service says of it", self.name);
                Ok(false)
            }
        }
    }

    /// Takes the entry out for good.
    pub(super) fn end_entry(&self) {
        if self.metadata.is_peer_to_peer() {
            return;
        }
        if self.published.end(Deadline::after(CLOSE_GRACE)) {
            self.withdraw_entry();
        } else {
            log::warn!(
                "closing engine {} while the metadata service does not answer: its entry is taken out afterwards",
                self.name
            );
        }
    }

    /// In time of its own: neither a peer nor a word that used up the rest leaves the entry of an engine that is gone.
    fn withdraw_entry(&self) {
        if self.announced.load(std::sync::atomic::Ordering::Acquire)
            && let Err(error) =
                self.metadata.withdraw(&self.name, &self.incarnation, Deadline::after(CLOSE_GRACE))
        {
            log::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const NOW: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(30);

    /// Ends a word.
    fn over(word: Option<Word<'_>>, stands: Option<u64>) {
        word.unwrap().stands = stands;
    }

    fn nothing() {}

    #[test]
    fn the_end_waits_for_the_word_that_is_under_way() {
        let published = Published::default();
        let last = || unreachable!("the end takes the entry out");
        let word = published.begin(&last);
        std::thread::scope(|scope| {
            let end = scope.spawn(|| published.end(Deadline::after(LONG)));
            while let Some(another) = published.begin(&last) {
                drop(another);
                std::thread::yield_now();
            }
            assert!(!end.is_finished(), "a word is under way");
            over(word, Some(1));
            assert!(end.join().unwrap());
        });
        assert!(published.begin(&last).is_none(), "nothing is told after the end");
    }

    #[test]
    fn the_last_word_takes_out_what_the_end_could_not_wait_for() {
        let published = Published::default();
        let taken_out = AtomicUsize::new(0);
        let last = || {
            taken_out.fetch_add(1, Ordering::Relaxed);
        };
        let words = [published.begin(&last), published.begin(&last)];
        assert!(!published.end(Deadline::after(NOW)));
        for (word, expected) in words.into_iter().zip([0, 1]) {
            over(word, None);
            assert_eq!(taken_out.load(Ordering::Relaxed), expected);
        }
    }

    #[test]
    fn a_word_that_a_panic_ended_is_over() {
        let published = Published::default();
        over(published.begin(&nothing), Some(1));
        let defect = || {
            let _word = published.begin(&nothing);
            std::panic::resume_unwind(Box::new(()));
        };
        assert!(catch_unwind(AssertUnwindSafe(defect)).is_err());
        assert!(published.is_stale(1), "what it said is not known");
        assert!(published.end(Deadline::after(NOW)), "nothing is under way");
    }

    #[test]
    fn what_stands_is_the_epoch_that_was_told() {
        let published = Published::default();
        assert!(published.is_stale(0), "nothing was told");
        over(published.begin(&nothing), Some(0));
        assert!(!published.is_stale(0));
        // Changed again, as by a list that is taken back piece by piece while a look publishes half of it.
        assert!(published.is_stale(1));
        over(published.begin(&nothing), None);
        assert!(published.is_stale(0) && published.is_stale(1));
        over(published.begin(&nothing), Some(1));
        assert!(!published.is_stale(1));
    }

    #[test]
    fn a_word_that_was_not_taken_is_not_forgotten_over_an_older_one_that_was() {
        for older_is_over_first in [true, false] {
            let published = Published::default();
            let (older, newer) = (published.begin(&nothing), published.begin(&nothing));
            let mut ends = [(older, Some(5)), (newer, None)];
            if !older_is_over_first {
                ends.reverse();
            }
            ends.into_iter().for_each(|(word, stands)| over(word, stands));
            assert!(published.is_stale(6), "{older_is_over_first}");
            over(published.begin(&nothing), Some(6));
            assert!(!published.is_stale(6));
        }
    }

    #[test]
    fn of_words_at_once_none_hides_that_one_failed() {
        let published = Published::default();
        let (overtaken, newest) = (published.begin(&nothing), published.begin(&nothing));
        over(overtaken, None);
        over(newest, Some(6));
        assert!(published.is_stale(6), "the one that failed may have come last");
        // Both stood: the newer is what the service has, whoever is heard of first.
        let (older, newer) = (published.begin(&nothing), published.begin(&nothing));
        over(newer, Some(8));
        over(older, Some(7));
        assert!(!published.is_stale(8));
    }

    #[test]
    fn the_descriptor_is_read_now_and_then() {
        let published = Published::default();
        let reads = (0..3 * LOOKS_PER_DESCRIPTOR).filter(|_| published.reads_descriptor()).count();
        assert_eq!(reads, 3);
    }
}

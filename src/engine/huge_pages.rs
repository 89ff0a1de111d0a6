//! Registered host memory becomes huge pages, beside everything else.
//!
//! Registering is not held up: a thread of the engine goes through what was registered, one huge page after another,
//! and ends when it is through. It pauses after each for as long as that took, since the kernel holds up page faults
//! of the whole process meanwhile. Only memory that is there is taken ([`huge`](crate::memory::huge)); what is touched
//! later stays as it is, but for what is gone through again.
//!
//! Pages that others have as well ([`Gathered::Shared`]) may be the range's own a moment later, when a forked child has
//! gone or they were written to: from the first unit with such pages to the last, the range is gone through again, a
//! few times.
//!
//! Invariants: after [`HugePages::withdraw`] has returned, nothing is asked of the kernel for the range any more; the
//! number of entries is at most that of registered ranges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::memory::ByteRange;
use crate::memory::huge::{Gathered, gather, unit_bytes};

/// Units in a row that the kernel did not put together, after which the rest of a range is left as it is.
const MAX_FAILURES: u32 = 16;

/// How often a range is gone through again that has pages which others have as well.
const MAX_AGAIN: u32 = 3;

/// Time before the first of these; each of the next comes after five times as long.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Longest pause between two units.
const MAX_PAUSE: Duration = Duration::from_millis(10);

/// Longest wait for the unit that is being put together, some milliseconds on any machine.
const STEP_LIMIT: Duration = Duration::from_secs(1);

/// Units that were gone through, from the first with pages that others have as well to the last.
#[derive(Clone, Copy, Debug)]
struct Common {
    units: ByteRange,
    /// Bytes of huge pages before the first, and before the last.
    before_bytes: u64,
    until_bytes: u64,
}

/// A range on its way.
struct Entry {
    /// What is left of it: whole units.
    left: ByteRange,
    /// When to go on with it.
    from: Instant,
    /// How often it was gone through again.
    again: u32,
    /// Where it has pages, this time, that others have as well.
    common: Option<Common>,
    failures: u32,
    huge_bytes: u64,
}

impl Entry {
    fn new(left: ByteRange) -> Self {
        Self { left, from: Instant::now(), again: 0, common: None, failures: 0, huge_bytes: 0 }
    }

    /// A unit has pages that others have as well.
    fn is_common(&mut self, unit: ByteRange) {
        let until_bytes = self.huge_bytes;
        let (start, before_bytes) = self
            .common
            .map_or((unit.start(), until_bytes), |common| (common.units.start(), common.before_bytes));
        self.common =
            ByteRange::between(start, unit.end()).map(|units| Common { units, before_bytes, until_bytes });
    }

    /// At its end: whether some of it is to be gone through again.
    fn goes_again(&mut self) -> bool {
        let Some(common) = self.common.take().filter(|_| self.again < MAX_AGAIN) else { return false };
        self.from = Instant::now() + AGAIN_AFTER * 5_u32.pow(self.again);
        self.again += 1;
        self.left = common.units;
        // What is huge among these is counted once more.
        let counted_bytes = common.until_bytes.saturating_sub(common.before_bytes);
        self.huge_bytes = self.huge_bytes.saturating_sub(counted_bytes);
        true
    }
}

#[derive(Default)]
struct Work {
    /// By their first address.
    entries: BTreeMap<u64, Entry>,
    /// What the kernel is asked for at the moment: the entry's address, and the unit.
    current: Option<(u64, ByteRange)>,
    runs: bool,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

/// The ranges of one engine that are to become huge pages.
pub(super) struct HugePages {
    shared: Arc<Shared>,
    /// Length of a huge page; `None` when nothing is to be done.
    unit_bytes: Option<u64>,
}

impl HugePages {
    /// With `wanted` false, nothing is ever done.
    pub(super) fn new(wanted: bool) -> Self {
        Self { shared: Arc::default(), unit_bytes: unit_bytes().filter(|_| wanted) }
    }

    /// Takes a range of host memory that was registered.
    pub(super) fn add(&self, range: ByteRange) {
        let Some(left) = self.unit_bytes.and_then(|unit_bytes| inner(range, unit_bytes)) else { return };
        let mut work = self.shared.work.lock();
        if work.stopped {
            return;
        }
        work.entries.insert(range.start(), Entry::new(left));
        if work.runs {
            self.shared.changed.notify_all();
            return;
        }
        let (shared, unit_bytes) = (Arc::clone(&self.shared), self.unit_bytes.unwrap_or(left.length_bytes()));
        match std::thread::Builder::new().name("mct-huge".into()).spawn(move || shared.run(unit_bytes)) {
            Ok(_) => work.runs = true,
            Err(error) => log::debug!("no thread for huge pages: {error}"),
        }
    }

    /// Leaves the range that begins there alone from now on.
    pub(super) fn withdraw(&self, start: u64) {
        let mut work = self.shared.work.lock();
        work.entries.remove(&start);
        let until = Instant::now() + STEP_LIMIT;
        while work.current.is_some_and(|(entry, _)| entry == start) {
            if self.shared.changed.wait_until(&mut work, until).timed_out() {
                return log::warn!("the kernel does not end to put pages together at {start:#x}");
            }
        }
    }

    /// Ends the thread.
    pub(super) fn stop(&self, deadline: Deadline) {
        let mut work = self.shared.work.lock();
        work.stopped = true;
        work.entries.clear();
        self.shared.changed.notify_all();
        while work.runs {
            if self.shared.changed.wait_until(&mut work, deadline.at()).timed_out() {
                return log::warn!("the kernel does not end to put pages together");
            }
        }
    }
}

impl Shared {
    fn run(&self, unit_bytes: u64) {
        while let Some(unit) = self.begin(unit_bytes) {
            let begun = Instant::now();
            let outcome = gather(unit);
            self.end(outcome, unit);
            if !matches!(outcome, Gathered::NotThere | Gathered::Shared) {
                self.pause(begun.elapsed().min(MAX_PAUSE));
            }
        }
    }

    /// The next unit; `None` when there is none, and then the thread has ended.
    fn begin(&self, unit_bytes: u64) -> Option<ByteRange> {
        let mut work = self.work.lock();
        loop {
            let next = work.entries.iter().min_by_key(|(_, entry)| entry.from);
            let Some((start, from, left)) = next.map(|(start, entry)| (*start, entry.from, entry.left))
            else {
                work.runs = false;
                self.changed.notify_all();
                return None;
            };
            if from > Instant::now() {
                let _ended = self.changed.wait_until(&mut work, from);
                continue;
            }
            let Some(entry) = work.entries.get_mut(&start) else { continue };
            let unit = ByteRange::checked(left.start(), unit_bytes).filter(|unit| left.contains(*unit));
            let rest = unit.and_then(|unit| ByteRange::between(unit.end(), left.end()));
            if let (Some(unit), Some(rest)) = (unit, rest) {
                entry.left = rest;
                work.current = Some((start, unit));
                return Some(unit);
            }
            if entry.goes_again() {
                continue;
            }
            log::debug!("{} bytes of the memory at {start:#x} are huge pages", entry.huge_bytes);
            work.entries.remove(&start);
        }
    }

    fn end(&self, outcome: Gathered, unit: ByteRange) {
        let mut work = self.work.lock();
        let current = work.current.take();
        self.changed.notify_all();
        let Some((start, entry)) =
            current.and_then(|(start, _)| Some((start, work.entries.get_mut(&start)?)))
        else {
            return;
        };
        match outcome {
            Gathered::Huge => {
                entry.huge_bytes = entry.huge_bytes.saturating_add(unit.length_bytes());
                entry.failures = 0;
            }
            Gathered::NotThere => {}
            Gathered::Shared => entry.is_common(unit),
            Gathered::Busy => entry.failures += 1,
            Gathered::Refused => entry.failures = MAX_FAILURES,
        }
        if entry.failures >= MAX_FAILURES {
            log::debug!("the rest of the memory at {start:#x} stays as it is: {outcome:?} at {unit}");
            work.entries.remove(&start);
        }
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut work = self.work.lock();
        while !work.stopped && !self.changed.wait_until(&mut work, until).timed_out() {}
    }
}

/// The whole units in a range, if there are any.
fn inner(range: ByteRange, unit_bytes: u64) -> Option<ByteRange> {
    let start = range.start().checked_next_multiple_of(unit_bytes)?;
    let end = range.end() / unit_bytes * unit_bytes;
    ByteRange::between(start, end).filter(|inner| !inner.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::huge::tests::{Private, huge_unasked};

    const SOON: Duration = Duration::from_secs(60);

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + SOON;
        while !condition() {
            assert!(Instant::now() < until, "{what} within {SOON:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether this kernel does it at all.
    fn pages() -> Option<(HugePages, u64)> {
        let pages = HugePages::new(true);
        let Some(unit_bytes) = pages.unit_bytes else {
            mooncake_test_support::skip("this kernel makes no huge pages");
            return None;
        };
        let trial = Private::of(1, unit_bytes);
        trial.bytes(0, unit_bytes).fill(1);
        if gather(trial.range) != Gathered::Huge {
            mooncake_test_support::skip("the kernel puts no pages together here");
            return None;
        }
        Some((pages, unit_bytes))
    }

    #[test]
    fn units_lie_inside() {
        let range = |start, length_bytes| ByteRange::new(start, length_bytes).unwrap();
        assert_eq!(inner(range(5, 40), 10), Some(range(10, 30)));
        assert_eq!(inner(range(10, 10), 10), Some(range(10, 10)));
        assert_eq!(inner(range(11, 18), 10), None);
        assert_eq!(inner(range(u64::MAX - 3, 3), 16), None);
    }

    #[test]
    fn registered_memory_becomes_huge_where_it_is_there_and_the_thread_ends() {
        let Some((pages, unit_bytes)) = pages() else { return };
        let memory = Private::of(4, unit_bytes);
        memory.bytes(0, unit_bytes).fill(1);
        memory.bytes(2 * unit_bytes, unit_bytes).fill(2);
        pages.add(memory.range);
        wait_for("it ends", || !pages.shared.work.lock().runs);
        assert_eq!(memory.huge_bytes(), 2 * unit_bytes);
        assert!(memory.bytes(2 * unit_bytes, unit_bytes).iter().all(|byte| *byte == 2));
        let later = Private::of(1, unit_bytes);
        later.bytes(0, unit_bytes).fill(3);
        pages.add(later.range);
        wait_for("the next range", || later.huge_bytes() == unit_bytes);
        pages.stop(Deadline::after(SOON));
        assert!(!pages.shared.work.lock().runs);
    }

    #[test]
    fn what_was_not_the_ranges_own_becomes_huge_when_it_is() {
        if huge_unasked() {
            return mooncake_test_support::skip(
                "this kernel makes huge pages of what is read or written first",
            );
        }
        let Some((pages, unit_bytes)) = pages() else { return };
        let memory = Private::of(1, unit_bytes);
        let bytes = memory.bytes(0, unit_bytes);
        assert!(bytes.iter().step_by(4096).all(|byte| std::hint::black_box(*byte) == 0));
        pages.add(memory.range);
        let start = memory.range.start();
        let again = |work: &Work| work.entries.get(&start).is_some_and(|entry| entry.again > 0);
        wait_for("it has pages that were only read", || again(&pages.shared.work.lock()));
        assert_eq!(memory.huge_bytes(), 0);
        {
            // Nobody looks meanwhile.
            let work = pages.shared.work.lock();
            assert!(again(&work), "the times have passed in a moment");
            bytes.fill(1);
            drop(work);
        }
        wait_for("the range is looked at again", || memory.huge_bytes() == unit_bytes);
        wait_for("it ends", || !pages.shared.work.lock().runs);
        // A stop does not wait for the next time.
        let other = Private::of(1, unit_bytes);
        assert!(other.bytes(0, unit_bytes).iter().step_by(4096).all(|byte| std::hint::black_box(*byte) == 0));
        pages.add(other.range);
        let start = other.range.start();
        let again = |work: &Work| work.entries.get(&start).is_some_and(|entry| entry.again > 0);
        wait_for("it is to be looked at again", || again(&pages.shared.work.lock()));
        {
            let mut work = pages.shared.work.lock();
            let entry = work.entries.get_mut(&start).expect("the times have passed in a moment");
            entry.from = Instant::now() + 60 * SOON;
            pages.shared.changed.notify_all();
        }
        // So that it sleeps until then; not needed to pass.
        std::thread::sleep(Duration::from_millis(20));
        pages.stop(Deadline::after(SOON));
        assert!(!pages.shared.work.lock().runs, "it waits for the next time");
        assert_eq!(other.huge_bytes(), 0);
    }

    #[test]
    fn only_the_part_with_pages_of_others_is_gone_through_again() {
        let (shared, unit) = (Shared::default(), |index: u64| ByteRange::new(index * 10, 10).unwrap());
        shared.work.lock().entries.insert(0, Entry::new(ByteRange::new(0, 1000).unwrap()));
        let mut passes: Vec<Vec<u64>> = Vec::new();
        for (common, goes_on) in [(&[3, 5, 7][..], true), (&[4, 5], true), (&[], false)] {
            let mut seen = Vec::new();
            while !shared.work.lock().entries[&0].left.is_empty() {
                let index = shared.begin(10).unwrap().start() / 10;
                let outcome = if common.contains(&index) { Gathered::Shared } else { Gathered::Huge };
                shared.end(outcome, unit(index));
                seen.push(index);
            }
            passes.push(seen);
            let mut work = shared.work.lock();
            let entry = work.entries.get_mut(&0).unwrap();
            assert_eq!(entry.goes_again(), goes_on);
            entry.from = Instant::now();
        }
        assert_eq!(passes, [(0..100).collect(), vec![3, 4, 5, 6, 7], vec![4, 5]]);
        assert_eq!(shared.work.lock().entries[&0].huge_bytes, 1000);
        assert!(shared.begin(10).is_none());
    }

    #[test]
    fn what_is_withdrawn_is_left_alone() {
        let Some((pages, unit_bytes)) = pages() else { return };
        let memory = Private::of(16, unit_bytes);
        memory.bytes(0, 16 * unit_bytes).fill(1);
        pages.add(memory.range);
        wait_for("it begins", || memory.huge_bytes() > 0);
        pages.withdraw(memory.range.start());
        let then = memory.huge_bytes();
        let later = Private::of(2, unit_bytes);
        later.bytes(0, 2 * unit_bytes).fill(3);
        pages.add(later.range);
        wait_for("the next range", || later.huge_bytes() == 2 * unit_bytes);
        assert_eq!(memory.huge_bytes(), then, "more of it was put together after its withdrawal");
    }

    #[test]
    fn memory_that_its_owner_unmaps_too_early_harms_nobody() {
        let Some((pages, unit_bytes)) = pages() else { return };
        let memory = Private::of(64, unit_bytes);
        memory.bytes(0, 64 * unit_bytes).fill(1);
        pages.add(memory.range);
        wait_for("it begins", || memory.huge_bytes() > 0);
        drop(memory);
        wait_for("it ends", || !pages.shared.work.lock().runs);
    }

    #[test]
    fn nothing_is_done_unasked() {
        let pages = HugePages::new(false);
        pages.add(ByteRange::new(0, 1 << 40).unwrap());
        assert!(pages.shared.work.lock().entries.is_empty());
    }
}

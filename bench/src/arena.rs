//! A registered buffer with known contents, and the check that a transfer changed what it should and no more.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::device::Memory;
use crate::pattern;

/// How much is copied to the host and compared at a time.
const CHUNK_BYTES: u64 = 4 << 20;
/// How many threads share a check.
const CHECKING_THREADS: usize = 4;

/// A part of a buffer that a transfer has filled: it holds what lies at `from` of the buffer with `seed`.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// From the start of this buffer.
    pub at: u64,
    /// Its length.
    pub length_bytes: u64,
    /// The seed of the buffer it came from.
    pub seed: u64,
    /// Its distance from the start of that buffer.
    pub from: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Bytes that a transfer should have filled and that were compared.
    pub verified_bytes: u64,
    /// Bytes that differ, those that no transfer should have touched included.
    pub mismatched_bytes: u64,
    /// The first place that differs, in words.
    pub first: Option<String>,
}

impl Verdict {
    /// Adds what another check found.
    pub fn add(&mut self, other: Self) {
        self.verified_bytes += other.verified_bytes;
        self.mismatched_bytes += other.mismatched_bytes;
        self.first = self.first.take().or(other.first);
    }
}

/// What lies between the blocks before a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The buffer's own contents.
    Own,
    /// What [`Arena::poison`] wrote.
    Poison,
}

/// What poison is made from: another seed than any buffer's.
const POISON: u64 = 0x9015_0000_0000_0000;

/// A buffer that holds its own pattern except where a transfer has just written.
pub struct Arena {
    memory: Memory,
    seed: u64,
}

impl Arena {
    /// Gives the memory its contents.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(memory: Memory, seed: u64) -> Result<Self> {
        let arena = Self { memory, seed };
        arena.restore(0..arena.length_bytes())?;
        Ok(arena)
    }

    /// Gives `window` this buffer's own contents.
    ///
    /// # Errors
    /// If the memory cannot be written.
    pub fn restore(&self, window: Range<u64>) -> Result<()> {
        self.for_each_chunk(window, |position, buffer| {
            pattern::fill(buffer, self.seed, position);
            self.memory.upload(position, buffer)
        })
    }

    /// Where it starts.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.memory.address()
    }

    /// How long it is.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.memory.length_bytes()
    }

    /// The seed of its contents.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The location to register it with.
    #[must_use]
    pub fn location(&self) -> String {
        self.memory.location()
    }

    /// Fills `window` with what no buffer holds, so that a block that does not come is seen although it is
    /// the same as what was there.
    ///
    /// # Errors
    /// If the memory cannot be written.
    pub fn poison(&self, window: Range<u64>) -> Result<()> {
        self.for_each_chunk(window, |position, buffer| {
            pattern::fill(buffer, self.seed ^ POISON, position);
            self.memory.upload(position, buffer)
        })
    }

    /// Compares the bytes of `window`: the runs with what they should have brought, all between them with
    /// what was there; then restores this buffer's own contents.
    ///
    /// # Errors
    /// If the memory cannot be read or written, or a run lies outside of the window.
    pub fn check_and_restore(&self, window: Range<u64>, mut runs: Vec<Run>, gap: Gap) -> Result<Verdict> {
        runs.sort_unstable_by_key(|run| run.at);
        let inside = runs.iter().all(|run| window.start <= run.at && run.at + run.length_bytes <= window.end);
        ensure!(inside && window.end <= self.length_bytes(), "a block lies outside of what is checked");
        let gap_seed = match gap {
            Gap::Own => self.seed,
            Gap::Poison => self.seed ^ POISON,
        };
        let verdict = Mutex::new(Verdict::default());
        self.for_each_chunk(window, |position, buffer| {
            self.memory.download(position, buffer)?;
            let found = self.check(position, buffer, &runs, gap_seed);
            pattern::fill(buffer, self.seed, position);
            self.memory.upload(position, buffer)?;
            verdict.lock().unwrap_or_else(PoisonError::into_inner).add(found);
            Ok(())
        })?;
        Ok(verdict.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Compares the piece of this buffer at `start`.
    fn check(&self, start: u64, buffer: &[u8], runs: &[Run], gap_seed: u64) -> Verdict {
        let gap = |part: &Range<u64>| (gap_seed, part.start);
        let end = start + buffer.len() as u64;
        let mut verdict = Verdict::default();
        let mut position = start;
        let first = runs.partition_point(|run| run.at + run.length_bytes <= start);
        for run in runs.iter().skip(first).take_while(|run| run.at < end) {
            let between = position..run.at.max(position);
            self.compare(&mut verdict, start, buffer, &between, gap(&between), "memory between blocks");
            let block = run.at.max(position)..(run.at + run.length_bytes).min(end);
            let source = (run.seed, run.from + (block.start - run.at));
            self.compare(&mut verdict, start, buffer, &block, source, "a block");
            verdict.verified_bytes += block.end - block.start;
            position = block.end;
        }
        self.compare(
            &mut verdict,
            start,
            buffer,
            &(position..end),
            gap(&(position..end)),
            "memory between blocks",
        );
        verdict
    }

    /// Compares a part of `buffer`, which lies at `start` of this buffer, with its source.
    fn compare(
        &self,
        verdict: &mut Verdict,
        start: u64,
        buffer: &[u8],
        part: &Range<u64>,
        (seed, from): (u64, u64),
        what: &str,
    ) {
        let index = |position: u64| usize::try_from(position - start).unwrap_or(usize::MAX);
        let bytes = buffer.get(index(part.start)..index(part.end)).unwrap_or_default();
        if let Some((count, first)) = pattern::compare(bytes, seed, from) {
            verdict.mismatched_bytes += count;
            verdict.first.get_or_insert_with(|| {
                let at = part.start + first as u64;
                format!("{what} differs {at:#x} bytes into the buffer at {:#x}", self.address())
            });
        }
    }

    /// Calls `work` with the position and a scratch buffer of each chunk of `window`, on several threads.
    fn for_each_chunk(
        &self,
        window: Range<u64>,
        work: impl Fn(u64, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicU64::new(window.start);
        let chunks = usize::try_from((window.end - window.start).div_ceil(CHUNK_BYTES))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let run = || -> Result<()> {
            self.memory.bind()?;
            let mut scratch = vec![0_u8; usize::try_from(CHUNK_BYTES.min(window.end - window.start))?];
            loop {
                let position = next.fetch_add(CHUNK_BYTES, Ordering::Relaxed);
                if position >= window.end {
                    return Ok(());
                }
                let length = usize::try_from(CHUNK_BYTES.min(window.end - position))?;
                work(position, scratch.get_mut(..length).context("a chunk is as long as its buffer")?)?;
            }
        };
        if chunks <= 1 {
            return run();
        }
        std::thread::scope(|scope| {
            let threads = chunks.min(cores).min(CHECKING_THREADS);
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            handles.into_iter().try_for_each(|handle| match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 3 * CHUNK_BYTES + 1000;

    fn arena(seed: u64) -> Arena {
        Arena::new(Memory::host(LENGTH).unwrap(), seed).unwrap()
    }

    /// Copies as a transfer would.
    fn transfer(from: &Arena, source: u64, to: &Arena, target: u64, length: usize) -> Run {
        let mut bytes = vec![0; length];
        from.memory.download(source, &mut bytes).unwrap();
        to.memory.upload(target, &bytes).unwrap();
        Run { at: target, length_bytes: length as u64, seed: from.seed, from: source }
    }

    #[test]
    fn blocks_that_came_as_they_should_are_verified_and_restored() {
        let (source, target) = (arena(1), arena(2));
        // The second block crosses the border of a chunk.
        let runs = vec![
            transfer(&source, 5000, &target, CHUNK_BYTES - 10, 100),
            transfer(&source, 4096, &target, 0, 300),
        ];
        let verdict = target.check_and_restore(0..LENGTH, runs, Gap::Own).unwrap();
        assert_eq!((verdict.verified_bytes, verdict.mismatched_bytes), (400, 0));
        let again = target.check_and_restore(0..LENGTH, Vec::new(), Gap::Own).unwrap();
        assert_eq!((again.verified_bytes, again.mismatched_bytes), (0, 0));
    }

    #[test]
    fn a_block_that_did_not_come_is_found() {
        let (source, target) = (arena(1), arena(2));
        let run = Run { at: 800, length_bytes: 64, seed: source.seed, from: 0 };
        let verdict = target.check_and_restore(0..LENGTH, vec![run], Gap::Own).unwrap();
        assert_eq!(verdict.verified_bytes, 64);
        assert!(verdict.mismatched_bytes > 50);
        assert!(verdict.first.unwrap().contains("a block differs 0x320"));
    }

    #[test]
    fn a_block_that_came_to_another_place_is_found_twice() {
        let (source, target) = (arena(1), arena(2));
        let mut run = transfer(&source, 0, &target, 8192, 64);
        run.at = 4096;
        let verdict = target.check_and_restore(0..LENGTH, vec![run], Gap::Own).unwrap();
        assert!(verdict.mismatched_bytes > 100, "{verdict:?}");
    }

    #[test]
    fn bytes_behind_a_block_are_found() {
        let (source, target) = (arena(1), arena(2));
        let mut run = transfer(&source, 0, &target, 4096, 72);
        run.length_bytes = 64;
        let verdict = target.check_and_restore(4096..8192, vec![run], Gap::Own).unwrap();
        assert_eq!(verdict.verified_bytes, 64);
        assert!((1..=8).contains(&verdict.mismatched_bytes));
        assert!(verdict.first.unwrap().contains("memory between blocks"));
    }

    #[test]
    fn a_block_that_equals_what_was_there_is_missed_without_poison_only() {
        let target = arena(2);
        let own = Run { at: 4096, length_bytes: 64, seed: target.seed, from: 4096 };
        let fooled = target.check_and_restore(0..8192, vec![own], Gap::Own).unwrap();
        assert_eq!(fooled.mismatched_bytes, 0);
        target.poison(0..8192).unwrap();
        let verdict = target.check_and_restore(0..8192, vec![own], Gap::Poison).unwrap();
        assert!(verdict.mismatched_bytes > 50);
        assert!(verdict.first.unwrap().contains("a block differs"));
        let restored = target.check_and_restore(0..LENGTH, Vec::new(), Gap::Own).unwrap();
        assert_eq!(restored.mismatched_bytes, 0);
    }
}

//! The peer's side of a board: every access to another process's memory is counted there, or does not begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::board::BoardPlace;
use super::layout::{BOARD_BYTES, CLOSED, Words, generation, state};
use super::proof::Challenge;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::memory::mapping::Mapping;
use crate::memory::process::Process;
use crate::memory::sealed::Sealed;

/// A range as it stood on the board when it was looked at.
#[derive(Clone, Copy, Debug)]
struct Known {
    range: ByteRange,
    place: usize,
    generation: u64,
}

/// What stood on the board at an epoch, by address.
#[derive(Debug, Default)]
struct Table {
    epoch: Option<u64>,
    ranges: Vec<Known>,
}

impl Table {
    fn find(&self, range: ByteRange) -> Option<&Known> {
        let behind = self.ranges.partition_point(|known| known.range.start() <= range.start());
        self.ranges.get(behind.checked_sub(1)?).filter(|known| known.range.contains(range))
    }
}

/// The owner's board, in this process.
#[derive(Debug)]
pub(super) struct Visit {
    words: Words,
    /// Its lock says that this process is there.
    _sealed: Sealed,
    table: RwLock<Arc<Table>>,
}

/// An access that is counted. Ends when it is dropped.
pub(super) struct Access<'a> {
    word: &'a AtomicU64,
    range: ByteRange,
}

impl Access<'_> {
    /// The owner's range that may be used meanwhile.
    pub(super) fn range(&self) -> ByteRange {
        self.range
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        self.word.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Visit {
    /// Takes the board that a process offers. That it is there, and answers the challenge, proves that the process
    /// is the one that was asked, and of this host.
    ///
    /// # Errors
    /// Why not, in words for the log.
    pub(super) fn begin(process: &Process, challenge: &Challenge, place: &BoardPlace) -> Result<Self> {
        let no = |why: String| Error::new(Code::Unsupported, Stage::Connect, why);
        if place.file.length_bytes != BOARD_BYTES {
            return Err(no("it shares a table of another layout".into()));
        }
        // The number means another process where the two have different process namespaces.
        let opened = |error: std::io::Error| {
            let number = process.number();
            no(format!(
                "process {number} here does not let us open what it shares: {error}; that takes the same user and the \
                 same process namespace (containers: the host's), and a process that may be traced"
            ))
        };
        let sealed = Sealed::open(process, &place.file).map_err(opened)?;
        let words = Words(Mapping::of(&sealed).map_err(opened)?);
        if !words.is_answer_to(challenge.words()) {
            return Err(no(format!(
                "process {} here is another one: the two have different process namespaces",
                process.number()
            )));
        }
        sealed.mark_in_use().map_err(opened)?;
        if !words.settle(state::TAKEN) {
            return Err(no("it has given up waiting".into()));
        }
        Ok(Self { words, _sealed: sealed, table: RwLock::default() })
    }

    /// Counts an access to all of `range`.
    ///
    /// # Errors
    /// [`Code::AddressNotRegistered`] when the owner does not, or does not any more, let us.
    pub(super) fn enter(&self, range: ByteRange) -> Result<Access<'_>> {
        let mut table = Arc::clone(&self.table.read());
        loop {
            if let Some(access) = self.try_enter(&table, range) {
                return Ok(access);
            }
            let epoch = self.words.epoch();
            if table.epoch == Some(epoch) {
                return Err(Error::new(
                    Code::AddressNotRegistered,
                    Stage::Execute,
                    "the peer has taken the range back",
                )
                .range(range.start(), range.length_bytes())
                .advice("register the buffer at the peer, or ask for it no more"));
            }
            table = self.look_again(epoch);
        }
    }

    /// Whether the owner's board tells of all of `range`, without counting anything.
    pub(super) fn knows(&self, range: ByteRange) -> Option<ByteRange> {
        let mut table = Arc::clone(&self.table.read());
        loop {
            if let Some(known) = table.find(range) {
                return Some(known.range);
            }
            let epoch = self.words.epoch();
            if table.epoch == Some(epoch) {
                return None;
            }
            table = self.look_again(epoch);
        }
    }

    fn try_enter(&self, table: &Table, range: ByteRange) -> Option<Access<'_>> {
        let known = table.find(range)?;
        let word = self.words.entry(known.place)?.word;
        let before = word.fetch_add(1, Ordering::SeqCst);
        // From here on it is counted, and dropping it takes it back.
        let access = Access { word, range: known.range };
        (before & CLOSED == 0 && generation(before) == known.generation).then_some(access)
    }

    /// Reads the board; `epoch` was read before.
    fn look_again(&self, epoch: u64) -> Arc<Table> {
        let read = |place| {
            let entry = self.words.entry(place)?;
            let before = entry.word.load(Ordering::SeqCst);
            let range = ByteRange::checked(
                entry.start.load(Ordering::SeqCst),
                entry.length_bytes.load(Ordering::SeqCst),
            );
            let after = entry.word.load(Ordering::SeqCst);
            let known = Known { range: range?, place, generation: generation(after) };
            (after & CLOSED == 0 && generation(before) == known.generation && known.generation > 0)
                .then_some(known)
        };
        let mut ranges: Vec<Known> = (0..self.words.used()).filter_map(read).collect();
        ranges.sort_unstable_by_key(|known| known.range.start());
        let table = Arc::new(Table { epoch: Some(epoch), ranges });
        *self.table.write() = Arc::clone(&table);
        table
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::board::{Boards, MAX_UNUSED, Placed};
    use super::*;
    use crate::deadline::Deadline;

    const SOON: Duration = Duration::from_millis(5);

    fn placed(place: u32, start: u64, length_bytes: u64) -> Placed {
        Placed { place, range: ByteRange::new(start, length_bytes).unwrap() }
    }

    fn visit(boards: &Boards, ranges: Vec<Placed>) -> Visit {
        let challenge = Challenge::new().unwrap();
        let place = boards.offer(1, "visitor", &challenge, || ranges).unwrap();
        let myself = Process::open(std::process::id()).unwrap();
        Visit::begin(&myself, &challenge, &place).unwrap()
    }

    fn range(start: u64, length_bytes: u64) -> ByteRange {
        ByteRange::new(start, length_bytes).unwrap()
    }

    fn open(boards: &Boards, ranges: &[Placed]) {
        boards.open(|| ranges.to_vec());
    }

    #[test]
    fn an_access_keeps_the_range_and_names_who_has_it() {
        let boards = Boards::default();
        let visit = visit(&boards, vec![placed(3, 1000, 100)]);
        let access = visit.enter(range(1050, 50)).unwrap();
        assert_eq!(access.range(), range(1000, 100));
        let busy = boards.close(placed(3, 1000, 100), Deadline::after(SOON)).unwrap_err();
        assert_eq!((busy.code(), busy.record().peer.as_deref()), (Code::Busy, Some("visitor")));
        let refused = visit.enter(range(1000, 1)).map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::AddressNotRegistered, "no access begins while it is closed");
        drop(access);
        boards.close(placed(3, 1000, 100), Deadline::after(SOON)).unwrap();
        open(&boards, &[placed(3, 1000, 100)]);
        drop(visit.enter(range(1000, 100)).unwrap());
    }

    #[test]
    fn only_what_is_registered_is_entered() {
        let boards = Boards::default();
        let visit = visit(&boards, vec![placed(0, 1000, 100), placed(1, 1100, 100)]);
        assert!(visit.enter(range(999, 2)).is_err() && visit.enter(range(1050, 100)).is_err());
        assert!(visit.enter(range(1199, 2)).is_err() && visit.enter(range(0, 0)).is_err());
        drop(visit.enter(range(1100, 100)).unwrap());
        open(&boards, &[placed(7, 5000, 10)]);
        drop(visit.enter(range(5000, 10)).unwrap());
    }

    #[test]
    fn a_place_given_to_another_range_is_not_mistaken() {
        let boards = Boards::default();
        let visit = visit(&boards, vec![placed(0, 1000, 100)]);
        drop(visit.enter(range(1000, 1)).unwrap());
        let old = Arc::clone(&visit.table.read());
        boards.close(placed(0, 1000, 100), Deadline::after(SOON)).unwrap();
        open(&boards, &[placed(0, 9000, 100)]);
        assert!(visit.try_enter(&old, range(1000, 1)).is_none(), "looked up before the change");
        assert!(visit.enter(range(1000, 1)).is_err());
        drop(visit.enter(range(9000, 1)).unwrap());
        // The same range again is another registration of it, or the end of a withdrawal that was given up: both fit.
        boards.close(placed(0, 9000, 100), Deadline::after(SOON)).unwrap();
        open(&boards, &[placed(0, 9000, 100)]);
        drop(visit.enter(range(9000, 1)).unwrap());
    }

    #[test]
    fn a_peer_that_is_gone_holds_nothing() {
        let boards = Boards::default();
        let first = visit(&boards, vec![placed(0, 1000, 100)]);
        let other = visit(&boards, vec![placed(0, 1000, 100)]);
        std::mem::forget(first.enter(range(1000, 1)).unwrap());
        assert!(boards.close(placed(0, 1000, 100), Deadline::after(SOON)).is_err());
        drop(first);
        boards.close(placed(0, 1000, 100), Deadline::after(SOON)).unwrap();
        drop(other);
    }

    #[test]
    fn a_wrong_challenge_is_no_proof() {
        let boards = Boards::default();
        let place = boards.offer(1, "x", &Challenge::new().unwrap(), Vec::new).unwrap();
        let myself = Process::open(std::process::id()).unwrap();
        assert!(Visit::begin(&myself, &Challenge::new().unwrap(), &place).is_err());
    }

    #[test]
    fn of_boards_that_are_not_used_the_oldest_cannot_be_taken_any_more() {
        let boards = Boards::default();
        let challenge = Challenge::new().unwrap();
        let first = boards.offer(1, "x", &challenge, Vec::new).unwrap();
        let others = boards.offer(2, "y", &challenge, Vec::new).unwrap();
        let later: Vec<_> =
            (0..MAX_UNUSED).map(|_| boards.offer(1, "x", &challenge, Vec::new).unwrap()).collect();
        let myself = Process::open(std::process::id()).unwrap();
        assert!(Visit::begin(&myself, &challenge, &first).is_err());
        for place in &later {
            drop(Visit::begin(&myself, &challenge, place).unwrap());
        }
        drop(Visit::begin(&myself, &challenge, &others).unwrap());
        assert!(Visit::begin(&myself, &challenge, &others).is_err(), "it was used, and is used no more");
    }
}

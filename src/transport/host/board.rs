//! The owner's side: which ranges each peer of this host may use, and waiting until none uses one any more.
//!
//! Invariants: a range is on the boards only while it can be pinned in the registry; after [`Boards::close`] has
//! answered without an error no peer touches the range, and none can begin to. A peer that has ended, however it
//! ended, holds nothing: its lock on the file goes with its last thread (and with that of a child that it forked and
//! that has run no other program).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::layout::{BOARD_BYTES, CLOSED, COUNT, GENERATION, Words, state};
use super::proof::Challenge;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::memory::mapping::Mapping;
use crate::memory::sealed::{Sealed, SharedFile};

/// Most boards of an engine; a peer beyond goes by TCP.
pub const MAX_BOARDS: usize = 1024;

/// Most boards that one engine has asked for and not begun to use.
pub const MAX_UNUSED: usize = 4;

/// How long a peer may take from asking for a board to using it.
const UNUSED_LIMIT: Duration = Duration::from_secs(60);
/// How often a wait looks at the counts.
const POLL: Duration = Duration::from_micros(200);

/// Where a peer finds its board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardPlace {
    /// Address of the challenge in the owner's memory.
    pub address: u64,
    /// The file.
    pub file: SharedFile,
}

/// One peer's board.
#[derive(Debug)]
struct Board {
    words: Words,
    sealed: Sealed,
    /// Which engine the peer is.
    engine: u128,
    /// Its segment, for messages.
    peer: String,
    made: Instant,
}

impl Board {
    /// Whether nobody can use it any more.
    fn is_over(&self) -> bool {
        match self.words.state() {
            state::TAKEN => !self.sealed.is_in_use(),
            state::FREE => self.made.elapsed() > UNUSED_LIMIT && self.words.settle(state::REVOKED),
            _ => true,
        }
    }

    fn open(&self, place: usize, range: ByteRange) {
        let Some(entry) = self.words.entry(place) else { return };
        let same = entry.start.load(Ordering::SeqCst) == range.start()
            && entry.length_bytes.load(Ordering::SeqCst) == range.length_bytes();
        let word = entry.word.load(Ordering::SeqCst);
        if same && word >= GENERATION {
            entry.word.fetch_and(!CLOSED, Ordering::SeqCst);
        } else {
            // Whoever reads meanwhile finds it closed, or another generation afterwards. Late comers may have the
            // count above zero for a moment, so it is left as it is.
            entry.word.fetch_or(CLOSED, Ordering::SeqCst);
            entry.start.store(range.start(), Ordering::SeqCst);
            entry.length_bytes.store(range.length_bytes(), Ordering::SeqCst);
            entry.word.fetch_add(GENERATION, Ordering::SeqCst);
            entry.word.fetch_and(!CLOSED, Ordering::SeqCst);
            self.words.use_up_to(place);
        }
        self.words.advance();
    }

    fn close_all(&self) {
        for place in 0..self.words.used() {
            self.close(place);
        }
    }

    /// Lets no access begin; gives the number of those under way.
    fn close(&self, place: usize) -> u64 {
        let Some(entry) = self.words.entry(place) else { return 0 };
        let before = entry.word.fetch_or(CLOSED, Ordering::SeqCst);
        if before & CLOSED == 0 {
            self.words.advance();
        }
        before & COUNT
    }
}

/// A range as the boards have it: a small number that no other range has at the same time, and the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The number.
    pub place: u32,
    /// The addresses.
    pub range: ByteRange,
}

/// The boards of one engine.
#[derive(Debug, Default)]
pub struct Boards(Mutex<Vec<Arc<Board>>>);

impl Boards {
    /// Makes a board for a peer and writes its challenge on it; of those it has not begun to use the
    /// oldest is taken back. `ranges` is asked for what the peer may use once
    /// later changes are sure to reach the board, too.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] above [`MAX_BOARDS`], [`Code::Memory`] with what the kernel says.
    pub fn offer(
        &self,
        engine: u128,
        peer: &str,
        challenge: &Challenge,
        ranges: impl FnOnce() -> Vec<Placed>,
    ) -> Result<BoardPlace> {
        let failed = |error: std::io::Error| {
            Error::new(Code::Memory, Stage::Connect, format!("no memory to share with a peer: {error}"))
        };
        let sealed = Sealed::create(BOARD_BYTES, 0).map_err(failed)?;
        let words = Words(Mapping::of(&sealed).map_err(failed)?);
        words.begin(challenge.words());
        let place = BoardPlace { address: words.challenge_address(), file: sealed.place() };
        let board = Arc::new(Board { words, sealed, engine, peer: peer.to_owned(), made: Instant::now() });
        let mut boards = self.0.lock();
        // Several names of this engine may be opened at once; more than that has no use.
        let is_unused = |board: &Arc<Board>| board.engine == engine && board.words.state() == state::FREE;
        let mut unused = boards.iter().filter(|board| is_unused(board)).count();
        boards.retain(|board| {
            let replaced = unused >= MAX_UNUSED && is_unused(board) && board.words.settle(state::REVOKED);
            unused = unused.saturating_sub(usize::from(replaced));
            !replaced && !board.is_over()
        });
        if boards.len() >= MAX_BOARDS {
            return Err(Error::new(
                Code::TooManyRequests,
                Stage::Connect,
                format!("{MAX_BOARDS} peers of this host use the memory already"),
            ));
        }
        for Placed { place, range } in ranges() {
            board.open(index(place), range);
        }
        boards.push(board);
        Ok(place)
    }

    /// Lets all peers use ranges; which, is asked for once nobody can close one in between.
    pub fn open(&self, ranges: impl FnOnce() -> Vec<Placed>) {
        let boards = self.0.lock();
        if boards.is_empty() {
            return;
        }
        for Placed { place, range } in ranges() {
            boards.iter().for_each(|board| board.open(index(place), range));
        }
    }

    /// Lets nobody begin to use a range, and waits until nobody does.
    ///
    /// # Errors
    /// [`Code::Busy`], naming the peer, when one still does at the deadline. The caller opens the range again then.
    pub fn close(&self, placed: Placed, deadline: Deadline) -> Result<()> {
        let place = index(placed.place);
        let mut busy: Vec<Arc<Board>> =
            self.0.lock().iter().filter(|board| board.close(place) > 0).map(Arc::clone).collect();
        loop {
            busy.retain(|board| board.close(place) > 0 && !board.is_over());
            let Some(board) = busy.first() else { return Ok(()) };
            if deadline.expired() {
                let text = format!("{} accesses of a peer of this host are under way", board.close(place));
                return Err(Error::new(Code::Busy, Stage::Register, text)
                    .peer(&board.peer)
                    .range(placed.range.start(), placed.range.length_bytes())
                    .advice("wait for its transfers, then unregister again; a stopped process has to go on or end"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Gives all boards up: peers that look for a range find none open.
    pub fn shutdown(&self) {
        for board in self.0.lock().drain(..) {
            board.close_all();
        }
    }
}

fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

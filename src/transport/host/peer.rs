//! A process of this host whose memory we may reach, and how a block of it is copied.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::board::BoardPlace;
use super::proof::{CHALLENGE_BYTES, Challenge};
use super::visit::{Access, Visit};
use crate::error::{Code, Error, Result, Stage};
use crate::memory::copy::Caching;
use crate::memory::process::{MAX_BLOCKS, Process};
use crate::memory::shared::Imported;
use crate::memory::{ByteRange, SharedRange};
use crate::plan::{Direction, Extent};
use crate::transport::copier::{Block, Mover};

/// Most pieces of a peer's shared memory that are mapped; the kernel copies the others.
pub const MAX_IMPORTED: usize = 4096;

/// A process of this host whose memory we may reach.
#[derive(Debug)]
pub struct HostPeer {
    process: Process,
    visit: Visit,
    /// Why the kernel does not move memory between the two, if so.
    no_copies: Option<Error>,
    /// Its shared memory, by address.
    imported: RwLock<Arc<Vec<Arc<Imported>>>>,
    /// One change of `imported` at a time, from the opening of the first file on.
    importing: Mutex<()>,
}

impl HostPeer {
    /// The process with that number, if it is the one that wrote `challenge` where it says.
    ///
    /// # Errors
    /// Why it is not, or why we may not look, in words for the log.
    pub fn prove(pid: u32, challenge: &Challenge, place: &BoardPlace) -> Result<Self> {
        let process = Process::open(pid).map_err(|error| {
            Error::new(Code::Unsupported, Stage::Connect, format!("no process {pid}: {error}"))
        })?;
        let visit = Visit::begin(&process, challenge, place)?;
        let mut bytes = [0; CHALLENGE_BYTES];
        let no_copies = match process.peek(place.address, &mut bytes) {
            Ok(()) if challenge.matches(&bytes) => None,
            Ok(()) => {
                let text = "the peer names another address than its own";
                Some(Error::new(Code::Unsupported, Stage::Connect, text))
            }
            Err(error) => Some(error),
        };
        Ok(Self { process, visit, no_copies, imported: RwLock::default(), importing: Mutex::default() })
    }

    /// Why the kernel does not move memory between the two processes, if so: then only shared memory goes this way.
    #[must_use]
    pub fn no_copies(&self) -> Option<&Error> {
        self.no_copies.as_ref()
    }

    /// Whether the process has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Maps the shared memory that the peer's newest descriptor names, and lets go of what it does not name.
    ///
    /// To be called before the ranges of that descriptor are used: an address means what it says there.
    pub fn import(&self, named: &[SharedRange]) {
        let _one_at_a_time = self.importing.lock();
        let before = Arc::clone(&self.imported.read());
        if before.iter().map(|old| old.place()).eq(named.iter().copied()) {
            return;
        }
        let mut imported: Vec<Arc<Imported>> = Vec::with_capacity(named.len().min(MAX_IMPORTED));
        for &place in named.iter().take(MAX_IMPORTED) {
            if let Some(old) = before.iter().find(|old| old.place() == place) {
                imported.push(Arc::clone(old));
                continue;
            }
            match Imported::open(&self.process, place) {
                Ok(new) => imported.push(Arc::new(new)),
                Err(error) => log::info!("shared memory of a peer is not mapped: {error}"),
            }
        }
        imported.sort_unstable_by_key(|piece| piece.theirs().start());
        *self.imported.write() = Arc::new(imported);
    }

    /// Whether all of the extents can be copied here. Ranges that the board does not tell of, and without the
    /// kernel's copy those that are not mapped, have to go another way.
    #[must_use]
    pub fn takes(&self, extents: &[Extent]) -> bool {
        let imported = Arc::clone(&self.imported.read());
        let mut last: Option<ByteRange> = None;
        extents.iter().filter_map(Extent::remote_range).all(|range| {
            if last.is_some_and(|known| known.contains(range)) {
                return true;
            }
            last = self
                .visit
                .knows(range)
                .filter(|known| self.no_copies.is_none() || find(&imported, *known).is_some());
            last.is_some()
        })
    }

    /// Copies blocks of one range that is counted as in use.
    fn copy_in(
        &self,
        direction: Direction,
        blocks: &[Block],
        access: &Access<'_>,
        caching: Caching,
    ) -> Result<()> {
        let write = direction == Direction::Write;
        let imported = Arc::clone(&self.imported.read());
        if let Some(mapped) = find(&imported, access.range()) {
            // Memory of a process that has ended gives and takes bytes as well as any, but nobody would read them.
            // That it ended a moment ago need not be seen: it could as well have ended a moment later.
            self.process.check_alive()?;
            return blocks.iter().try_for_each(|block| {
                mapped.transfer(write, block.local, block.remote, block.length_bytes, caching)
            });
        }
        if let Some(error) = &self.no_copies {
            return Err(error.clone());
        }
        let mut list = [(0, 0, 0); MAX_BLOCKS];
        for chunk in blocks.chunks(MAX_BLOCKS) {
            for (entry, block) in list.iter_mut().zip(chunk) {
                *entry = (block.local, block.remote, block.length_bytes);
            }
            self.process.transfer(write, list.get(..chunk.len()).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The piece that all of a range lies in.
fn find(imported: &[Arc<Imported>], range: ByteRange) -> Option<&Imported> {
    let behind = imported.partition_point(|piece| piece.theirs().start() <= range.start());
    let piece = imported.get(behind.checked_sub(1)?)?;
    piece.theirs().contains(range).then_some(&**piece)
}

impl Mover for HostPeer {
    fn copy(&self, direction: Direction, mut blocks: &[Block], caching: Caching) -> Result<()> {
        while let Some(first) = blocks.first() {
            let access = self.visit.enter(ByteRange::new(first.remote, first.length_bytes)?)?;
            let inside = |block: &Block| {
                ByteRange::checked(block.remote, block.length_bytes)
                    .is_some_and(|range| access.range().contains(range))
            };
            let count = blocks.iter().position(|block| !inside(block)).unwrap_or(blocks.len());
            let (run, rest) = blocks.split_at(count);
            self.copy_in(direction, run, &access, caching)?;
            blocks = rest;
        }
        Ok(())
    }
}

//! Memory of our own making, which peers of the same host map rather than have the kernel copy.
//!
//! Where the application lets us make the memory (the pool's segments, buffers of the benches), it is a sealed file
//! ([`sealed`](super::sealed)). An engine that has registered a part of it says so in its descriptor; a peer of ours
//! that has proven to run on this host maps the same file, and a transfer is one copy in user space: no system call,
//! and more than twice the speed of the kernel's copy.
//!
//! ```no_run
//! use mooncake::memory::{HugePages, SharedMemory};
//! # fn with(engine: &mooncake::engine::Engine) -> mooncake::error::Result<()> {
//! let memory = SharedMemory::allocate(1 << 30, HugePages::Try)?;
//! engine.register(memory.address(), memory.length_bytes(), "cpu:0")?;
//! // ... transfers ...
//! engine.unregister(memory.address())?;
//! drop(memory); // gives the pages back
//! # Ok(())
//! # }
//! ```
//!
//! Pages are committed when they are first touched, by either side. The memory stays as long as a [`SharedMemory`]
//! of it lives; an engine holds one for each range registered in it, so that a drop too early harms nobody. A
//! transfer that names the memory without having it registered needs its owner to keep it, as any memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::copy::{Caching, copy_host};
use super::mapping::Mapping;
use super::process::Process;
use super::sealed::{Sealed, SharedFile};
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// All live shared memory of this process, by address.
static LIVE: LazyLock<Mutex<BTreeMap<u64, Weak<Inner>>>> = LazyLock::new(Mutex::default);

/// What pages shared memory is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// The machine's usual ones.
    #[default]
    No,
    /// The largest there are: reserved ones of 1 GiB, then of 2 MiB, then transparent ones, then the usual ones.
    /// Reserved pages are taken at once; the length is rounded up to whole pages.
    Try,
}

/// What pages it became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The machine's usual ones.
    Usual,
    /// The usual ones, which the kernel puts together where it can.
    Transparent,
    /// Reserved ones of that size.
    Reserved {
        /// Bytes of a page.
        page_bytes: u64,
    },
}

/// Shared memory as a descriptor names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SharedRange {
    /// First address in the owner's process.
    pub address: u64,
    /// Where the file is found.
    pub file: SharedFile,
}

struct Inner {
    mapping: Mapping,
    sealed: Sealed,
    pages: Pages,
}

/// A piece of memory that other processes of this host can map. A clone is the same memory.
#[derive(Clone)]
pub struct SharedMemory(Arc<Inner>);

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({}, {:?})", self.range(), self.0.pages)
    }
}

impl SharedMemory {
    /// Makes `length_bytes` of memory, all zero.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for no bytes, [`Code::Memory`] with what the kernel says.
    pub fn allocate(length_bytes: u64, huge: HugePages) -> Result<Self> {
        if length_bytes == 0 {
            return Err(Error::new(Code::InvalidArgument, Stage::Register, "shared memory of no bytes"));
        }
        let reserved = [(1_u64 << 30, libc::MFD_HUGE_1GB), (2 << 20, libc::MFD_HUGE_2MB)];
        let made = (huge == HugePages::Try)
            .then(|| {
                reserved.into_iter().filter(|(page_bytes, _)| length_bytes >= *page_bytes).find_map(
                    |(page_bytes, size)| {
                        let whole = length_bytes.checked_next_multiple_of(page_bytes)?;
                        let sealed = Sealed::create(whole, libc::MFD_HUGETLB | size).ok()?;
                        // The kernel reserves the pages here, or says that it has too few.
                        let mapping = Mapping::of(&sealed).ok()?;
                        Some(Inner { mapping, sealed, pages: Pages::Reserved { page_bytes } })
                    },
                )
            })
            .flatten();
        let inner = match made {
            Some(inner) => inner,
            None => usual(length_bytes, huge).map_err(|error| {
                Error::new(
                    Code::Memory,
                    Stage::Register,
                    format!("the kernel gives no shared memory of {length_bytes} bytes: {error}"),
                )
                .advice("ask for less, or raise the limit of the process or its container")
            })?,
        };
        let inner = Arc::new(inner);
        let mut live = LIVE.lock();
        live.retain(|_, memory| memory.strong_count() > 0);
        live.insert(inner.mapping.range().start(), Arc::downgrade(&inner));
        Ok(Self(inner))
    }

    /// First address.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.range().start()
    }

    /// Length; at least what was asked for.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.range().length_bytes()
    }

    /// The addresses.
    #[must_use]
    pub fn range(&self) -> ByteRange {
        self.0.mapping.range()
    }

    /// What pages it is made of.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.0.pages
    }

    /// Copies bytes into it. That nobody else uses that part meanwhile is the caller's to see to.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when they do not fit.
    pub fn write(&self, offset_bytes: u64, bytes: &[u8]) -> Result<()> {
        let target = self.part(offset_bytes, bytes.len())?;
        super::io::copy_in(target.start(), bytes)
    }

    /// Copies bytes out of it, as [`SharedMemory::write`] puts them in.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when it has not so many.
    pub fn read(&self, offset_bytes: u64, bytes: &mut [u8]) -> Result<()> {
        let source = self.part(offset_bytes, bytes.len())?;
        let target = u64::try_from(bytes.as_mut_ptr().expose_provenance()).unwrap_or(u64::MAX);
        copy_host(target, source.start(), source.length_bytes(), Caching::Through)
    }

    fn part(&self, offset_bytes: u64, length: usize) -> Result<ByteRange> {
        let range = self.range();
        let part = range.start().checked_add(offset_bytes).and_then(|start| {
            ByteRange::checked(start, u64::try_from(length).ok()?).filter(|part| range.contains(*part))
        });
        part.ok_or_else(|| {
            let text = format!("{length} bytes at {offset_bytes} do not lie in {range}");
            Error::new(Code::InvalidArgument, Stage::Execute, text)
        })
    }

    /// The shared memory of this process that all of `range` lies in.
    #[must_use]
    pub(crate) fn containing(range: ByteRange) -> Option<Self> {
        let live = LIVE.lock();
        let (_, memory) = live.range(..=range.start()).next_back()?;
        let memory = memory.upgrade().map(Self);
        drop(live); // dropping the last one would lock again
        memory.filter(|memory| memory.range().contains(range))
    }

    /// As a descriptor names it.
    pub(crate) fn place(&self) -> SharedRange {
        SharedRange { address: self.address(), file: self.0.sealed.place() }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let start = self.mapping.range().start();
        let mut live = LIVE.lock();
        // The address may be another one's already only after the mapping is gone, which is after this.
        live.remove(&start);
    }
}

fn usual(length_bytes: u64, huge: HugePages) -> std::io::Result<Inner> {
    let page_bytes = 4096;
    let whole = length_bytes.checked_next_multiple_of(page_bytes).ok_or(std::io::ErrorKind::OutOfMemory)?;
    let sealed = Sealed::create(whole, 0)?;
    let mapping = Mapping::of(&sealed)?;
    let transparent = huge == HugePages::Try && mapping.advise_huge().is_ok();
    let pages = if transparent { Pages::Transparent } else { Pages::Usual };
    Ok(Inner { mapping, sealed, pages })
}

/// Shared memory of another process, mapped into this one.
#[derive(Debug)]
pub(crate) struct Imported {
    place: SharedRange,
    /// As the owner sees it.
    theirs: ByteRange,
    mapping: Mapping,
}

impl Imported {
    /// Maps what the process names; the seals are looked at first.
    ///
    /// # Errors
    /// What the kernel says, or that it is not what was named.
    pub(crate) fn open(process: &Process, place: SharedRange) -> std::io::Result<Self> {
        let theirs = ByteRange::checked(place.address, place.file.length_bytes)
            .ok_or(std::io::ErrorKind::InvalidInput)?;
        let sealed = Sealed::open(process, &place.file)?;
        // The mapping keeps the file; a descriptor for each would use up the process's.
        Ok(Self { place, theirs, mapping: Mapping::of(&sealed)? })
    }

    pub(crate) fn place(&self) -> SharedRange {
        self.place
    }

    /// The range of the owner's addresses.
    pub(crate) fn theirs(&self) -> ByteRange {
        self.theirs
    }

    /// Moves bytes between memory of this process, vouched for as [`copy`](super::copy) says, and the owner's
    /// `remote` address.
    pub(crate) fn transfer(
        &self,
        write: bool,
        local: u64,
        remote: u64,
        length_bytes: u64,
        caching: Caching,
    ) -> Result<()> {
        let here = ByteRange::checked(remote, length_bytes)
            .filter(|range| self.theirs.contains(*range))
            .map(|range| self.mapping.range().start().wrapping_add(range.start() - self.theirs.start()));
        let Some(here) = here else {
            return Err(Error::new(Code::Internal, Stage::Execute, "outside of the mapped memory"));
        };
        let (target, source) = if write { (here, local) } else { (local, here) };
        copy_host(target, source, length_bytes, caching)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mapping_sees_what_was_written() {
        let memory = SharedMemory::allocate(10_000, HugePages::No).unwrap();
        assert_eq!(memory.length_bytes(), 12_288);
        memory.write(100, b"words").unwrap();
        let myself = Process::open(std::process::id()).unwrap();
        let imported = Imported::open(&myself, memory.place()).unwrap();
        assert_eq!(imported.theirs(), memory.range());
        let mut seen = [0_u8; 5];
        let near = seen.as_mut_ptr().expose_provenance() as u64;
        imported.transfer(false, near, memory.address() + 100, 5, Caching::Through).unwrap();
        assert_eq!(&std::hint::black_box(seen), b"words");
        imported.transfer(true, near, memory.address() + 12_283, 5, Caching::Through).unwrap();
        let mut back = [0_u8; 5];
        memory.read(12_283, &mut back).unwrap();
        assert_eq!(&back, b"words");
        assert!(imported.transfer(false, near, memory.address() + 12_284, 5, Caching::Through).is_err());
        assert!(memory.write(12_284, b"words").is_err() && memory.write(u64::MAX, b"w").is_err());
    }

    #[test]
    fn it_is_found_while_it_lives() {
        let memory = SharedMemory::allocate(8192, HugePages::Try).unwrap();
        let range = memory.range();
        let inside = ByteRange::new(range.start() + 4096, 4096).unwrap();
        assert_eq!(SharedMemory::containing(inside).unwrap().range(), range);
        let beyond = ByteRange::new(range.start() + 4096, 4097).unwrap();
        assert!(SharedMemory::containing(beyond).is_none());
        let second = memory.clone();
        drop(memory);
        assert!(SharedMemory::containing(inside).is_some());
        drop(second);
        assert!(SharedMemory::containing(inside).is_none());
    }

    #[test]
    fn nothing_is_committed_before_it_is_touched() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find(|line| line.starts_with("RssShmem:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        let memory = SharedMemory::allocate(8 << 30, HugePages::No).unwrap();
        memory.write(4 << 30, &[1; 8192]).unwrap();
        assert!(resident() - before < 16 << 10, "kilobytes more: {}", resident() - before);
    }

    #[test]
    fn no_bytes_are_refused() {
        assert_eq!(SharedMemory::allocate(0, HugePages::No).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(SharedMemory::allocate(u64::MAX, HugePages::No).unwrap_err().code(), Code::Memory);
    }
}

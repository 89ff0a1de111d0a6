//! Putting the usual pages of memory that is in use together into huge ones.
//!
//! The kernel moves memory between processes page by page, and for each usual page looks it up anew; over huge pages
//! it is twice as fast (measured: 10 to 12 GB/s instead of 4.5 to 5 on one core). The contents stay, whatever reads or
//! writes meanwhile: the kernel keeps accesses out for the moment, and leaves pages alone that a device has pinned.
//!
//! No more memory is used than before. What is not all there is left alone, and so is what is there without being this
//! process's alone: pages that were only read, which are all one page of zeros, and pages that a child made by `fork`
//! has too, until either has written to them. A huge page would be new memory for these. What begins to be shared in
//! the moment between the look and the kernel's work is one huge page at most.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use crate::memory::ByteRange;

/// Where the kernel says how long a huge page is, and whether it makes any.
const LENGTH: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Where the kernel says of each page, in one word, what it is.
const PAGES: &str = "/proc/self/pagemap";
/// Bits of such a word: it is in memory, it belongs to a file or to memory that is meant to be shared, and it is
/// mapped once in all processes (`Documentation/admin-guide/mm/pagemap.rst` of the kernel).
const PRESENT: u64 = 1 << 63;
const OF_A_FILE: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;
const WORD_BYTES: usize = size_of::<u64>();

/// Longest huge page that is put together: programs that touch it wait for as long as it takes to copy.
const MAX_UNIT_BYTES: u64 = 32 << 20;

/// Pages that are asked about at once.
const ASKED_PAGES: usize = 512;

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// It is one huge page.
    Huge,
    /// Some of its pages are not there.
    NotThere,
    /// All are there, and some are not this process's alone.
    Shared,
    /// Not now: pages are pinned, or no huge page is free, or no more files can be opened.
    Busy,
    /// Never: the kernel does not do it for this memory, or does not know how.
    Refused,
}

/// Length of a huge page; `None` where none are to be made.
pub(crate) fn unit_bytes() -> Option<u64> {
    static UNIT: LazyLock<Option<u64>> = LazyLock::new(|| {
        let never = std::fs::read_to_string(ENABLED).ok()?.contains("[never]");
        let unit_bytes = std::fs::read_to_string(LENGTH).ok()?.trim().parse::<u64>().ok()?;
        (!never && unit_bytes.is_power_of_two() && unit_bytes <= MAX_UNIT_BYTES).then_some(unit_bytes)
    });
    *UNIT
}

/// Makes one huge page of memory at an aligned address, if all of it is there and no new memory is needed.
pub(crate) fn gather(unit: ByteRange) -> Gathered {
    match missing(unit) {
        Ok(None) => {}
        Ok(Some(missing)) => return missing,
        Err(error) => return outcome(&error),
    }
    let (Ok(start), Ok(length)) = (usize::try_from(unit.start()), usize::try_from(unit.length_bytes()))
    else {
        return Gathered::Refused;
    };
    let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start);
    // Kernels before 6.1 do not know the advice.
    // SAFETY: the advice changes no contents and no rights, whatever is mapped there; where nothing is, or not all,
    // the kernel says so.
    match unsafe { libc::madvise(start, length, libc::MADV_COLLAPSE) } {
        0 => Gathered::Huge,
        _ => outcome(&io::Error::last_os_error()),
    }
}

fn outcome(error: &io::Error) -> Gathered {
    match error.raw_os_error() {
        // That there is no memory is also said where nothing is mapped any more.
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => Gathered::Busy,
        _ => Gathered::Refused,
    }
}

/// What is wrong if not every page of a range is in memory, or one is such as others have as well.
fn missing(range: ByteRange) -> io::Result<Option<Gathered>> {
    // Opened each time: in a child after `fork`, an open file would go on telling of the parent.
    let words = File::open(PAGES)?;
    // SAFETY: an integer argument; the call gives a number.
    let page_bytes = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(1);
    let most_bytes = page_bytes.saturating_mul(u64::try_from(ASKED_PAGES).unwrap_or(1));
    let (mut start, mut shared) = (range.start(), None);
    while start < range.end() {
        let part = ByteRange::new(start, most_bytes.min(range.end() - start))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        if !are_in_memory(part, page_bytes)? {
            return Ok(Some(Gathered::NotThere));
        }
        if !are_own(&words, part, page_bytes)? {
            shared = Some(Gathered::Shared);
        }
        start = part.end();
    }
    Ok(shared)
}

fn count(part: ByteRange, page_bytes: u64) -> usize {
    usize::try_from(part.length_bytes().div_ceil(page_bytes))
        .map_or(ASKED_PAGES, |count| count.min(ASKED_PAGES))
}

/// Whether every page is in memory; of at most [`ASKED_PAGES`].
fn are_in_memory(part: ByteRange, page_bytes: u64) -> io::Result<bool> {
    let mut pages = [0_u8; ASKED_PAGES];
    let native = usize::try_from(part.start()).ok().zip(usize::try_from(part.length_bytes()).ok());
    let (address, length) = native.ok_or(io::ErrorKind::InvalidInput)?;
    let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(address);
    // SAFETY: the kernel writes one byte for each page of the length, which is at most ASKED_PAGES; of the memory
    // itself nothing is touched, and where none is mapped it says so.
    if unsafe { libc::mincore(address, length, pages.as_mut_ptr().cast()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages.iter().take(count(part, page_bytes)).all(|page| page & 1 != 0))
}

/// Whether no page is one that a huge page would be a copy of, beside it; of at most [`ASKED_PAGES`].
fn are_own(words: &File, part: ByteRange, page_bytes: u64) -> io::Result<bool> {
    let mut bytes = [0_u8; ASKED_PAGES * WORD_BYTES];
    let wanted = bytes.get_mut(..count(part, page_bytes) * WORD_BYTES).unwrap_or_default();
    let word_bytes = u64::try_from(WORD_BYTES).unwrap_or(8);
    words.read_exact_at(wanted, part.start() / page_bytes * word_bytes)?;
    let shared = |word: u64| word & PRESENT != 0 && word & (OF_A_FILE | EXCLUSIVE) == 0;
    Ok(!wanted.as_chunks().0.iter().any(|word| shared(u64::from_ne_bytes(*word))))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether the kernel makes huge pages by itself, also of zeros, so that there are no usual ones to look at.
    pub(crate) fn huge_unasked() -> bool {
        std::fs::read_to_string(ENABLED).is_ok_and(|modes| modes.contains("[always]"))
    }

    /// What becomes of a unit, when the kernel is not just busy with it; another test may fork meanwhile.
    fn settled(unit: ByteRange) -> Gathered {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            match gather(unit) {
                Gathered::Busy if std::time::Instant::now() < until => std::thread::yield_now(),
                outcome => return outcome,
            }
        }
    }

    /// Memory of the process as a program has it, untouched: `units` whole ones, aligned.
    pub(crate) struct Private {
        whole: ByteRange,
        pub(crate) range: ByteRange,
    }

    impl Private {
        pub(crate) fn of(units: u64, unit_bytes: u64) -> Self {
            let length = usize::try_from((units + 2) * unit_bytes).unwrap();
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: the kernel picks a place of its own.
            let base = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
            assert_ne!(base, libc::MAP_FAILED);
            let whole = ByteRange::new(base.expose_provenance() as u64, length as u64).unwrap();
            let start = (whole.start() + 1).next_multiple_of(unit_bytes);
            let range = ByteRange::new(start, units * unit_bytes).unwrap();
            // What is forbidden around it keeps the kernel from counting it together with a neighbour.
            let inside = std::ptr::with_exposed_provenance_mut(usize::try_from(start).unwrap());
            let (length, rights) =
                (usize::try_from(range.length_bytes()).unwrap(), libc::PROT_READ | libc::PROT_WRITE);
            // SAFETY: the range lies inside the new mapping, which nobody knows yet.
            assert_eq!(unsafe { libc::mprotect(inside, length, rights) }, 0);
            let private = Self { whole, range };
            // A test beside this one may fork.
            private.advise(libc::MADV_DONTFORK);
            private
        }

        /// Whether a child has it, too.
        fn advise(&self, advice: i32) {
            let start = std::ptr::with_exposed_provenance_mut(usize::try_from(self.range.start()).unwrap());
            // SAFETY: the mapping is this value's; the advice changes nothing in this process.
            let done =
                unsafe { libc::madvise(start, usize::try_from(self.range.length_bytes()).unwrap(), advice) };
            assert_eq!(done, 0);
        }

        /// The same for a test of forking.
        fn forked(self) -> Self {
            self.advise(libc::MADV_DOFORK);
            self
        }

        /// The bytes of some units.
        #[expect(clippy::mut_from_ref, reason = "a test uses one part at a time")]
        pub(crate) fn bytes(&self, offset: u64, length_bytes: u64) -> &mut [u8] {
            assert!(offset + length_bytes <= self.range.length_bytes());
            let start = usize::try_from(self.range.start() + offset).unwrap();
            // SAFETY: the bytes lie in the mapping, which lives as long as the borrow and is this test's alone.
            unsafe {
                std::slice::from_raw_parts_mut(
                    std::ptr::with_exposed_provenance_mut(start),
                    usize::try_from(length_bytes).unwrap(),
                )
            }
        }

        /// Bytes of it in huge pages.
        pub(crate) fn huge_bytes(&self) -> u64 {
            let facts = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut inside = false;
            let mut sum = 0;
            for line in facts.lines() {
                let word = line.split_whitespace().next().unwrap_or_default();
                if let Some((from, to)) = word.split_once('-') {
                    let bound = |text| u64::from_str_radix(text, 16).unwrap();
                    inside = bound(from) < self.range.end() && bound(to) > self.range.start();
                } else if inside && word == "AnonHugePages:" {
                    sum += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024;
                }
            }
            sum
        }
    }

    impl Drop for Private {
        fn drop(&mut self) {
            let start = std::ptr::with_exposed_provenance_mut(usize::try_from(self.whole.start()).unwrap());
            // SAFETY: the mapping is this value's alone, and nobody borrows from it any more.
            unsafe { libc::munmap(start, usize::try_from(self.whole.length_bytes()).unwrap()) };
        }
    }

    #[test]
    fn what_is_there_becomes_huge_and_keeps_its_bytes() {
        let Some(unit_bytes) = unit_bytes() else {
            return mooncake_test_support::skip("this kernel makes no huge pages");
        };
        let memory = Private::of(3, unit_bytes);
        let unit = |index| ByteRange::new(memory.range.start() + index * unit_bytes, unit_bytes).unwrap();
        for (byte, value) in memory.bytes(0, unit_bytes).iter_mut().zip((0..=250_u8).cycle()) {
            *byte = value;
        }
        memory.bytes(unit_bytes, unit_bytes - 4096).fill(7);
        if memory.huge_bytes() > 0 {
            return mooncake_test_support::skip("this kernel makes huge pages of what is touched first");
        }
        match gather(unit(0)) {
            Gathered::Huge => {}
            other => {
                return mooncake_test_support::skip(&format!("the kernel puts no pages together: {other:?}"));
            }
        }
        assert!(
            memory.bytes(0, unit_bytes).iter().zip((0..=250_u8).cycle()).all(|(byte, value)| *byte == value)
        );
        assert_eq!(gather(unit(0)), Gathered::Huge, "again");
        assert_eq!(gather(unit(1)), Gathered::NotThere, "its last page was never touched");
        assert_eq!(gather(unit(2)), Gathered::NotThere);
        assert_eq!(memory.huge_bytes(), unit_bytes);
        let gone = unit(0);
        drop(memory);
        assert_ne!(gather(gone), Gathered::Huge, "nothing is mapped there");
    }

    /// Memory of one unit, if the kernel does it at all.
    fn one_unit() -> Option<Private> {
        let Some(unit_bytes) = unit_bytes() else {
            mooncake_test_support::skip("this kernel makes no huge pages");
            return None;
        };
        if huge_unasked() {
            mooncake_test_support::skip("this kernel makes huge pages of what is read or written first");
            return None;
        }
        let memory = Private::of(1, unit_bytes);
        memory.bytes(0, unit_bytes).fill(1);
        if gather(memory.range) != Gathered::Huge {
            mooncake_test_support::skip("the kernel puts no pages together here");
            return None;
        }
        Some(Private::of(1, unit_bytes))
    }

    #[test]
    fn what_was_only_read_takes_no_memory() {
        let Some(memory) = one_unit() else { return };
        let bytes = memory.bytes(0, memory.range.length_bytes());
        let sum = |bytes: &[u8]| {
            bytes.iter().step_by(4096).map(|byte| u64::from(std::hint::black_box(*byte))).sum::<u64>()
        };
        assert_eq!(sum(bytes), 0);
        assert_eq!(gather(memory.range), Gathered::Shared);
        // All but one.
        let length = bytes.len();
        bytes[..length - 4096].fill(1);
        let before = memory.huge_bytes();
        if before == 0 {
            assert_eq!(gather(memory.range), Gathered::Shared);
        }
        assert_eq!(memory.huge_bytes(), before);
        bytes.fill(1);
        assert_eq!(gather(memory.range), Gathered::Huge);
    }

    #[test]
    fn what_a_forked_child_has_too_is_not_doubled() {
        let Some(memory) = one_unit().map(Private::forked) else { return };
        let bytes = memory.bytes(0, memory.range.length_bytes());
        bytes.fill(1);
        if memory.huge_bytes() > 0 {
            return mooncake_test_support::skip("this kernel makes huge pages of what is touched first");
        }
        // The parent waits meanwhile, and has the same pages.
        assert!(crate::memory::owner::tests::in_a_child(|| {
            let shared = settled(memory.range);
            let huge_bytes = memory.huge_bytes();
            bytes.fill(2);
            let own = settled(memory.range);
            (shared, huge_bytes, own) == (Gathered::Shared, 0, Gathered::Huge)
        }));
        assert!(bytes.iter().all(|byte| *byte == 1));
        // The child is gone; one of another test may have it for a while.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while gather(memory.range) != Gathered::Huge {
            assert!(std::time::Instant::now() < until, "{:?}", gather(memory.range));
        }
    }
}

//! A sealed file in this process's address space.
//!
//! Invariant: the file cannot shrink, so that every byte of a mapping stays there as long as the mapping lives.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

use crate::memory::ByteRange;
use crate::memory::sealed::Sealed;

/// A mapping of this length or more is taken out by a thread of its own: a gigabyte of touched pages takes a tenth of
/// a second, and who closes an engine or a store must not wait for it.
const UNMAPPED_BESIDE_BYTES: usize = 64 << 20;

/// A mapping; dropping it takes it out of the address space.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: usize,
    length: usize,
}

impl Mapping {
    /// Maps a whole file for reading and writing; nothing is touched yet.
    ///
    /// # Errors
    /// What the kernel says; for huge pages that none are left.
    pub(crate) fn of(sealed: &Sealed) -> io::Result<Self> {
        let length = usize::try_from(sealed.length_bytes())
            .ok()
            .filter(|length| *length > 0 && isize::try_from(*length).is_ok())
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel picks a place of its own, so that nothing that exists is mapped over.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                sealed.file().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.expose_provenance(), length })
    }

    /// The addresses.
    pub(crate) fn range(&self) -> ByteRange {
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        // The kernel maps nothing that wraps.
        ByteRange::checked(number(self.base), number(self.length)).unwrap_or(EMPTY)
    }

    /// Asks for transparent huge pages; a kernel without them says no.
    pub(crate) fn advise_huge(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping; the advice changes no contents.
        match unsafe { libc::madvise(self.pointer().cast(), self.length, libc::MADV_HUGEPAGE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The word at an index, counted in words; all processes that map the file see the same one.
    pub(crate) fn word(&self, index: usize) -> Option<&AtomicU64> {
        let end = index.checked_add(1)?.checked_mul(size_of::<AtomicU64>())?;
        if end > self.length {
            return None;
        }
        // SAFETY: the word lies inside the mapping, which begins at a page, is readable and writable, and lives as
        // long as the borrow; its file cannot shrink. All who use it, in whichever process, use it atomically.
        Some(unsafe { &*self.pointer().cast::<AtomicU64>().add(index) })
    }

    fn pointer(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.base)
    }
}

const EMPTY: ByteRange = match ByteRange::checked(0, 0) {
    Some(range) => range,
    None => unreachable!(),
};

impl Drop for Mapping {
    fn drop(&mut self) {
        let (base, length_bytes) = (self.base, self.length);
        if length_bytes >= UNMAPPED_BESIDE_BYTES {
            let beside = std::thread::Builder::new().name("mct-unmap".into());
            match beside.spawn(move || unmap(base, length_bytes)) {
                Ok(_) => return,
                Err(error) => log::debug!("no thread to take out a mapping, its owner does it: {error}"),
            }
        }
        unmap(base, length_bytes);
    }
}

/// Takes out a mapping whose owner is being dropped.
fn unmap(base: usize, length_bytes: usize) {
    // SAFETY: only `drop` calls this, once per mapping: it was the owner's alone, and who borrowed from it is gone.
    if unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(base), length_bytes) } != 0 {
        log::error!("a mapping cannot be taken out: {}", io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn two_mappings_show_the_same_words() {
        let sealed = Sealed::create(8192, 0).unwrap();
        let (one, other) = (Mapping::of(&sealed).unwrap(), Mapping::of(&sealed).unwrap());
        assert!(!one.range().overlaps(other.range()));
        one.word(1023).unwrap().store(7, Ordering::Relaxed);
        assert_eq!(other.word(1023).unwrap().load(Ordering::Relaxed), 7);
        assert!(one.word(1024).is_none() && one.word(usize::MAX).is_none());
    }
}

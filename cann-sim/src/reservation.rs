//! Reserved address ranges, into which physical memory is mapped later (facts 1.2, VMM).
//!
//! Invariant: every page of a live reservation belongs to it, mapped or not; unmapping puts the empty reservation
//! back, so that no stranger's mapping can slip in between.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::arena::HUGE_PAGE;

/// One range of addresses.
#[derive(Debug)]
pub struct Reservation {
    whole: usize,
    whole_length: usize,
    base: usize,
    length: usize,
}

const EMPTY: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

impl Reservation {
    /// Reserves `length` bytes at a multiple of `alignment` (a power of two), at or above `lowest` if that is not 0.
    pub fn new(length: usize, alignment: usize, lowest: usize) -> io::Result<Self> {
        let alignment = alignment.max(HUGE_PAGE);
        let whole_length = length.checked_add(alignment).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: without MAP_FIXED the address is a wish; no existing mapping is touched.
        let start =
            unsafe { libc::mmap(lowest as *mut libc::c_void, whole_length, libc::PROT_NONE, EMPTY, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let whole = start as usize;
        Ok(Self { whole, whole_length, base: whole.next_multiple_of(alignment), length })
    }

    /// First address.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Whether the range lies inside.
    pub fn holds(&self, address: usize, length: usize) -> bool {
        address
            .checked_sub(self.base)
            .and_then(|offset| offset.checked_add(length))
            .is_some_and(|end| end <= self.length)
    }

    /// Maps the first `length` bytes of a file at `address`; readable and writable when `open`, else faulting.
    pub fn map(&self, address: usize, fd: BorrowedFd<'_>, length: usize, open: bool) -> io::Result<()> {
        if !self.holds(address, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = if open { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: the range lies in this reservation, which holds nothing else.
        let mapped =
            unsafe { libc::mmap(address as *mut libc::c_void, length, protection, flags, fd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Empties a range that `map` filled.
    pub fn unmap(&self, address: usize, length: usize) -> io::Result<()> {
        if !self.holds(address, length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: as in `map`; the range goes back to what `new` made of it.
        let mapped = unsafe {
            libc::mmap(address as *mut libc::c_void, length, libc::PROT_NONE, EMPTY | libc::MAP_FIXED, -1, 0)
        };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `new` and is owned by this value alone.
        unsafe { libc::munmap(self.whole as *mut libc::c_void, self.whole_length) };
    }
}

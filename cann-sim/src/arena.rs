//! Arenas: one sealed memfd each, mapped for the user and for the simulator's own copies.
//!
//! Device memory has two mappings: the *user's*, whose addresses the program holds and which is PROT_NONE (a host
//! program that touches device memory must fault, as it does on hardware), and the *alias*, through which copies
//! reach the bytes. Pinned host memory has one mapping for both. A peer maps the same memfd, so its copies need no
//! work by the owner. Seals against shrinking and growing make a foreign mapping safe from SIGBUS.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Alignment of every mapping: the huge page of the device.
pub const HUGE_PAGE: usize = 2 << 20;

/// A mapped address range that is unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: usize,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes of `fd` from `offset` with `protection` at an address aligned to [`HUGE_PAGE`].
    pub fn new(fd: BorrowedFd<'_>, offset: usize, length: usize, protection: i32) -> io::Result<Self> {
        let overlong = length.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: an anonymous reservation at an address of the kernel's choice touches no existing mapping.
        let reserved = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                overlong,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = reserved as usize;
        let base = start.next_multiple_of(HUGE_PAGE);
        // SAFETY: the fixed range lies inside the reservation made above, which nobody else knows yet.
        let mapped = unsafe {
            libc::mmap(
                base as *mut libc::c_void,
                length,
                protection,
                libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // SAFETY: the reservation is ours and unused.
            unsafe { libc::munmap(reserved, overlong) };
            return Err(error);
        }
        let page = page_size();
        let end = base + length.next_multiple_of(page);
        // SAFETY: both ranges are the unused ends of our reservation.
        unsafe {
            if base > start {
                libc::munmap(reserved, base - start);
            }
            if start + overlong > end {
                libc::munmap(end as *mut libc::c_void, start + overlong - end);
            }
        }
        Ok(Self { base, length })
    }

    /// First address.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and is owned by this value alone.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.length) };
    }
}

/// One memfd with its mappings.
#[derive(Debug)]
pub struct Arena {
    fd: OwnedFd,
    user: Mapping,
    alias: Option<Mapping>,
}

impl Arena {
    /// An arena of device memory: the user's mapping faults when touched.
    pub fn device(length: usize) -> io::Result<Self> {
        let fd = sealed_memfd(c"cann-sim-device", length)?;
        let user = Mapping::new(fd.as_fd(), 0, length, libc::PROT_NONE)?;
        let alias = Mapping::new(fd.as_fd(), 0, length, libc::PROT_READ | libc::PROT_WRITE)?;
        prefer_huge_pages(&alias);
        // Device memory in a core dump would be tens of gigabytes; a dump of hardware has none of it either.
        // SAFETY: advice on our own mapping; where the kernel does not take it nothing changes.
        unsafe { libc::madvise(alias.base() as *mut libc::c_void, alias.length(), libc::MADV_DONTDUMP) };
        Ok(Self { fd, user, alias: Some(alias) })
    }

    /// An arena of pinned host memory.
    pub fn host(length: usize) -> io::Result<Self> {
        let fd = sealed_memfd(c"cann-sim-host", length)?;
        let user = Mapping::new(fd.as_fd(), 0, length, libc::PROT_READ | libc::PROT_WRITE)?;
        prefer_huge_pages(&user);
        Ok(Self { fd, user, alias: None })
    }

    /// Memory of another process, or a physical handle's, from `offset` of its file. `guarded` gives the user a
    /// mapping that faults when touched and copies another one; else both have the one mapping.
    pub fn view(fd: OwnedFd, offset: usize, length: usize, guarded: bool) -> io::Result<Self> {
        let open = libc::PROT_READ | libc::PROT_WRITE;
        let user = Mapping::new(fd.as_fd(), offset, length, if guarded { libc::PROT_NONE } else { open })?;
        let alias = if guarded { Some(Mapping::new(fd.as_fd(), offset, length, open)?) } else { None };
        Ok(Self { fd, user, alias })
    }

    /// First address the user sees.
    pub fn user_base(&self) -> usize {
        self.user.base()
    }

    /// First address through which the bytes can be reached.
    pub fn alias_base(&self) -> usize {
        self.alias.as_ref().unwrap_or(&self.user).base()
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.user.length()
    }

    /// The memfd, to be handed to a peer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives the pages of a freed range back to the system.
    pub fn discard(&self, offset: usize, length: usize) {
        let page = page_size();
        let first = offset.next_multiple_of(page);
        let end = (offset + length) / page * page;
        if let (true, Ok(first), Ok(length)) =
            (end > first, libc::off_t::try_from(first), libc::off_t::try_from(end.saturating_sub(first)))
        {
            // SAFETY: the descriptor is open and the range lies in the file; a failure only keeps pages longer.
            unsafe {
                libc::fallocate(
                    self.fd.as_raw_fd(),
                    libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                    first,
                    length,
                )
            };
        }
    }
}

/// The machine's page size.
pub fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

fn prefer_huge_pages(mapping: &Mapping) {
    // SAFETY: advice on our own mapping; where the kernel does not take it nothing changes.
    unsafe { libc::madvise(mapping.base() as *mut libc::c_void, mapping.length(), libc::MADV_HUGEPAGE) };
}

/// A memfd of `length` bytes that can neither shrink nor grow.
pub fn sealed_memfd(name: &std::ffi::CStr, length: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name is a valid C string and the flags are defined ones.
    let raw = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let size = libc::off_t::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: plain calls on an open descriptor.
    let done = unsafe {
        libc::ftruncate(fd.as_raw_fd(), size) == 0
            && libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) == 0
    };
    if done { Ok(fd) } else { Err(io::Error::last_os_error()) }
}

/// Whether a received memfd can neither shrink nor be too short for `length` bytes.
pub fn is_sealed(fd: BorrowedFd<'_>, length: usize) -> bool {
    // SAFETY: fcntl and fstat on an open descriptor; the stat buffer is plain data that fstat fills.
    unsafe {
        let seals = libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS);
        let mut stat: libc::stat = std::mem::zeroed();
        seals >= 0
            && seals & libc::F_SEAL_SHRINK != 0
            && libc::fstat(fd.as_raw_fd(), &raw mut stat) == 0
            && usize::try_from(stat.st_size).is_ok_and(|size| size >= length)
    }
}

/// What identifies the file behind a descriptor in this kernel.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64, usize)> {
    // SAFETY: fstat fills the plain-data buffer of an open descriptor.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd.as_raw_fd(), &raw mut stat), stat)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((stat.st_dev, stat.st_ino, usize::try_from(stat.st_size).unwrap_or(0)))
}

//! Memory as an open file of the kernel (memfd) that can never shrink.
//!
//! A peer of the same host that maps such memory is safe from its owner: a file that is cut while somebody has it
//! mapped would kill that process with a signal. So the owner seals the size when it makes the file, and who takes
//! a file over looks at the seals first. The file is found by the number of its descriptor in the owner's process;
//! the inode tells that the number still means the same file.
//!
//! A descriptor of another process is opened through `/proc/PID/fd`, which needs no more than the right to look
//! at the process (same user, same container; Yama does not forbid it), else by `pidfd_getfd`, which needs what
//! `process_vm_readv` needs. A socket would do where the two have only a network in common; there TCP goes.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::memory::process::Process;

/// What keeps the size, and keeps the seals.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Where a process finds a file of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SharedFile {
    /// Number of the descriptor in the owner's process.
    pub descriptor: i32,
    /// Inode of the file.
    pub inode: u64,
    /// Length.
    pub length_bytes: u64,
}

/// A file in memory whose size is sealed.
#[derive(Debug)]
pub(crate) struct Sealed {
    file: File,
    place: SharedFile,
}

impl Sealed {
    /// A new one, all zero; it takes no memory until it is touched. `flags` are those of huge pages, or 0.
    pub(crate) fn create(length_bytes: u64, flags: libc::c_uint) -> io::Result<Self> {
        let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags;
        // Kernels before 6.3 do not know the flag that says "never a program".
        let descriptor = memfd(base | libc::MFD_NOEXEC_SEAL).or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => memfd(base),
            _ => Err(error),
        })?;
        let file = File::from(descriptor);
        file.set_len(length_bytes)?;
        // SAFETY: an integer argument on a descriptor that is ours.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Self::of(file)
    }

    fn of(file: File) -> io::Result<Self> {
        let facts = file.metadata()?;
        let place =
            SharedFile { descriptor: file.as_raw_fd(), inode: facts.ino(), length_bytes: facts.len() };
        Ok(Self { file, place })
    }

    /// The file of another process, by a descriptor of our own.
    ///
    /// # Errors
    /// What the kernel says; `InvalidData` when it is another file than `place` says, or one that can shrink.
    pub(crate) fn open(process: &Process, place: &SharedFile) -> io::Result<Self> {
        let file = match process.open_file(place.descriptor, place.inode) {
            Ok(file) => file,
            // Opened anew, so that locks are this process's own.
            Err(error) => match process.copy_descriptor(place.descriptor) {
                Ok(descriptor) => reopen(&descriptor)?,
                Err(_) => return Err(error),
            },
        };
        let opened = Self::of(file)?;
        // SAFETY: no argument, on a descriptor that is ours.
        let seals = unsafe { libc::fcntl(opened.file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer's file is not sealed"));
        }
        if opened.place.inode != place.inode || opened.place.length_bytes < place.length_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer has closed the file"));
        }
        Ok(opened)
    }

    /// How another process finds it.
    pub(crate) fn place(&self) -> SharedFile {
        self.place
    }

    pub(crate) fn length_bytes(&self) -> u64 {
        self.place.length_bytes
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Says that this process uses the file, until it closes it or ends, however it ends.
    pub(crate) fn mark_in_use(&self) -> io::Result<()> {
        self.lock(libc::LOCK_SH)
    }

    /// Whether another process has said that it uses the file, and has not closed it.
    pub(crate) fn is_in_use(&self) -> bool {
        let free = self.lock(libc::LOCK_EX).and_then(|()| self.lock(libc::LOCK_UN));
        free.is_err()
    }

    fn lock(&self, kind: libc::c_int) -> io::Result<()> {
        // SAFETY: an integer argument on a descriptor that is ours; it does not wait.
        match unsafe { libc::flock(self.file.as_raw_fd(), kind | libc::LOCK_NB) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn memfd(flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the name is a constant string with its end; the call gives a descriptor or -1.
    let descriptor = unsafe { libc::memfd_create(c"mooncake-transfer".as_ptr(), flags) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn reopen(descriptor: &OwnedFd) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn myself() -> Process {
        Process::open(std::process::id()).unwrap()
    }

    #[test]
    fn a_sealed_file_keeps_its_size_and_its_seals() {
        let sealed = Sealed::create(10_000, 0).unwrap();
        assert_eq!(sealed.length_bytes(), 10_000);
        assert!(sealed.file.set_len(4096).is_err(), "it must not shrink");
        assert!(sealed.file.set_len(20_000).is_err(), "nor grow");
        let again = Sealed::open(&myself(), &sealed.place()).unwrap();
        assert_eq!(again.place().inode, sealed.place().inode);
    }

    #[test]
    fn another_file_or_one_without_seals_is_refused() {
        let sealed = Sealed::create(4096, 0).unwrap();
        let other = SharedFile { inode: sealed.place().inode + 1, ..sealed.place() };
        assert!(Sealed::open(&myself(), &other).is_err());
        let longer = SharedFile { length_bytes: 4097, ..sealed.place() };
        assert!(Sealed::open(&myself(), &longer).is_err());
        let bare = Sealed::of(File::from(memfd(libc::MFD_CLOEXEC).unwrap())).unwrap();
        assert!(Sealed::open(&myself(), &bare.place()).is_err());
        let null = Sealed::of(File::open("/dev/null").unwrap()).unwrap();
        assert!(Sealed::open(&myself(), &null.place()).is_err());
    }

    #[test]
    fn use_ends_with_the_last_descriptor() {
        let sealed = Sealed::create(4096, 0).unwrap();
        assert!(!sealed.is_in_use());
        let user = Sealed::open(&myself(), &sealed.place()).unwrap();
        user.mark_in_use().unwrap();
        assert!(sealed.is_in_use());
        drop(user);
        assert!(!sealed.is_in_use());
    }
}

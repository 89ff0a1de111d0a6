//! Which process this is, without asking the kernel each time.
//!
//! Every call of an engine looks whether it is still the process that made the engine: a child after `fork` is not.
//! The number is kept on a page that the kernel empties in the child, however it was made.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The page; `None` where the kernel (before 4.14) does not empty it.
static PAGE: LazyLock<Option<usize>> = LazyLock::new(page);

/// Number of this process.
pub(crate) fn process_id() -> u32 {
    let Some(page) = *PAGE else { return std::process::id() };
    // SAFETY: the page is mapped for reading and writing for as long as the process lives, and in a child of it; all
    // who use it use its first word, as this atomic.
    let word = unsafe { &*std::ptr::with_exposed_provenance::<AtomicU32>(page) };
    match word.load(Ordering::Relaxed) {
        0 => {
            let own = std::process::id();
            word.store(own, Ordering::Relaxed);
            own
        }
        own => own,
    }
}

fn page() -> Option<usize> {
    // SAFETY: an integer argument; the call gives a number.
    let length = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel picks a place of its own, so that nothing that exists is mapped over.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page was just mapped, and nobody else knows it; the advice changes nothing in this process.
    if unsafe { libc::madvise(base, length, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as above.
        unsafe { libc::munmap(base, length) };
        return None;
    }
    Some(base.expose_provenance())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Longest time of a child, and the pause between two looks at it.
    const CHILD_LIMIT: Duration = Duration::from_secs(20);
    const CHILD_LOOK: Duration = Duration::from_millis(1);

    /// Whether `holds` in a child of this process, which has only the thread that runs it.
    pub(crate) fn in_a_child(holds: impl FnOnce() -> bool) -> bool {
        in_a_child_for(CHILD_LIMIT, holds)
    }

    fn in_a_child_for(limit: Duration, holds: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child runs on with this thread alone, and ends at the end of this block; what it calls is to be
        // fit for a child of a program with threads, which is what is tested.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(holds)).unwrap_or(false);
            // SAFETY: ends the process; nothing of the parent's is run.
            unsafe { libc::_exit(if right { 7 } else { 1 }) };
        }
        assert!(child > 0);
        // A lock that another thread held when the child was made is held in the child for ever.
        let end = Instant::now() + limit;
        let mut status = 0;
        loop {
            // SAFETY: the status is a number that lives until the call returns.
            match unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } {
                0 if Instant::now() < end => std::thread::sleep(CHILD_LOOK),
                0 => {
                    // SAFETY: a child of ours that was not waited for yet, so that the number is nobody else's.
                    unsafe { libc::kill(child, libc::SIGKILL) };
                    // SAFETY: as above; a killed child ends soon, and is waited for by nobody else.
                    unsafe { libc::waitpid(child, &raw mut status, 0) };
                    panic!("a child has not ended within {limit:?}");
                }
                ended => {
                    assert_eq!(ended, child, "{}", std::io::Error::last_os_error());
                    return libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7;
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "a child has not ended")]
    fn a_child_that_hangs_is_ended() {
        let hangs = || loop {
            std::thread::sleep(CHILD_LIMIT);
        };
        in_a_child_for(10 * CHILD_LOOK, hangs);
    }

    #[test]
    fn a_child_is_another_process() {
        let own = std::process::id();
        assert_eq!((process_id(), process_id()), (own, own));
        assert!(in_a_child(|| process_id() == std::process::id() && process_id() != own));
        assert_eq!(process_id(), own);
    }
}

//! The life of another process: whether it has ended, however it ended.
//!
//! A socket alone does not tell: a forked child keeps it open, and a peer that destroyed its communicator has
//! closed it while its memory stays. A process descriptor is exact, where the kernel has it (5.3).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Another process, which may be this one.
#[derive(Debug)]
pub struct Life(Option<OwnedFd>);

impl Life {
    /// The process at the other end of a connected socket.
    pub fn of_peer(socket: &UnixStream) -> Self {
        Self(peer_process(socket).and_then(open_process).ok())
    }

    /// Whether it has ended; false where the kernel cannot tell.
    pub fn has_ended(&self) -> bool {
        let Some(process) = &self.0 else { return false };
        let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd on the stack; the descriptor is open; no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 && poll.revents & libc::POLLIN != 0 }
    }
}

/// The process that connected, or that listened.
fn peer_process(socket: &UnixStream) -> io::Result<libc::pid_t> {
    // SAFETY: all bytes zero is a valid value of this plain struct.
    let mut credentials: libc::ucred = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes into the struct of that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    match result {
        // Zero is a process outside our process namespace.
        0 if credentials.pid > 0 => Ok(credentials.pid),
        0 => Err(io::ErrorKind::NotFound.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn open_process(process: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: a call with plain numbers.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let raw = libc::c_int::try_from(raw).map_err(io::Error::other)?;
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_end_of_a_process_is_seen_before_anyone_waits_for_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let life = Life(open_process(i32::try_from(child.id()).unwrap()).ok());
        if life.0.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            return; // a kernel before 5.3
        }
        assert!(!life.has_ended());
        child.kill().unwrap();
        let start = std::time::Instant::now();
        while !life.has_ended() {
            assert!(start.elapsed().as_secs() < 20);
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn this_process_lives() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(!Life::of_peer(&one).has_ended());
    }
}

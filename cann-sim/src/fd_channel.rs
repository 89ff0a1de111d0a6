//! A stream socket that also carries open files, with a deadline on every step.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::clock::Deadline;

/// Open files carried by one message; the kernel takes 253.
const BATCH: usize = 64;

/// Time left, as a socket option wants it; an error when there is none.
fn remaining(deadline: Deadline) -> io::Result<Option<Duration>> {
    match deadline {
        None => Ok(None),
        Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(io::ErrorKind::TimedOut.into()),
        },
    }
}

/// Sends all bytes.
pub fn send(socket: &UnixStream, bytes: &[u8], deadline: Deadline) -> io::Result<()> {
    socket.set_write_timeout(remaining(deadline)?)?;
    let mut socket = socket;
    socket.write_all(bytes)
}

/// Receives exactly `bytes.len()` bytes.
pub fn receive(socket: &UnixStream, bytes: &mut [u8], deadline: Deadline) -> io::Result<()> {
    socket.set_read_timeout(remaining(deadline)?)?;
    let mut socket = socket;
    socket.read_exact(bytes)
}

/// Room for the control message of one batch, aligned as the kernel wants it.
#[repr(C, align(8))]
struct ControlBuffer([u8; 512]);

/// Sends open files.
pub fn send_files(socket: &UnixStream, files: &[OwnedFd], deadline: Deadline) -> io::Result<()> {
    for batch in files.chunks(BATCH) {
        socket.set_write_timeout(remaining(deadline)?)?;
        let raw: Vec<libc::c_int> = batch.iter().map(AsRawFd::as_raw_fd).collect();
        let mut mark = [u8::try_from(raw.len()).unwrap_or(0)];
        let mut vector = libc::iovec { iov_base: mark.as_mut_ptr().cast(), iov_len: 1 };
        let mut control = ControlBuffer([0; 512]);
        let length = u32::try_from(size_of_val(raw.as_slice())).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a zeroed msghdr is valid; its pointers name locals that outlive the call, the control buffer has
        // room for 64 descriptors, and the CMSG functions stay inside it.
        let sent = unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_iov = &raw mut vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(length) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr(), libc::CMSG_DATA(message).cast(), raw.len());
            libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
        };
        if sent != 1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Receives `count` open files.
pub fn receive_files(socket: &UnixStream, count: usize, deadline: Deadline) -> io::Result<Vec<OwnedFd>> {
    let mut files = Vec::new();
    while files.len() < count {
        socket.set_read_timeout(remaining(deadline)?)?;
        let mut mark = [0_u8];
        let mut vector = libc::iovec { iov_base: mark.as_mut_ptr().cast(), iov_len: 1 };
        let mut control = ControlBuffer([0; 512]);
        // SAFETY: as in `send_files`; every descriptor found is owned by nobody else and taken exactly once.
        let received = unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_iov = &raw mut vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = control.0.len() as _;
            let received = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
            let mut message =
                if received == 1 { libc::CMSG_FIRSTHDR(&raw const header) } else { std::ptr::null_mut() };
            while !message.is_null() {
                if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS {
                    let bytes = ((*message).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                    let data: *const libc::c_int = libc::CMSG_DATA(message).cast();
                    for index in 0..bytes / size_of::<libc::c_int>() {
                        files.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                    }
                }
                message = libc::CMSG_NXTHDR(&raw const header, message);
            }
            received
        };
        match received {
            1 if mark == [0] => return Err(io::ErrorKind::InvalidData.into()),
            1 => {}
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => return Err(io::Error::last_os_error()),
        }
    }
    Ok(files)
}

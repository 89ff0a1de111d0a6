//! Socket I/O straight from and into memory that a caller vouched for.
//!
//! A list is made of parts, some of them memory by address (under the contract of [`copy`](super::copy)), some
//! of them buffers of our own, and goes to the kernel in one call. The kernel checks the addresses: memory that
//! is not mapped gives `EFAULT`, never a fault of the process. No call here blocks, whatever the socket's mode.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::error::Result;
use crate::memory::copy::{Caching, copy_host};

/// Copies a buffer of ours into memory that the caller of the engine vouched for.
pub(crate) fn copy_in(address: u64, bytes: &[u8]) -> Result<()> {
    let source = u64::try_from(bytes.as_ptr().expose_provenance()).unwrap_or(u64::MAX);
    copy_host(address, source, u64::try_from(bytes.len()).unwrap_or(u64::MAX), Caching::Through)
}

/// Most parts of one list.
pub(crate) const MAX_PARTS: usize = 64;

/// What a list of parts takes from or gives to the socket.
struct Parts {
    vectors: [MaybeUninit<libc::iovec>; MAX_PARTS],
    length: usize,
    length_bytes: usize,
}

impl Parts {
    const fn new() -> Self {
        Self { vectors: [const { MaybeUninit::uninit() }; MAX_PARTS], length: 0, length_bytes: 0 }
    }

    fn push(&mut self, base: *mut libc::c_void, length_bytes: usize) -> bool {
        // The kernel refuses lists beyond isize::MAX bytes; callers stay far below, and a full list says so.
        let Some(total_bytes) =
            self.length_bytes.checked_add(length_bytes).filter(|total| isize::try_from(*total).is_ok())
        else {
            return false;
        };
        let Some(slot) = self.vectors.get_mut(self.length) else { return false };
        slot.write(libc::iovec { iov_base: base, iov_len: length_bytes });
        self.length += 1;
        self.length_bytes = total_bytes;
        true
    }

    fn push_memory(&mut self, address: u64, length_bytes: u64) -> bool {
        let (Ok(address), Ok(length_bytes)) = (usize::try_from(address), usize::try_from(length_bytes))
        else {
            return false;
        };
        self.push(std::ptr::with_exposed_provenance_mut(address), length_bytes)
    }

    fn message(&mut self) -> libc::msghdr {
        // SAFETY: msghdr is a C struct of integers and pointers, for which all zero bits are valid values.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.vectors.as_mut_ptr().cast();
        // The type of the length differs between C libraries; 64 fits all of them.
        message.msg_iovlen = self.length as _;
        message
    }
}

fn outcome(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Where received bytes go, in order.
pub(crate) struct Receive<'a> {
    parts: Parts,
    buffers: PhantomData<&'a mut [u8]>,
}

impl<'a> Receive<'a> {
    /// Nowhere yet.
    pub(crate) const fn new() -> Self {
        Self { parts: Parts::new(), buffers: PhantomData }
    }

    /// Into a buffer of ours. False when the list is full.
    pub(crate) fn push_buffer(&mut self, buffer: &'a mut [u8]) -> bool {
        self.parts.push(buffer.as_mut_ptr().cast(), buffer.len())
    }

    /// Into memory that the caller of the engine vouched for. False when the list is full.
    pub(crate) fn push_memory(&mut self, address: u64, length_bytes: u64) -> bool {
        self.parts.push_memory(address, length_bytes)
    }

    /// Number of bytes there is room for.
    pub(crate) fn length_bytes(&self) -> usize {
        self.parts.length_bytes
    }

    /// Receives what is there. 0 is the end of the stream, unless the list was empty.
    pub(crate) fn receive(mut self, socket: &impl AsFd) -> io::Result<usize> {
        let mut message = self.parts.message();
        // SAFETY: the message lists `length` initialised vectors that live until the call returns. Buffers are
        // borrowed mutably for as long; memory by address was vouched for by the caller of `Engine::register`
        // or `Engine::submit` and is checked by the kernel.
        outcome(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
    }
}

/// Where sent bytes come from, in order.
pub(crate) struct Send<'a> {
    parts: Parts,
    buffers: PhantomData<&'a [u8]>,
}

impl<'a> Send<'a> {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self { parts: Parts::new(), buffers: PhantomData }
    }

    /// From a buffer of ours. False when the list is full.
    pub(crate) fn push_buffer(&mut self, buffer: &'a [u8]) -> bool {
        self.parts.push(buffer.as_ptr().cast_mut().cast(), buffer.len())
    }

    /// From memory that the caller of the engine vouched for. False when the list is full.
    pub(crate) fn push_memory(&mut self, address: u64, length_bytes: u64) -> bool {
        self.parts.push_memory(address, length_bytes)
    }

    /// Number of bytes in the list.
    pub(crate) fn length_bytes(&self) -> usize {
        self.parts.length_bytes
    }

    /// Sends what the socket takes. A broken connection is an error, never a signal.
    pub(crate) fn send(mut self, socket: &impl AsFd) -> io::Result<usize> {
        let mut message = self.parts.message();
        // SAFETY: as for receiving; the kernel only reads what the vectors name.
        outcome(unsafe {
            libc::sendmsg(
                socket.as_fd().as_raw_fd(),
                &raw mut message,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        })
    }
}

/// Whether a socket has ended or has bytes that nobody asked for; `None` when it is quiet, as an idle one is.
pub(crate) fn unexpected(socket: &impl AsFd) -> Option<io::Result<usize>> {
    let mut byte = [0_u8; 1];
    // SAFETY: the buffer is one byte long and lives until the call returns.
    let result = outcome(unsafe {
        libc::recv(
            socket.as_fd().as_raw_fd(),
            byte.as_mut_ptr().cast(),
            byte.len(),
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    });
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        other => Some(other),
    }
}

/// Waits until a socket has bytes or has ended; false when the time was over first.
pub(crate) fn wait_readable(socket: &impl AsFd, limit: Duration) -> bool {
    let mut entry = libc::pollfd { fd: socket.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit_ms = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX).max(1);
    // SAFETY: one entry, which lives until the call returns, as the socket does.
    unsafe { libc::poll(&raw mut entry, 1, limit_ms) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn address(bytes: &mut [u8]) -> u64 {
        bytes.as_mut_ptr().expose_provenance() as u64
    }

    #[test]
    fn parts_are_taken_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut memory = *b"memory";
        let mut send = Send::new();
        assert!(send.push_buffer(b"head "));
        assert!(send.push_memory(address(&mut memory), 6));
        assert_eq!(send.length_bytes(), 11);
        assert_eq!(send.send(&ours).unwrap(), 11);
        let (mut first, mut second) = ([0; 7], [0; 10]);
        let mut receive = Receive::new();
        assert!(receive.push_memory(address(&mut first), 7));
        assert!(receive.push_buffer(&mut second));
        assert_eq!(receive.length_bytes(), 17);
        assert_eq!(receive.receive(&theirs).unwrap(), 11);
        assert_eq!((&first, &second[..4]), (b"head me", b"mory".as_slice()));
    }

    #[test]
    fn a_list_has_an_end_and_unmapped_memory_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut send = Send::new();
        for _ in 0..MAX_PARTS {
            assert!(send.push_buffer(b"x"));
        }
        assert!(!send.push_buffer(b"x"));
        assert_eq!(send.send(&ours).unwrap(), MAX_PARTS);
        let mut receive = Receive::new();
        assert!(receive.push_memory(1, 4));
        assert_eq!(receive.receive(&theirs).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        let mut send = Send::new();
        assert!(send.push_memory(1, 4));
        assert_eq!(send.send(&ours).unwrap_err().raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn a_quiet_socket_is_told_from_one_that_ended() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(unexpected(&ours).is_none());
        let mut send = Send::new();
        send.push_buffer(b"x");
        send.send(&theirs).unwrap();
        assert_eq!(unexpected(&ours).unwrap().unwrap(), 1);
        let mut receive = Receive::new();
        let mut byte = [0; 1];
        receive.push_buffer(&mut byte);
        receive.receive(&ours).unwrap();
        drop(theirs);
        assert_eq!(unexpected(&ours).unwrap().unwrap(), 0);
    }
}

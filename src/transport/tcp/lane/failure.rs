//! How a lane fails, in words.

use std::io;

use crate::error::{Code, Error, Stage};

pub(super) fn socket_error(text: &str) -> Error {
    Error::new(Code::Socket, Stage::Execute, format!("a data lane broke: {text}"))
}

pub(super) fn is_fault(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EFAULT)
}

pub(super) fn fault() -> Error {
    Error::new(Code::InvalidArgument, Stage::Execute, "the local memory is not mapped, or not writable")
        .advice("keep the buffers of a transfer mapped until it is over")
}

pub(super) fn io_error(error: &io::Error) -> Error {
    socket_error(&error.to_string())
}

pub(super) fn unreachable(address: std::net::SocketAddr, error: &io::Error) -> Error {
    Error::new(Code::Socket, Stage::Connect, format!("cannot connect to the data port {address}: {error}"))
        .advice("check that the peer runs and that no firewall drops the port")
}

//! Listening sockets: bound once, kept, never probed and given up.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::endpoint::random_bytes;
use crate::error::{Code, Error, Result, Stage};

/// Binds a listener to the first free port of `[min, max]`, beginning at a random one, on all addresses of both
/// families where the machine has both.
///
/// # Errors
/// [`Code::Socket`] when no port of the range is free or sockets cannot be made at all.
pub fn listen_in_range(min: u16, max: u16, backlog: i32) -> Result<std::net::TcpListener> {
    let count = u32::from(max.saturating_sub(min)).saturating_add(1);
    let start = u32::from_le_bytes(random_bytes()?) % count;
    let mut last = None;
    for step in 0..count {
        let offset = u16::try_from(start.saturating_add(step) % count).unwrap_or_default();
        match listen_on(min.saturating_add(offset), backlog) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => last = Some(error),
            // Ports below 1024 and those a firewall keeps back: the next may do.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => last = Some(error),
            Err(error) => return Err(no_listener(format!("no listening socket: {error}"))),
        }
    }
    let why = last.map(|error| error.to_string()).unwrap_or_default();
    Err(no_listener(format!("no port from {min} to {max} is free: {why}"))
        .advice("give another range by MC_MIN_RPC_PORT and MC_MAX_RPC_PORT"))
}

/// Binds a listener to one port (0: any) on all addresses of both families where the machine has both.
///
/// # Errors
/// As the kernel says.
pub fn listen_on(port: u16, backlog: i32) -> std::io::Result<std::net::TcpListener> {
    match listen_at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), backlog) {
        Ok(listener) => Ok(listener),
        // A machine without IPv6. A port in use stays in use: the other family would be a second listener.
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            listen_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), backlog)
        }
        Err(error) => Err(error),
    }
}

fn listen_at(address: SocketAddr, backlog: i32) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Without it a port whose last connections are still in TIME_WAIT could not be bound after a restart. On
    // Linux two listeners of one port exclude each other all the same.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn no_listener(text: String) -> Error {
    Error::new(Code::Socket, Stage::Configure, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_bound_port_excludes_the_next_listener() {
        let first = listen_on(0, 16).unwrap();
        let port = first.local_addr().unwrap().port();
        assert_eq!(listen_on(port, 16).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        let error = listen_in_range(port, port, 16).unwrap_err();
        assert_eq!(error.code(), Code::Socket);
        assert!(error.to_string().contains("MC_MIN_RPC_PORT"), "{error}");
        drop(first);
        assert_eq!(listen_in_range(port, port, 16).unwrap().local_addr().unwrap().port(), port);
    }

    #[test]
    fn both_families_reach_the_listener() {
        let listener = listen_on(0, 16).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }
}

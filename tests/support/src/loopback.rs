//! The loopback address that tests use: 127.0.0.1, or what `TEST_LOOPBACK` says, so that the same tests run on `::1`.
//!
//! The variable has none of the product's prefixes: an engine would report it as one that nobody reads.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};

/// The variable that names the address.
const VARIABLE: &str = "TEST_LOOPBACK";

/// The address.
///
/// # Panics
/// If the variable names no loopback address.
#[must_use]
pub fn address() -> IpAddr {
    let Ok(text) = std::env::var(VARIABLE) else { return Ipv4Addr::LOCALHOST.into() };
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => address,
        _ => panic!("{VARIABLE}={text} is no loopback address"),
    }
}

/// The address as the host of a local name: without brackets.
#[must_use]
pub fn host() -> String {
    address().to_string()
}

/// `host:port`, or `[v6]:port`: the name of a peer.
#[must_use]
pub fn session(port: u16) -> String {
    std::net::SocketAddr::new(address(), port).to_string()
}

/// The host as it stands in a URL or before a port: an IPv6 address in brackets.
#[must_use]
pub fn bracketed() -> String {
    let address = address();
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// A listener on a port of the kernel's choice.
///
/// # Panics
/// If the machine has no such address.
#[must_use]
pub fn listen() -> TcpListener {
    TcpListener::bind((address(), 0)).expect("the loopback address can be bound")
}

/// A connection to a port there.
///
/// # Panics
/// If nobody listens.
#[must_use]
pub fn connect(port: u16) -> TcpStream {
    TcpStream::connect((address(), port)).expect("somebody listens")
}

/// Whether a port is free on every address, of both families.
#[must_use]
pub fn is_free(port: u16) -> bool {
    let free =
        |place: &str| place.to_socket_addrs().is_ok_and(|mut at| at.all(|at| TcpListener::bind(at).is_ok()));
    // Without IPv6 there is nobody who could have it there.
    free(&format!("0.0.0.0:{port}"))
        && (free(&format!("[::]:{port}")) || TcpListener::bind("[::]:0").is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_peers_are_endpoints() {
        let listener = listen();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(session(port), listener.local_addr().unwrap().to_string());
        assert_eq!(session(port), format!("{}:{port}", bracketed()));
        assert!(!is_free(port));
        drop(connect(port));
    }
}

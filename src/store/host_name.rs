//! The name of a client's segments.
//!
//! A name with a port is taken as it stands, `host:port:npu_N` too. A name without one gets a port that no other
//! client of the host has: the port is held by a socket for as long as the store lives.

use std::net::TcpListener;

use crate::config::Config;
use crate::endpoint::{Endpoint, random_bytes};
use crate::error::{Code, Error, Result, Stage};

/// A name, and what keeps its port.
pub(super) struct HostName {
    text: String,
    endpoint: Endpoint,
    _held: Option<TcpListener>,
}

impl HostName {
    /// The name that `setup` was given, completed.
    pub(super) fn of(given: &str, config: &Config) -> Result<Self> {
        let endpoint: Endpoint = given.parse()?;
        if endpoint.port.is_some() {
            return Ok(Self { text: given.to_owned(), endpoint, _held: None });
        }
        let (port, held) = hold(config)?;
        let named = endpoint.with_port(port);
        let mut text = named.session();
        if let Some(npu) = endpoint.npu {
            text.push_str(&format!(":npu_{npu}"));
        }
        Ok(Self { text, endpoint: named, _held: Some(held) })
    }

    /// The name.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The host as the master tells hosts apart; empty for names that every host has.
    pub(super) fn host_id(&self) -> String {
        let host = self.endpoint.host.as_str();
        if matches!(host, "localhost" | "127.0.0.1" | "0.0.0.0" | "::1" | "::") {
            String::new()
        } else {
            host.to_owned()
        }
    }
}

/// A free port of the range and the socket that keeps it; the search begins anywhere, so that clients that start
/// together do not follow each other.
fn hold(config: &Config) -> Result<(u16, TcpListener)> {
    let (low, high) = (config.store_port_min.min(config.store_port_max), config.store_port_max);
    let count = u32::from(high.saturating_sub(low)) + 1;
    let start = u32::from_le_bytes(random_bytes()?) % count;
    for step in 0..count {
        let port = low.saturating_add(u16::try_from((start + step) % count).unwrap_or(0));
        if let Ok(socket) = TcpListener::bind(("0.0.0.0", port)) {
            return Ok((port, socket));
        }
    }
    Err(Error::new(Code::Socket, Stage::Configure, format!("no port of {low} to {high} is free"))
        .advice("widen MC_STORE_CLIENT_MIN_PORT to MC_STORE_CLIENT_MAX_PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_port_stays_as_it_is() {
        let config = Config::default();
        for name in ["10.0.0.1:8790:npu_0", "node:1", "[2001:db8::1]:12"] {
            assert_eq!(HostName::of(name, &config).unwrap().text(), name);
        }
        assert_eq!(HostName::of("node:1", &config).unwrap().host_id(), "node");
        assert_eq!(HostName::of("127.0.0.1:1", &config).unwrap().host_id(), "");
    }

    #[test]
    fn a_name_without_one_gets_a_port_of_its_own() {
        let config = Config::default();
        let (a, b) =
            (HostName::of("localhost", &config).unwrap(), HostName::of("localhost", &config).unwrap());
        assert_ne!(a.text(), b.text());
        let port: u16 = a.text().strip_prefix("localhost:").unwrap().parse().unwrap();
        assert!((12_300..=14_300).contains(&port));
        assert!(HostName::of("::1", &config).unwrap().text().starts_with("[::1]:"));
    }
}

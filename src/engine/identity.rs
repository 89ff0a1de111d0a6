//! What an engine is called and where peers reach it.
//!
//! Peer to peer, the name is the address: the caller's host and the port that was bound. With a metadata service
//! the name is the caller's text, and the address stands in the service: `MC_TCP_BIND_ADDRESS` when that is set,
//! the name's host when it is an address, else the one of our addresses by which the service is reached. The last
//! is a good choice because peers reach the service too, and it is a loopback address only when the service is on
//! this host alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::error::{Code, Error, Result, Stage};
use crate::metadata::Metadata;

/// Time for the name of the metadata service to be resolved.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// The caller's name for the engine, taken apart. With a service any text is a name.
pub(super) fn endpoint(local_name: &str, metadata: &dyn Metadata) -> Result<Endpoint> {
    match local_name.parse() {
        Err(_) if !metadata.is_peer_to_peer() && !local_name.is_empty() => {
            Ok(Endpoint { host: local_name.to_owned(), port: None, npu: None })
        }
        parsed => parsed,
    }
}

/// The name that peers open.
pub(super) fn name(local_name: &str, endpoint: &Endpoint, rpc_port: u16, metadata: &dyn Metadata) -> String {
    if metadata.is_peer_to_peer() {
        endpoint.with_port(rpc_port).session()
    } else if endpoint.npu.is_some() {
        endpoint.session()
    } else {
        local_name.to_owned()
    }
}

/// The port that the handshake listener must have, if its name says so and may.
pub(super) fn port(endpoint: &Endpoint, metadata: &dyn Metadata, config: &Config) -> Option<u16> {
    endpoint.port.filter(|port| *port != 0 && config.legacy_rpc_port && !metadata.is_peer_to_peer())
}

/// The host at which peers reach our listeners.
pub(super) fn host(endpoint: &Endpoint, metadata: &dyn Metadata, config: &Config) -> Result<String> {
    let Some(service) = metadata.address() else { return Ok(endpoint.host.clone()) };
    if config.legacy_rpc_port && endpoint.port.is_some() {
        return Ok(endpoint.host.clone());
    }
    if let Some(host) = &config.advertised_host {
        return Ok(host.clone());
    }
    if endpoint.host.parse::<IpAddr>().is_ok_and(|address| !address.is_unspecified()) {
        return Ok(endpoint.host.clone());
    }
    let mut addresses =
        service.resolve_by(service.port.unwrap_or_default(), Deadline::after(RESOLVE_LIMIT))?;
    if config.use_ipv6 {
        addresses.sort_by_key(SocketAddr::is_ipv4);
    }
    addresses.iter().find_map(|address| towards(*address)).map(|address| address.to_string()).ok_or_else(
        || {
            Error::new(
                Code::Socket,
                Stage::Configure,
                format!("no address of this host reaches {}", service.session()),
            )
            .advice("say by MC_TCP_BIND_ADDRESS how peers reach this host")
        },
    )
}

/// The address of ours from which a packet to `target` would be sent. Sends none.
fn towards(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata;

    #[test]
    fn peer_to_peer_the_name_is_the_address() {
        let config = Config::default();
        let p2p = metadata::connect("P2PHANDSHAKE", &config).unwrap();
        let parsed = endpoint("10.0.0.1:5:npu_3", &*p2p).unwrap();
        assert_eq!(name("10.0.0.1:5:npu_3", &parsed, 15_001, &*p2p), "10.0.0.1:15001");
        assert_eq!(host(&parsed, &*p2p, &config).unwrap(), "10.0.0.1");
        assert!(endpoint("", &*p2p).is_err());
    }

    #[test]
    fn with_a_service_the_name_is_the_callers_and_the_address_has_a_reason() {
        let mut config = Config::default();
        let service = metadata::connect("http://127.0.0.1:9/metadata", &config).unwrap();
        for text in ["decoder", "decoder:7", "pool/decoder", "10.1.2.3:5"] {
            let parsed = endpoint(text, &*service).unwrap();
            assert_eq!(name(text, &parsed, 15_001, &*service), text);
        }
        let host_of =
            |text: &str, config: &Config| host(&endpoint(text, &*service).unwrap(), &*service, config);
        assert_eq!(host_of("10.1.2.3:5", &config).unwrap(), "10.1.2.3");
        assert_eq!(host_of("decoder", &config).unwrap(), "127.0.0.1", "the way to the service");
        config.advertised_host = Some("10.9.9.9".into());
        assert_eq!(host_of("10.1.2.3:5", &config).unwrap(), "10.9.9.9");
        let port_of =
            |text: &str, config: &Config| port(&endpoint(text, &*service).unwrap(), &*service, config);
        assert_eq!(port_of("decoder:7", &config), None);
        config.legacy_rpc_port = true;
        assert_eq!(port_of("decoder:7", &config), Some(7));
        assert_eq!(host_of("decoder:7", &config).unwrap(), "decoder", "the name is the address");
        assert_eq!(host_of("decoder", &config).unwrap(), "10.9.9.9", "it has no port");
        let p2p = metadata::connect("P2PHANDSHAKE", &config).unwrap();
        assert_eq!(port(&endpoint("10.0.0.1:5", &*p2p).unwrap(), &*p2p, &config), None);
    }
}

//! Where descriptors are published and found, behind one trait.
//!
//! Peer to peer needs no service: the name is the address of the publisher's own handshake listener. With a
//! service ([`service`], over [`http`] or [`etcd`]) a name is any text; keys and values are upstream's, so that
//! engines of both kinds find each other.

mod etcd;
mod http;
mod keys;
mod p2p;
mod service;

pub use p2p::PeerToPeer;

use etcd::Etcd;
use http::Http;
use service::Service;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::{Endpoint, Incarnation};
use crate::error::{Code, Error, Result, Stage};
use crate::segment::SegmentDescriptor;

/// Connection string of the service that needs none.
pub const P2P_HANDSHAKE: &str = "P2PHANDSHAKE";

/// Whose place a service names under the name of an engine that announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its own.
    Known,
    /// None.
    Forgotten,
    /// Somebody else, with the name of that one's place.
    Taken(String),
}

/// A place for descriptors.
pub trait Metadata: Send + Sync {
    /// Makes `descriptor` known under its name, and again where the listener is, if that was announced and forgotten.
    ///
    /// # Errors
    /// [`Code::Metadata`] when the service does not take it, or somebody else has taken the name since it was
    /// announced; then nothing is changed.
    fn publish(&self, descriptor: &SegmentDescriptor, deadline: Deadline) -> Result<()>;

    /// The descriptor published under `name`; `None` when there is none.
    ///
    /// # Errors
    /// What the way to the service or peer fails with; [`Code::MalformedJson`] for what is no descriptor.
    fn published(&self, name: &str, deadline: Deadline) -> Result<Option<SegmentDescriptor>>;

    /// The descriptor published under `name`.
    ///
    /// # Errors
    /// [`Code::Metadata`] when there is none; else as [`Metadata::published`].
    fn fetch(&self, name: &str, deadline: Deadline) -> Result<SegmentDescriptor> {
        self.published(name, deadline)?.ok_or_else(|| {
            Error::new(Code::Metadata, Stage::Resolve, "the metadata service knows no such segment")
                .peer(name)
                .advice("check the name, and that the peer uses the same service and cluster id")
        })
    }

    /// Takes back what `incarnation` announced and published under `name`. Not an error when there is nothing; what
    /// somebody else has put there meanwhile stays.
    ///
    /// # Errors
    /// [`Code::Metadata`] when the service fails.
    fn withdraw(&self, name: &str, incarnation: &Incarnation, deadline: Deadline) -> Result<()>;

    /// Makes known where the handshake listener of `name` is. Nothing to do where the name says so itself.
    ///
    /// # Errors
    /// [`Code::Metadata`] when the service does not take it, or an engine of that name is alive.
    fn announce(&self, name: &str, host: &str, port: u16, deadline: Deadline) -> Result<()>;

    /// Where the handshake listener of `name` is.
    ///
    /// # Errors
    /// [`Code::Metadata`] when nobody has announced it.
    fn locate(&self, name: &str, deadline: Deadline) -> Result<Endpoint>;

    /// Whether the service still has what was announced under the name of this engine; a cheap look, which says
    /// nothing of the descriptor.
    ///
    /// # Errors
    /// [`Code::Metadata`] when the service fails.
    fn standing(&self, name: &str, deadline: Deadline) -> Result<Standing>;

    /// Address of the service; `None` when there is none.
    fn address(&self) -> Option<Endpoint>;

    /// Whether names are addresses of the peers themselves.
    fn is_peer_to_peer(&self) -> bool;
}

/// Why an engine whose name names another place says nothing to the service.
pub(crate) fn taken(name: &str, other: &str) -> Error {
    Error::new(
        Code::Metadata,
        Stage::Resolve,
        format!("the metadata service names {other} under this engine's name"),
    )
    .peer(name)
    .advice("give each engine a name of its own")
}

/// The service a connection string names.
///
/// # Errors
/// [`Code::NotImplemented`] for a service that is not offered, by name.
pub fn connect(uri: &str, config: &Config) -> Result<Box<dyn Metadata>> {
    if uri == P2P_HANDSHAKE {
        return Ok(Box::new(PeerToPeer::new(config.clone())));
    }
    // Upstream takes a string without a scheme as the address of an etcd.
    let scheme = uri.split_once("://").map_or("etcd", |(scheme, _)| scheme);
    let shown: String = scheme.chars().take(32).filter(|c| c.is_ascii_graphic()).collect();
    let why = match scheme {
        "http" => return Ok(Box::new(Service::new(Http::new(uri, config)?, config))),
        "etcd" if !uri.is_empty() => return Ok(Box::new(Service::new(Etcd::new(uri, config)?, config))),
        "https" | "redis" => format!("the metadata service {shown}:// is not offered"),
        _ => format!("{shown:?} is no metadata service"),
    };
    Err(Error::new(Code::NotImplemented, Stage::Configure, why)
        .advice(format!("use {P2P_HANDSHAKE}, http://host:port/metadata or etcd://host:port")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_service_is_named_exactly() {
        let config = Config::default();
        assert!(connect("P2PHANDSHAKE", &config).unwrap().is_peer_to_peer());
        for uri in ["redis://h:1", "https://h/metadata", "", "x\n://", "ftp://h"] {
            let Err(error) = connect(uri, &config) else { panic!("{uri} was taken") };
            assert_eq!(error.code(), Code::NotImplemented, "{uri}");
            assert!(error.to_string().contains("P2PHANDSHAKE"), "{error}");
        }
        for uri in ["http://h/metadata", "etcd://h:1", "h:2379", "p2phandshake"] {
            assert!(!connect(uri, &config).unwrap().is_peer_to_peer(), "{uri}");
        }
        let Err(error) = connect("redis://h:1", &config) else { panic!() };
        assert!(error.to_string().contains("redis"), "{error}");
    }
}

//! Host memory over TCP, by upstream's data protocol, in both roles.
//!
//! The server ([`session`]) takes requests from anybody and touches only memory that is registered as host
//! memory; the client ([`peer`], [`lane`]) keeps several connections to a peer and has several requests under
//! way on each. Both are driven by a few event loops ([`reactor`]), straight from and into user memory.
//!
//! The bytes are upstream's ([`wire`]): version 2 with a status frame, version 1 for peers that do not announce
//! 2, with one connection for each request and the end of the stream as the only confirmation of a write.

mod lane;
mod peer;
mod reactor;
mod session;
mod settings;
mod transfer;
pub mod wire;

use std::sync::Arc;

pub use peer::TcpPeer;
pub use settings::Settings;

use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::error::{Code, Error, Result, Stage};
use crate::handshake::bind::{listen_in_range, listen_on};
use crate::memory::ByteRange;
use crate::registry::Pin;
use crate::transport::Job;

use reactor::Reactor;

/// The memory that is served.
pub trait Served: Send + Sync {
    /// Pins the one registered region of host memory that holds the whole range; `None` when there is none.
    /// Memory of a device must never be given: the transport reads and writes what it gets.
    fn pin(&self, range: ByteRange) -> Option<Hold>;
}

/// Keeps memory registered for as long as it lives.
pub enum Hold {
    /// By a pin of its region.
    Region(Pin),
    /// By whatever its owner has for a range that is about to be withdrawn.
    Closing(Arc<dyn Send + Sync>),
}

/// Where a peer's data listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How callers name the peer.
    pub name: String,
    /// Hosts to try, in order.
    pub hosts: Vec<String>,
    /// Port of the listener.
    pub port: u16,
    /// The version of the protocol that the peer announces; 2 and above mean 2.
    pub version: u32,
}

/// The transport of one engine: its data listener and its connections to peers.
pub struct Tcp {
    settings: Arc<Settings>,
    reactor: Arc<Reactor>,
    port: u16,
}

impl Tcp {
    /// Binds the data listener and serves `served`.
    ///
    /// # Errors
    /// [`Code::Socket`] when no port is free or no event loop can be made.
    pub fn start(settings: Settings, served: Arc<dyn Served>) -> Result<Self> {
        // A range of one port, as a restart on a fixed port has it, is full once the handshake listens. The port is
        // told in the descriptor, so that any does.
        let listener =
            listen_in_range(settings.ports.0, settings.ports.1, settings.backlog).or_else(|error| {
                log::warn!("{error}; the data listener takes a port of the kernel's choice");
                listen_on(0, settings.backlog).map_err(|_| error)
            })?;
        let port = listener
            .local_addr()
            .map_err(|error| {
                Error::new(
                    Code::Socket,
                    Stage::Configure,
                    format!("the data listener has no address: {error}"),
                )
            })?
            .port();
        let reactor = Reactor::new(served, settings.progress_timeout, settings.max_sessions);
        reactor.listen(listener)?;
        Ok(Self { settings: Arc::new(settings), reactor, port })
    }

    /// Port of the data listener.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A peer that is connected to when there is work for it.
    ///
    /// # Errors
    /// [`Code::Dns`]; [`Code::Endpoint`] when the peer has no data port.
    pub fn peer(&self, target: &Target, deadline: Deadline) -> Result<Arc<TcpPeer>> {
        let addresses = resolve(target, deadline)?;
        Ok(TcpPeer::new(&target.name, addresses, self.confirms(target), &self.settings, &self.reactor))
    }

    /// The same peer anew, after its connections broke.
    #[must_use]
    pub fn again(&self, peer: &TcpPeer) -> Arc<TcpPeer> {
        TcpPeer::new(peer.name(), peer.addresses.clone(), peer.confirmed, &self.settings, &self.reactor)
    }

    /// Connects to a peer. One connection is made now, so that a peer that is not there is known at once; more
    /// come when there is work for them. To a peer without version 2 each request makes its own.
    ///
    /// # Errors
    /// [`Code::Dns`], [`Code::Socket`], [`Code::Timeout`]; [`Code::Endpoint`] when the peer has no data port.
    pub fn connect(&self, target: &Target, deadline: Deadline) -> Result<Arc<TcpPeer>> {
        let mut addresses = resolve(target, deadline)?;
        let confirmed = self.confirms(target);
        let first = if confirmed && self.settings.keep {
            let (index, stream) =
                self.first_lane(&addresses, deadline).map_err(|error| error.peer(&target.name))?;
            // Later lanes begin where this one got through.
            addresses.rotate_left(index);
            Some(stream)
        } else {
            None
        };
        let peer = TcpPeer::new(&target.name, addresses, confirmed, &self.settings, &self.reactor);
        if let Some(stream) = first {
            peer.adopt(stream, &self.reactor)?;
        }
        Ok(peer)
    }

    /// Takes a job for a peer; every extent of it is reported in the end. Never blocks on the peer.
    pub fn submit(&self, job: Job, peer: &Arc<TcpPeer>) {
        peer.submit(job);
    }

    /// Stops serving and closes every connection; what is under way fails.
    pub fn shutdown(&self) {
        self.reactor.shutdown();
    }

    /// Whether requests to the peer are confirmed.
    fn confirms(&self, target: &Target) -> bool {
        target.version >= wire::CONFIRMED_VERSION && !self.settings.force_first_version
    }

    fn first_lane(
        &self,
        addresses: &[std::net::SocketAddr],
        deadline: Deadline,
    ) -> Result<(usize, mio::net::TcpStream)> {
        let mut last = Error::new(Code::Dns, Stage::Resolve, "the peer has no address");
        for (index, address) in addresses.iter().enumerate() {
            let limit = self.settings.connect_timeout.min(deadline.remaining());
            if limit.is_zero() {
                return Err(Error::new(
                    Code::Timeout,
                    Stage::Connect,
                    format!("no time left to connect to {address}"),
                )
                .advice("give the call more time, or check that the peer's host answers"));
            }
            let connected = std::net::TcpStream::connect_timeout(address, limit).and_then(|stream| {
                stream.set_nonblocking(true)?;
                Ok(mio::net::TcpStream::from_std(stream))
            });
            match connected {
                Ok(stream) => return Ok((index, stream)),
                Err(error) => {
                    let code = if error.kind() == std::io::ErrorKind::TimedOut {
                        Code::Timeout
                    } else {
                        Code::Socket
                    };
                    let text = format!("cannot connect to the data port {address}: {error}");
                    last = Error::new(code, Stage::Connect, text)
                        .advice("check that the peer runs and that no firewall drops the port");
                }
            }
        }
        Err(last)
    }
}

/// The addresses of a peer's data listener, those of the first host first.
fn resolve(target: &Target, deadline: Deadline) -> Result<Vec<std::net::SocketAddr>> {
    if target.port == 0 {
        return Err(Error::new(Code::Endpoint, Stage::Connect, "the peer publishes no TCP data port")
            .peer(&target.name));
    }
    let mut addresses = Vec::new();
    let mut last = Error::new(Code::Dns, Stage::Resolve, "the peer has no host");
    for host in &target.hosts {
        match Endpoint::new(host, Some(target.port))
            .and_then(|endpoint| endpoint.resolve_by(target.port, deadline))
        {
            Ok(found) => addresses.extend(found),
            Err(error) => last = error,
        }
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    if addresses.is_empty() { Err(last.peer(&target.name)) } else { Ok(addresses) }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.shutdown();
    }
}

//! What one peer process lets us reach: its memory, and how we reach it.
//!
//! The peer's published buffers are held in a [`Registry`] of their own, so that transfers pin remote memory as
//! they pin local memory: when the peer withdraws a range, "nothing of ours touches it" is the same question as
//! for a range of our own, and has the same answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Shared;
use super::withdrawn::Withdrawn;
use crate::control::{Connection, Message};
use crate::deadline::Deadline;
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, Location, MemoryKind};
use crate::registry::Registry;
use crate::segment::{BufferDescriptor, DeviceMemory, SegmentDescriptor};
use crate::transport::host::{Challenge, HostPeer};
use crate::transport::tcp::{Tcp, TcpPeer};

/// How often a withdrawal looks whether our transfers are over.
const WITHDRAW_POLL: std::time::Duration = std::time::Duration::from_millis(1);

/// How a ready peer is used.
#[derive(Clone)]
pub(super) enum Link {
    /// The peer is an engine of this process; its own registry says what may be reached.
    SameProcess(Weak<Shared>),
    /// The peer is another process, of ours or of upstream.
    Remote(Arc<Remote>),
}

impl Link {
    /// Whether both are the very same link.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::SameProcess(a), Self::SameProcess(b)) => Weak::ptr_eq(a, b),
            (Self::Remote(a), Self::Remote(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Whether the peer can still be expected to be what it was. For a peer of ours the control connection tells
    /// of its end; for upstream's it is the loss of every data connection.
    ///
    /// Whoever is told of a connection's end takes the links with it out. A link that was still being made then has it
    /// all the same, and nobody tells of that end a second time: so it is looked at before each use.
    pub(super) fn is_usable(&self) -> bool {
        match self {
            Self::SameProcess(engine) => engine.upgrade().is_some_and(|engine| engine.check_usable().is_ok()),
            Self::Remote(remote) => match &remote.connection {
                Some(connection) => connection.is_alive(),
                None => remote.tcp.lock().as_ref().is_some_and(|tcp| tcp.is_usable()),
            },
        }
    }

    /// Why it is not usable.
    pub(super) fn why_unusable(&self) -> Error {
        let connection = match self {
            Self::Remote(remote) => remote.connection.as_ref(),
            Self::SameProcess(_) => None,
        };
        connection.and_then(|connection| connection.ended().cloned()).unwrap_or_else(|| {
            let what =
                if connection.is_some() { "the control connection was" } else { "all data connections were" };
            Error::new(Code::Endpoint, Stage::Connect, format!("{what} lost"))
        })
    }

    /// Whether this is the process with that incarnation.
    pub(super) fn is_process(&self, incarnation: &Incarnation) -> bool {
        matches!(self, Self::Remote(remote) if remote.incarnation.as_ref() == Some(incarnation))
    }
}

/// A peer in another process.
pub(super) struct Remote {
    /// Which process it is; `None` for upstream's.
    pub(super) incarnation: Option<Incarnation>,
    /// The control connection; `None` to upstream's.
    pub(super) connection: Option<Arc<Connection>>,
    /// Its data listener.
    tcp: Mutex<Option<Arc<TcpPeer>>>,
    /// Its memory, when it runs on this host and the kernel lets us reach it.
    pub(super) host: Option<Arc<HostPeer>>,
    /// Its published memory.
    pub(super) memory: Registry,
    /// Whether it works with a device, so that its host memory can be reached through that.
    relays: AtomicBool,
    /// What the peer has taken back.
    withdrawn: Mutex<Withdrawn>,
}

impl Remote {
    /// A peer with no memory yet; [`Remote::refresh`] says what it publishes.
    pub(super) fn new(
        process: Option<(Incarnation, Arc<Connection>)>,
        tcp: Option<Arc<TcpPeer>>,
        host: Option<Arc<HostPeer>>,
    ) -> Arc<Self> {
        let (incarnation, connection) = process.unzip();
        Arc::new(Self {
            incarnation,
            connection,
            tcp: Mutex::new(tcp),
            host,
            memory: Registry::new(),
            relays: AtomicBool::new(false),
            withdrawn: Mutex::default(),
        })
    }

    /// The peer's data listener; made anew when all connections to it are gone.
    ///
    /// # Errors
    /// [`Code::Endpoint`] when the peer has none.
    pub(super) fn tcp(&self, transport: &Tcp) -> Result<Arc<TcpPeer>> {
        let mut slot = self.tcp.lock();
        let Some(peer) = slot.as_mut() else {
            return Err(Error::new(Code::Endpoint, Stage::Submit, "the peer publishes no TCP data port"));
        };
        if !peer.is_usable() {
            *peer = transport.again(peer);
        }
        Ok(Arc::clone(peer))
    }

    /// Whether host memory of the peer is reached through a device of its.
    pub(super) fn relays(&self) -> bool {
        self.relays.load(Ordering::Acquire)
    }

    /// The process is gone: what is under way to its data listener fails.
    pub(super) fn close(&self, why: &Error) {
        let peer = self.tcp.lock().clone();
        if let Some(peer) = peer {
            peer.close(why);
        }
    }

    /// Takes over what a newer descriptor publishes. Ranges in use stay until their transfers are over.
    pub(super) fn refresh(&self, descriptor: &SegmentDescriptor) {
        let buffers = descriptor.buffers.iter().filter_map(|buffer| {
            Some((ByteRange::checked(buffer.address, buffer.length_bytes)?, kind_of(buffer)?))
        });
        let devices = descriptor.ours.iter().flat_map(|ours| &ours.memory).filter_map(|range| {
            let DeviceMemory { address, length_bytes, device } = *range;
            Some((ByteRange::checked(address, length_bytes)?, MemoryKind::Device(device)))
        });
        let mut wanted: Vec<(ByteRange, MemoryKind)> = buffers.chain(devices).collect();
        if let (Some(host), Some(ours)) = (&self.host, &descriptor.ours) {
            host.import(&ours.shared);
        }
        // Held to the end, so that a withdrawal finds either nothing of this or all of it.
        let mut withdrawn = self.withdrawn.lock();
        if let Some(ours) = &descriptor.ours {
            // The descriptor may have been on its way when the peer took ranges back.
            if !withdrawn.believes(ours.epoch) {
                log::debug!("{}: a descriptor of epoch {} came too late", descriptor.name, ours.epoch);
                return;
            }
            withdrawn.forget_before(ours.epoch);
            wanted.retain(|(range, _)| !withdrawn.overlaps(*range));
        }
        let relays = descriptor.ours.as_ref().is_some_and(|ours| !ours.devices.is_empty());
        self.relays.store(relays, Ordering::Release);
        let (_, known) = self.memory.snapshot();
        let known: BTreeSet<(ByteRange, MemoryKind)> =
            known.iter().map(|region| (region.range(), region.kind())).collect();
        let published: BTreeSet<(ByteRange, MemoryKind)> = wanted.iter().copied().collect();
        for (range, _) in known.difference(&published) {
            // Busy: a transfer still uses it, and the next refresh finds it again.
            let _ = self.memory.remove(range.start());
        }
        let mut unusable = 0_usize;
        let mut first = None;
        // In the peer's order: of two that overlap the first is taken.
        for (range, kind) in wanted.into_iter().filter(|buffer| !known.contains(buffer)) {
            if let Err(error) = self.memory.insert(range, Location::of(kind), kind) {
                unusable = unusable.saturating_add(1);
                first.get_or_insert((range, error));
            }
        }
        if let Some((range, error)) = first {
            log::warn!(
                "{} publishes {unusable} unusable buffers, the first {range}: {error}",
                descriptor.name
            );
        }
    }

    /// Forgets ranges the peer withdraws, once no transfer of ours touches them.
    ///
    /// # Errors
    /// [`Code::Busy`] when transfers still do at `deadline`; the range is then still usable.
    pub(super) fn withdraw(&self, ranges: &[(u64, u64)], epoch: u64, deadline: Deadline) -> Result<()> {
        let mut withdrawn = self.withdrawn.lock();
        for &(start, length_bytes) in ranges {
            if let Some(range) = ByteRange::checked(start, length_bytes) {
                withdrawn.add(range, epoch);
            }
        }
        drop(withdrawn);
        for &(start, length_bytes) in ranges {
            loop {
                match self.memory.remove(start) {
                    Ok(_) => break,
                    Err(error) if error.code() != Code::Busy => break,
                    Err(error) if deadline.expired() => return Err(error.range(start, length_bytes)),
                    Err(_) => std::thread::sleep(WITHDRAW_POLL),
                }
            }
        }
        Ok(())
    }
}

/// Proves that a peer runs on this host and that we may reach its memory.
///
/// # Errors
/// Why not, in words for the log.
pub(super) fn prove(
    own: &Incarnation,
    peer: &Incarnation,
    connection: &Connection,
    deadline: Deadline,
) -> Result<Arc<HostPeer>> {
    let no = |why: String| Error::new(Code::Unsupported, Stage::Connect, why);
    if !own.same_boot(peer) {
        return Err(no("it runs on another host".into()));
    }
    let challenge = Challenge::new()?;
    match connection.request(Message::Prove { challenge: challenge.hex() }, deadline)? {
        Message::Proof(place) => HostPeer::prove(peer.pid, &challenge, &place).map(Arc::new),
        _ => Err(no("it gave no proof".into())),
    }
}

/// What memory a published buffer is; `None` for one whose location we do not know.
fn kind_of(buffer: &BufferDescriptor) -> Option<MemoryKind> {
    match buffer.name.parse::<Location>() {
        Ok(Location::Npu(number)) => {
            let number = number.and_then(|number| i32::try_from(number).ok()).or(buffer.device_id)?;
            Some(MemoryKind::Device(number))
        }
        // TCP segments publish the segment's name, the wildcard is host memory: both name no device.
        _ => Some(MemoryKind::Host),
    }
}

/// The error for a peer that is no engine of this library.
pub(super) fn foreign(descriptor: &SegmentDescriptor) -> Error {
    Error::new(
        Code::NotSupportedTransport,
        Stage::Connect,
        format!(
            "the peer publishes protocol \"{}\" and is no engine of this library",
            descriptor.protocol.escape_default()
        ),
    )
    .peer(&descriptor.name)
    .advice("to upstream's engines memory moves by TCP: run them with MC_FORCE_TCP=1, or change both ends together")
}

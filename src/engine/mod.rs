//! The engine: the façade that owns everything below it.
//!
//! One engine is one segment: a name peers open, registered memory, and transfers to and from other segments.
//! The parts stand in their own files: `memory` (register, unregister), `segments` (open, refresh, probe, notes),
//! `submit` (from requests to jobs), `dispatch` (from blocks to a transport), `passive` (what peers ask of us),
//! `npu` (opening the vendor's libraries on first use), `process` (the engines of this process), `published` (the
//! entry in a metadata service), `shutdown`.
//!
//! Invariants: nothing is opened at creation but our own listeners; CANN is opened on the first use of an NPU.
//! No call waits without a deadline. After [`Engine::close`], or in a child after `fork`, every call answers
//! [`Code::StaleHandle`].

mod borrowed;
mod bounce;
mod closing;
mod dispatch;
mod drain;
mod guests;
mod huge_pages;
mod identity;
mod memory;
mod npu;
mod observed;
mod passive;
mod periodic;
mod process;
mod published;
mod remote;
mod segments;
mod shutdown;
mod submit;
mod withdrawn;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::batch::{BatchTable, MAX_BATCHES};
use crate::config::Config;
use crate::control::Control;
use crate::deadline::Deadline;
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};
use crate::handshake::Listener;
use crate::memory::{SharedMemory, process_id};
use crate::metadata::{self, Metadata};
use crate::notify::NoteQueue;
use crate::peer::Peer;
use crate::registry::Registry;
use crate::segment::{SegmentId, SegmentTable};
use crate::topology::{Links, Topology};
use crate::transport::host::{Boards, Host};
use crate::transport::local::Local;
use crate::transport::tcp::{self, Tcp};

pub use crate::batch::TaskStatus;
pub use crate::notify::Note;
pub use crate::plan::Direction;
pub use submit::TransferFailure;

use borrowed::Borrowed;
use bounce::Bouncer;
use closing::Closing;
use guests::Guests;
use huge_pages::HugePages;
use npu::Npu;
use observed::Observed;
use periodic::{Pause, Periodic};
use published::Published;
use remote::{Link, Remote};

/// How long [`Engine::close`] waits for what is in flight before it takes it down.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Where Linux lists the memory nodes.
const NODE_ROOT: &str = "/sys/devices/system/node";

/// What an engine is made from.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The metadata connection string; `P2PHANDSHAKE` for the built-in one.
    pub metadata: String,
    /// `host`, `host:port` or `host:port:npu_N`; peer-to-peer metadata keeps the host and chooses the port.
    pub local_name: String,
    /// The device (the id `aclrtSetDevice` takes) for memory whose location does not say; the calling thread's
    /// current one when `None`.
    pub device: Option<i32>,
    /// Read the machine's topology at creation.
    pub auto_discover: bool,
    /// All settings.
    pub config: Config,
}

/// One request of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Read from the peer or write to it.
    pub direction: Direction,
    /// Address in this process.
    pub local: u64,
    /// The peer's segment id; 0 is this engine itself.
    pub segment: i32,
    /// Address in the peer.
    pub remote: u64,
    /// Number of bytes; none is allowed and completes at once.
    pub length_bytes: u64,
}

/// A transport, as [`Engine::install_transport`] names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// NPU memory, by the vendor's one-sided calls.
    Ascend,
    /// Host memory, by TCP. It is always there.
    Tcp,
}

/// What a poll of one task gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskState {
    /// Waiting, completed or failed.
    pub status: TaskStatus,
    /// Bytes that have arrived.
    pub transferred_bytes: u64,
}

/// Everything an engine is, shared with its threads.
pub(crate) struct Shared {
    /// The engine itself, for what it hands to its threads.
    own: Weak<Shared>,
    pub(crate) config: Config,
    pub(crate) incarnation: Incarnation,
    /// `host:port` as peers open it.
    name: String,
    /// Where peers reach our listeners.
    host: String,
    /// Whether the metadata service holds entries of ours.
    announced: AtomicBool,
    npu_hint: Option<u32>,
    device: Option<i32>,
    metadata: Box<dyn Metadata>,
    pub(crate) registry: Registry,
    closing: Closing,
    observed: Arc<Observed>,
    borrowed: Borrowed,
    guests: Guests,
    segments: SegmentTable,
    batches: BatchTable,
    /// Threads that do something now and then.
    periodic: Mutex<Vec<Periodic>>,
    published: Published,
    notes: NoteQueue,
    peers: RwLock<HashMap<SegmentId, Arc<Peer<Link>>>>,
    /// Links to processes of ours, from before they are ready: withdrawals must reach them.
    remotes: Mutex<Vec<Weak<Remote>>>,
    listener: Mutex<Option<Listener>>,
    control: OnceLock<Control>,
    tcp: OnceLock<Tcp>,
    npu: Npu,
    local: Local,
    host_memory: Host,
    bouncer: Bouncer,
    /// What peers of this host may use of our memory.
    boards: Boards,
    /// The shared memory that registered ranges lie in, by their first address; kept as long as they are.
    shared_memory: Mutex<BTreeMap<u64, SharedMemory>>,
    /// Registered memory that is being put together into huge pages.
    huge_pages: HugePages,
    topology: Mutex<Topology>,
    closed: AtomicBool,
    /// The process that made the engine; a child after `fork` has none of its threads.
    pid: u32,
}

/// The façade; see the module.
pub struct Engine {
    shared: Arc<Shared>,
    rpc_port: u16,
}

impl Engine {
    /// Makes an engine and starts its listeners.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a name that cannot be parsed, [`Code::NotImplemented`] for a metadata
    /// service that is not offered, [`Code::Socket`] when no port of the range is free.
    pub fn new(options: EngineOptions) -> Result<Arc<Self>> {
        let EngineOptions { metadata, local_name, device, auto_discover, config } = options;
        let incarnation = Incarnation::new(config.boot_id.as_deref())?;
        let metadata = metadata::connect(&metadata, &config)?;
        let endpoint = identity::endpoint(&local_name, &*metadata)?;
        let host = identity::host(&endpoint, &*metadata, &config)?;
        let binding = match identity::port(&endpoint, &*metadata, &config) {
            Some(port) => Listener::bind_to(&config, port)?,
            None => Listener::bind(&config)?,
        };
        let rpc_port = binding.port();
        let name = identity::name(&local_name, &endpoint, rpc_port, &*metadata);
        let mut topology = Topology::default();
        if auto_discover {
            topology = Topology::discover(Path::new(NODE_ROOT));
        }
        let shared = Arc::new_cyclic(|own| Shared {
            own: Weak::clone(own),
            registry: Registry::new(),
            closing: Closing::default(),
            observed: Arc::default(),
            borrowed: Borrowed::default(),
            guests: Guests::default(),
            segments: SegmentTable::new(&name),
            batches: BatchTable::new(MAX_BATCHES),
            periodic: Mutex::default(),
            published: Published::default(),
            notes: NoteQueue::new(config.max_notes),
            peers: RwLock::default(),
            remotes: Mutex::default(),
            listener: Mutex::new(None),
            control: OnceLock::new(),
            tcp: OnceLock::new(),
            npu: Npu::default(),
            local: Local::start(&config),
            host_memory: Host::new(),
            bouncer: Bouncer::default(),
            boards: Boards::default(),
            shared_memory: Mutex::default(),
            huge_pages: HugePages::new(config.huge_pages && config.same_host && !config.force_tcp),
            topology: Mutex::new(topology),
            closed: AtomicBool::new(false),
            pid: process_id(),
            host,
            announced: AtomicBool::new(false),
            npu_hint: endpoint.npu,
            device,
            metadata,
            incarnation,
            name,
            config,
        });
        let handler = Arc::new(passive::Passive::new(Arc::downgrade(&shared)));
        let control = Control::start(
            &shared.config,
            shared.incarnation.clone(),
            &shared.name,
            Arc::clone(&handler) as Arc<dyn crate::control::Handler>,
        )?;
        // Nobody but this function sets it, so it cannot be set already.
        let _ = shared.control.set(control);
        let tcp =
            Tcp::start(tcp::Settings::of(&shared.config), Arc::clone(&handler) as Arc<dyn tcp::Served>)?;
        let _ = shared.tcp.set(tcp);
        *shared.listener.lock() = Some(binding.serve(handler)?);
        process::enter(&shared);
        if let Some(interval) = shared.config.metadata_refresh_interval {
            let pause = Pause::Exactly(interval);
            let refresh =
                Periodic::start("mct-refresh", Arc::downgrade(&shared), pause, Shared::refresh_all)?;
            shared.periodic.lock().push(refresh);
        }
        let engine = Arc::new(Self { shared, rpc_port });
        let deadline = Deadline::after(engine.shared.config.handshake_connect_timeout);
        let shared = &engine.shared;
        shared.metadata.announce(&shared.name, &shared.host, rpc_port, deadline)?;
        shared.announced.store(true, Ordering::Release);
        shared.publish(deadline)?;
        if let Some(interval) =
            shared.config.metadata_check_interval.filter(|_| !shared.metadata.is_peer_to_peer())
        {
            let pause = Pause::About(interval);
            let look = Periodic::start("mct-entry", Arc::downgrade(shared), pause, Shared::look_after_entry)?;
            shared.periodic.lock().push(look);
        }
        log::info!(
            "engine {} listens: handshake port {rpc_port}, control port {}, data port {}",
            engine.shared.name,
            engine.shared.control_port(),
            engine.shared.tcp.get().map_or(0, Tcp::port)
        );
        Ok(engine)
    }

    /// The segment name: `host:port`, an IPv6 host in brackets.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Host and handshake port, apart.
    #[must_use]
    pub fn host_and_port(&self) -> (String, u16) {
        (self.shared.host.clone(), self.rpc_port)
    }

    /// The handshake port.
    #[must_use]
    pub fn rpc_port(&self) -> u16 {
        self.rpc_port
    }

    /// Makes a transport usable now rather than at its first use; a second call gives the same answer.
    ///
    /// # Errors
    /// [`Code::NotSupportedTransport`] for a name that is not offered, [`Code::MalformedJson`] for a priority
    /// matrix that cannot be parsed, [`Code::LibraryUnavailable`] when CANN is not there.
    pub fn install_transport(&self, protocol: &str, priority_matrix: Option<&str>) -> Result<TransportKind> {
        self.shared.check_usable()?;
        if let Some(text) = priority_matrix {
            let topology = Topology::parse(text)?;
            *self.shared.topology.lock() = topology;
        }
        match protocol {
            "ascend" => self.shared.npu().map(|_| TransportKind::Ascend),
            "tcp" => Ok(TransportKind::Tcp),
            other => Err(Error::new(
                Code::NotSupportedTransport,
                Stage::Configure,
                format!("transport \"{}\" is not offered", other.escape_default()),
            )
            .advice("\"ascend\" and \"tcp\" are")),
        }
    }

    /// Makes a batch with room for `capacity` requests; none is legal.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] beyond the limits of [`crate::batch`].
    pub fn allocate_batch(&self, capacity: usize) -> Result<u64> {
        self.shared.check_usable()?;
        let asked = u32::try_from(capacity).ok().filter(|_| capacity <= self.shared.config.max_batch);
        let capacity = asked.ok_or_else(|| {
            Error::new(
                Code::TooManyRequests,
                Stage::Submit,
                format!(
                    "a batch of {capacity} requests exceeds the limit of {}",
                    self.shared.config.max_batch
                ),
            )
            .advice("split the batch, or raise MOONCAKE_TRANSFER_MAX_BATCH")
        })?;
        let id = self.shared.batches.allocate(capacity)?;
        self.shared.observed.metrics.batches_allocated.increment();
        Ok(id.raw())
    }

    /// Reads the machine's memory nodes again.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] after close.
    pub fn discover_topology(&self) -> Result<()> {
        self.shared.check_usable()?;
        *self.shared.topology.lock() = Topology::discover(Path::new(NODE_ROOT));
        Ok(())
    }

    /// The topology as upstream prints it.
    #[must_use]
    pub fn topology_json(&self) -> String {
        self.shared.links().topology.to_json().to_string()
    }

    /// The links of this engine, as JSON or for people.
    #[must_use]
    pub fn links(&self, json: bool) -> String {
        let links = self.shared.links();
        if json { links.to_json().to_string() } else { links.to_text() }
    }

    /// The engine's metrics in Prometheus' text format; the names are in [`crate::metrics`].
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.shared.refresh_gauges();
        self.shared.observed.metrics.text()
    }

    /// Ends the engine: waits a moment for what is in flight, makes the rest quiet, and stops every thread. Transfers
    /// of peers and of other engines of this process on the engine's memory end first, within bounded time; what does
    /// not is named in the log. A second call does nothing.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Refuses use after close and after `fork`.
    fn check_usable(&self) -> Result<()> {
        if self.pid != process_id() {
            return Err(Error::new(
                Code::StaleHandle,
                Stage::Configure,
                format!("this engine belongs to process {}, which forked this one", self.pid),
            )
            .advice("make a new engine in the child"));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::StaleHandle, Stage::Configure, "the engine is closed"));
        }
        Ok(())
    }

    /// Brings the gauges up to date that mirror a table.
    fn refresh_gauges(&self) {
        let metrics = &self.observed.metrics;
        let (_, regions) = self.registry.snapshot();
        let bytes =
            regions.iter().fold(0_u64, |sum, region| sum.saturating_add(region.range().length_bytes()));
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        metrics.regions.set(count(regions.len()));
        metrics.registered_bytes.set(bytes);
        metrics.batches.set(count(self.batches.len()));
        metrics.peers.set(count(self.peers.read().len()));
        metrics
            .control_connections
            .set(self.control.get().map_or(0, |control| count(control.connections().len())));
        let staged = self.npu.opened().map(|ascend| ascend.staged()).unwrap_or_default();
        metrics.staged_slots.set(staged.slots_in_use);
        metrics.staged_slots_held_back.set(staged.slots_held_back);
        metrics.staged_bytes.raise_to(staged.moved_bytes);
        metrics.by_peers_bytes.raise_to(staged.by_peers_bytes);
        metrics.staged_jobs.raise_to(staged.requests);
        metrics.channels.set(self.npu.opened().map_or(0, |ascend| count(ascend.channels().len())));
    }

    fn control_port(&self) -> u16 {
        self.control.get().map_or(0, Control::port)
    }

    fn links(&self) -> Links {
        let mut topology = self.topology.lock().clone();
        let npus = self.npu_links();
        for npu in &npus {
            topology.add_location(format!("npu:{}", npu.device));
        }
        Links { topology, npus }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

/// A weak reference to an engine, for callbacks that must not keep it alive.
pub(crate) type WeakShared = Weak<Shared>;

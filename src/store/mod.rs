//! The store client: values put into and got from a pool of host memory, found by key.
//!
//! A [`Store`] is a client of a master, which knows where objects are, and an [`Engine`], which moves them. It may
//! lend memory of its own to the pool (`segments`). The calls stand in `objects` (put and get) and `catalog` (exist,
//! size, remove); `put` and `get` hold how they work, `transfer` the one engine batch of a call, `rpc` the calls to
//! the master, `heartbeat` the sign of life.
//!
//! Invariants: a get is one call to the master and one engine batch, a put two calls and one batch, however many
//! keys. A success is given only for bytes that have arrived whole, in time. Every call has a deadline; none after
//! [`Store::close`], or in a child after `fork`, does anything. The heartbeat waits for nobody. Codes are upstream's
//! ([`ErrorCode`]); memory of a value may be registered, or not.

mod catalog;
mod failure;
mod get;
mod heartbeat;
mod host_name;
mod objects;
mod options;
mod put;
mod rpc;
mod segments;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mooncake_wire::method::{MountSegment, ReMountSegment, ServiceReady, UnmountSegment};
use mooncake_wire::model::{Tenant, Uuid};
use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::engine::{Engine, EngineOptions};
use crate::error::{Code, Error, Stage};
use crate::report::Reporter;

pub use failure::{Failure, Outcome};
pub use mooncake_wire::ErrorCode;
pub use mooncake_wire::model::{Placement, Replica, ReplicaStatus, ReplicateConfig, SoftPinAction};
pub use objects::Range;
pub use options::StoreOptions;

use heartbeat::{Heartbeat, Work};
use host_name::HostName;
use rpc::{Limits, Master, Repeat};
use segments::{Owner, Segments};
use transfer::Transfers;

/// How long [`Store::close`] waits for calls of other threads.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// How long the master has to answer when a store is closed.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);
/// Pause between two attempts of `setup` to find a master.
const SETUP_PAUSE: Duration = Duration::from_millis(100);
/// How long a look at the health may take.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);
/// Smallest segment, as upstream has it; 0 is none.
const MIN_SEGMENT_BYTES: u64 = 16 << 20;

/// The state of a store, with upstream's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The master answers.
    Healthy,
    /// The store is closed.
    Closed,
    /// No master answers.
    MasterUnreachable,
}

impl Health {
    /// Upstream's number.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Healthy => 0,
            Self::Closed => 1,
            Self::MasterUnreachable => 2,
        }
    }
}

/// What the calls work with.
pub(crate) struct Core {
    master: Arc<Master>,
    transfers: Arc<Transfers>,
    client: Uuid,
    owner: Owner,
    tenant: String,
    /// Whether values may be put from and got to memory that the caller does not name.
    staging: bool,
    failures: Reporter,
}

impl Core {
    fn tenant(&self) -> Tenant<'_> {
        Tenant(self.tenant.as_bytes())
    }

    /// Logs why a call failed, once for all its keys, and not over and over. A key that is not there is no failure.
    fn report<T>(&self, results: &[Outcome<T>]) {
        let cause = results.iter().filter_map(|result| result.as_ref().err()).find_map(Failure::cause);
        if let Some(cause) = cause {
            self.failures.report(cause);
        }
    }
}

/// A client of the pool; see the module. All methods may be called from any thread.
pub struct Store {
    core: Core,
    segments: Arc<Segments>,
    heartbeat: Heartbeat,
    /// An engine of our own ends with the store; one that was given does not.
    owns_engine: bool,
    host_name: HostName,
    /// Calls under way.
    users: Mutex<usize>,
    idle: Condvar,
    closed: AtomicBool,
    pid: u32,
}

/// A call under way: close waits for it.
struct Use<'s>(&'s Store);

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut users = self.0.users.lock();
        *users -= 1;
        if *users == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl Store {
    /// Connects to the master, lends memory to the pool and starts the heartbeat.
    ///
    /// A master that is not there yet is waited for, for `MOONCAKE_TRANSFER_STORE_SETUP_TIMEOUT_MS`.
    ///
    /// # Errors
    /// `INVALID_PARAMS` for arguments that cannot be used, and when no master could be reached; what mounting says.
    /// Nothing is left behind then.
    pub fn setup(options: StoreOptions) -> Outcome<Arc<Self>> {
        let StoreOptions { config, global_segment_size_bytes, .. } = &options;
        let invalid = |error: Error| Failure::new(ErrorCode::INVALID_PARAMS, error);
        check(&options)?;
        let deadline = Deadline::after(config.store_setup_timeout);
        let limits = Limits { call: config.rpc_timeout, connect: config.rpc_connect_timeout };
        let master = Arc::new(Master::new(&options.master_server_address, limits).map_err(invalid)?);
        let host_name = HostName::of(&options.local_hostname, config).map_err(invalid)?;
        greet(&master, deadline)?;
        let owns_engine = options.engine.is_none();
        let engine = match &options.engine {
            Some(engine) => Arc::clone(engine),
            None => engine(&options, &host_name).map_err(invalid)?,
        };
        let owner = Owner {
            name: host_name.text().to_owned(),
            // What peers open: host and port of the engine, or its name in a metadata service.
            endpoint: engine.name().to_owned(),
            protocol: options.protocol.clone(),
            host_id: host_name.host_id(),
        };
        let client = segments::new_id().map_err(invalid)?;
        let segments = Arc::new(Segments::default());
        let transfers = Arc::new(Transfers::new(Arc::clone(&engine)));
        let undo = |segments: &Segments| {
            unmount(&master, client, segments);
            segments.release(&engine);
            if owns_engine {
                engine.close();
            }
        };
        let made = install(&engine, &options)
            .and_then(|()| segments.create(&engine, &owner, *global_segment_size_bytes, config))
            .map_err(invalid)
            // Taking memory may have taken long.
            .and_then(|made| mount(&master, client, made, Deadline::after(config.store_setup_timeout)));
        let work = Work {
            master: Arc::clone(&master),
            client,
            segments: Arc::clone(&segments),
            upkeep: {
                let transfers = Arc::clone(&transfers);
                Box::new(move || {
                    transfers.stuck.look(&transfers.engine);
                })
            },
        };
        let heartbeat = match made.and_then(|()| Heartbeat::start(work).map_err(invalid)) {
            Ok(heartbeat) => heartbeat,
            Err(failure) => {
                undo(&segments);
                return Err(failure);
            }
        };
        let core = Core {
            master,
            transfers,
            client,
            owner,
            tenant: options.tenant.clone(),
            staging: options.local_buffer_size_bytes > 0,
            failures: Reporter::default(),
        };
        let store = Arc::new(Self {
            core,
            segments,
            heartbeat,
            owns_engine,
            host_name,
            users: Mutex::new(0),
            idle: Condvar::new(),
            closed: AtomicBool::new(false),
            pid: std::process::id(),
        });
        store.heartbeat.wait_for_answer(Deadline::after(config.store_setup_timeout))?;
        report(&store, *global_segment_size_bytes, &options.master_server_address);
        Ok(store)
    }

    /// The name of this client's segments: `host:port`, or what `setup` was given.
    #[must_use]
    pub fn hostname(&self) -> &str {
        self.host_name.text()
    }

    /// The engine that moves the data.
    #[must_use]
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.core.transfers.engine)
    }

    /// The id that this client has at the master.
    #[must_use]
    pub fn client_id(&self) -> Uuid {
        self.core.client
    }

    /// Whether the store can be used; asks the master.
    #[must_use]
    pub fn health(&self) -> Health {
        let Ok(_use) = self.enter() else { return Health::Closed };
        let deadline = Deadline::after(HEALTH_LIMIT);
        match self.core.master.call_by(&ServiceReady {}, Repeat::Harmless, deadline) {
            Ok(Ok(_)) => Health::Healthy,
            _ => Health::MasterUnreachable,
        }
    }

    /// Makes memory known, so that NPUs and other processes can be served from it without a search at each call.
    ///
    /// # Errors
    /// `INVALID_PARAMS` for no bytes, and for memory that is known already.
    pub fn register_buffer(&self, address: u64, length_bytes: u64) -> Outcome<()> {
        let _use = self.enter()?;
        let engine = &self.core.transfers.engine;
        engine
            .register(address, length_bytes, "*")
            .map_err(|error| Failure::new(ErrorCode::INVALID_PARAMS, error))
    }

    /// Takes back what [`Store::register_buffer`] made known.
    ///
    /// # Errors
    /// `INVALID_PARAMS` for memory that is not known, and while transfers use it.
    pub fn unregister_buffer(&self, address: u64) -> Outcome<()> {
        let _use = self.enter()?;
        let engine = &self.core.transfers.engine;
        engine.unregister(address).map_err(|error| Failure::new(ErrorCode::INVALID_PARAMS, error))
    }

    /// Waits until transfers are over that had to be given up after their deadline; tells how many go on.
    ///
    /// A call that failed with [`Code::StillRunning`] may still write the memory that it was given. When this
    /// answers 0, nothing does.
    #[must_use]
    pub fn drain(&self, timeout: Duration) -> usize {
        let deadline = Deadline::after(timeout);
        let transfers = &self.core.transfers;
        loop {
            let left = transfers.stuck.look(&transfers.engine);
            if left == 0 || deadline.expired() {
                return left;
            }
            std::thread::sleep(Duration::from_millis(5).min(deadline.remaining()));
        }
    }

    /// Ends the store: its segments leave the pool, and its memory is given back. A second call does nothing.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) || self.pid != std::process::id() {
            return;
        }
        // First the thread that would mount the segments again.
        self.heartbeat.stop();
        let master = &self.core.master;
        unmount(master, self.core.client, &self.segments);
        master.close();
        let deadline = Deadline::after(CLOSE_GRACE);
        {
            let mut users = self.users.lock();
            while *users > 0 {
                if self.idle.wait_until(&mut users, deadline.at()).timed_out() {
                    log::warn!("{} calls go on while the store is closed", *users);
                    break;
                }
            }
        }
        let engine = &self.core.transfers.engine;
        if self.owns_engine {
            engine.close();
        }
        self.segments.release(engine);
    }

    /// Begins a call.
    fn enter(&self) -> Outcome<Use<'_>> {
        let refuse = |text: String, advice: &str| {
            let error = Error::new(Code::StaleHandle, Stage::Configure, text).advice(advice);
            Err(Failure::new(ErrorCode::INVALID_PARAMS, error))
        };
        if self.pid != std::process::id() {
            let text = format!("this store belongs to process {}, which forked this one", self.pid);
            return refuse(text, "set up a new store in the child");
        }
        *self.users.lock() += 1;
        let used = Use(self);
        if self.closed.load(Ordering::Acquire) {
            drop(used);
            return refuse("the store is closed".into(), "set it up again");
        }
        Ok(used)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(options: &StoreOptions) -> Outcome<()> {
    let size = options.global_segment_size_bytes;
    if size > 0 && size < MIN_SEGMENT_BYTES {
        let text = format!("a segment of {size} bytes; 0 and {MIN_SEGMENT_BYTES} or more can be lent");
        return Err(Failure::refused(text));
    }
    if size > segments::MAX_SEGMENT_BYTES * segments::MAX_SEGMENTS as u64 {
        return Err(Failure::refused(format!("{size} bytes are more than a client can lend")));
    }
    if !matches!(options.protocol.as_str(), "tcp" | "ascend") {
        let text = format!("protocol \"{}\" is not offered", options.protocol.escape_default());
        let error = Error::new(Code::NotSupportedTransport, Stage::Configure, text)
            .advice("\"tcp\" and \"ascend\" are");
        return Err(Failure::new(ErrorCode::INVALID_PARAMS, error));
    }
    Ok(())
}

/// Says what this process lends and what the host has.
fn report(store: &Store, lent_bytes: u64, master: &str) {
    let gib = |bytes: u64| format!("{}.{:02} GiB", bytes >> 30, ((bytes % (1 << 30)) * 100) >> 30);
    let available = crate::memory::available_bytes();
    let host =
        available.map_or_else(String::new, |bytes| format!(" of {} that the host has free", gib(bytes)));
    log::info!(
        "store {} lends {}{host} to the pool; its engine is {}, its master {master}",
        store.hostname(),
        gib(lent_bytes),
        store.core.transfers.engine.name(),
    );
    if available.is_some_and(|bytes| bytes < lent_bytes) {
        log::warn!(
            "store {} lends {}, more than the host has free: memory is taken as the pool fills, and the process may \
             be killed then",
            store.hostname(),
            gib(lent_bytes),
        );
    }
}

/// An engine of the store's own.
fn engine(options: &StoreOptions, host_name: &HostName) -> crate::error::Result<Arc<Engine>> {
    Engine::new(EngineOptions {
        metadata: options.metadata_server.clone(),
        local_name: host_name.text().to_owned(),
        device: None,
        auto_discover: true,
        config: options.config.clone(),
    })
}

/// Opens what the protocol needs, on a given engine too: memory of an NPU that nobody has registered is told apart
/// from memory of the host by the vendor's library alone.
fn install(engine: &Engine, options: &StoreOptions) -> crate::error::Result<()> {
    match engine.install_transport(&options.protocol, None) {
        Err(error) if !options.config.require_npu => {
            log::warn!("protocol {}: only host memory can be moved: {error}", options.protocol);
            Ok(())
        }
        outcome => outcome.map(drop),
    }
}

/// Waits for a master.
fn greet(master: &Master, deadline: Deadline) -> Outcome<()> {
    let mut said = false;
    loop {
        let failure = match master.call_by(&ServiceReady {}, Repeat::Harmless, deadline) {
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        let cause = failure.to_error();
        // Another release, or no master at all, will not change by waiting.
        let hopeless = matches!(cause.code(), Code::RejectHandshake | Code::Dns);
        if hopeless || deadline.remaining() <= SETUP_PAUSE {
            return Err(Failure::new(ErrorCode::INVALID_PARAMS, cause));
        }
        if !std::mem::replace(&mut said, true) {
            log::warn!("waiting up to {} ms for a master: {failure}", deadline.remaining().as_millis());
        }
        std::thread::sleep(SETUP_PAUSE);
    }
}

/// Mounts segments, one call each and then all at once, which is what makes the client known.
fn mount(
    master: &Master,
    client: Uuid,
    segments: Vec<mooncake_wire::model::Segment>,
    deadline: Deadline,
) -> Outcome<()> {
    for segment in &segments {
        let call = MountSegment { segment: segment.clone(), client };
        master.call_by(&call, Repeat::Harmless, deadline)??;
    }
    if !segments.is_empty() {
        master.call_by(&ReMountSegment { segments, client }, Repeat::Harmless, deadline)??;
    }
    Ok(())
}

/// Takes the segments back at the master; one that does not answer forgets them by itself.
fn unmount(master: &Master, client: Uuid, segments: &Segments) {
    let deadline = Deadline::after(FAREWELL_LIMIT);
    for segment in segments.list() {
        let call = UnmountSegment { segment: segment.id, client };
        let outcome = master.call_by(&call, Repeat::Harmless, deadline);
        if let Err(failure) = outcome.and_then(|answer| answer.map_err(Failure::from)) {
            log::warn!("segment {} is not unmounted: {failure}", segment.name);
            break;
        }
    }
}

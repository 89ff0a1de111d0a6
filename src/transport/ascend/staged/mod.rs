//! Transfers by way of slots: gathered into one, sent to another in one piece, scattered there.
//!
//! # When
//!
//! - **Relay**: a link cannot take the memory. HCCS takes device memory in whole 2 MiB pages and no host memory, and
//!   no link takes what nobody registered. A slot is always fit, so both ends of the wire are slots.
//! - **Aggregation**: many small blocks, when `ASCEND_AGGREGATE_ENABLE` is 1: one descriptor in place of many.
//!
//! # How
//!
//! ```text
//!   blocks here --gather--> own slot ==put over the channel==> lent slot --scatter by the agent--> blocks there
//!   blocks here <-scatter-- own slot <=get over the channel=== lent slot <--gather by the agent--- blocks there
//! ```
//!
//! Each device that stages has a [`ring`]: memory set apart at the first need, registered, and so bound by every
//! channel made later. (A channel that is ready already gets a newer generation by the rule for any newer memory.) A
//! request is cut into [pieces](work) that fit a slot; the lanes of the peer's route take one piece each
//! through all steps, so that the steps of successive pieces overlap. The wire is an ordinary job of the channel.
//!
//! The agent is the other side: it lends slots of its ring (that is the credit), and copies between them and
//! memory of its engine. It speaks on the control connection:
//!
//! | message | says |
//! |---|---|
//! | `open_slot` | lend me a slot; answered by `slot_granted`, or as busy after a bounded wait |
//! | `move_slot` | scatter (or gather) slot S, use N, to (from) these blocks; answered by `slot_moved` when the bytes are on memory |
//! | `stop_slot` | stop what runs on slot S; its `move_slot` is answered when it is quiet |
//! | `release_slot` | slot S is yours again |
//! | `move_direct` | put (or get) these blocks over our channel; answered when that is over |
//! | `stop_direct` | stop that; its `move_direct` is answered when it is quiet |
//!
//! The last two are for transfers that go direct and that both ends launch, this side and the peer's agent; they use the lanes and the
//! agent, and no slots.
//!
//! # How long slots are, and how many
//!
//! GB/s of model time, written and read, of 64 MiB in blocks of 64 KiB (`bench/record/2026-11-22-amd-epyc-slots.csv`,
//! `make record-slots`); slots of the engine's own transfers, of which one peer has at most half and four at a time:
//!
//! | slots | between NPUs, a2-roce | from host memory here, a2-hccs |
//! |---|---|---|
//! | 8 of 1 MiB | 4.74, 4.73 | 4.73, 4.77 |
//! | 8 of 2 MiB | 4.91, 4.93 | 4.36, 4.56 |
//! | 8 of 4 MiB | 5.03, 5.01 | 4.60, 4.67 |
//! | 8 of 8 MiB | 4.98, 5.00 | 4.57, 4.49 |
//! | 2 of 4 MiB | 2.18, 2.22 | 2.96, 3.03 |
//! | 4 of 4 MiB | 4.12, 4.13 | 3.92, 4.11 |
//! | 16 of 4 MiB | 5.05, 5.04 | 4.61, 4.64 |
//!
//! With 8 of them gather, wire and scatter have one each, and one is on its way back: more gain nothing for one peer.
//! Longer ones than 4 MiB gain nothing either, and shorter ones cost descriptors; the relay would take 1 MiB, for 3 %.
//!
//! # Invariants
//!
//! - A slot has one owner and a number that counts its uses; a request under another number is refused.
//! - While a connection lives no word about a slot is lost: answers have room however much waits to be sent, and a
//!   slot that cannot be given back just now is given back later.
//! - No step begins before the one ahead of it is over: a put is on memory before its scatter is asked for.
//! - A request that must stop is over when its wire is quiet and the agent has answered.
//! - A peer that is lost costs its requests, and the slots lent to it until the channels with it have ended. What its
//!   agent was asked to scatter it stops when it sees the loss: until then such a write, which has failed here, may
//!   still land there. What it puts into memory of this side by order is over when the
//!   channels with it have ended.
//!
//! # Locks
//!
//! The map of routes, a route, a request's pieces, the agent's state, a ring's free slots: each alone, but for a
//! request's pieces, under which its batch is told. None is held across a vendor call or a message, with one
//! exception: a route starts its threads under its lock.

mod agent;
mod both_ends;
mod copier;
mod gate;
mod lane;
pub mod ring;
mod route;
mod station;
pub mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use self::ring::Ring;
use self::route::{Route, no_thread};
use self::station::Station;
use self::work::{Means, Work};
use super::channels::Channels;
use super::device::Device;
use super::rank::Chip;
use super::registration::Holdings;
use crate::config::Config;
use crate::control::{Answer, Connection, Message, STAGED_PROTOCOL};
use crate::deadline::Deadline;
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, MemoryKind};
use crate::plan::{Allowed, Direction, LinkClass, Slots};
use crate::transport::{Job, Request};

/// Threads of all routes of an engine.
pub const LANE_LIMIT: usize = 256;

// The model of costs counts on a thread at either end of each slot under way.
const _: () = assert!(agent::AGENT_THREADS >= route::LANES_PER_ROUTE);

/// Memory that peers may have read and written, as long as this lives.
pub struct Held {
    /// The region.
    pub range: ByteRange,
    /// What memory it is.
    pub kind: MemoryKind,
    /// Whatever keeps it registered.
    pub hold: Arc<dyn Send + Sync>,
}

/// What of this engine's memory peers may reach.
pub trait Memory: Send + Sync {
    /// Keeps the region that holds all of `range` registered; `None` when no such region is.
    fn pin(&self, range: ByteRange) -> Option<Held>;
}

/// What staging has done and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagedReport {
    /// Slots in use, for transfers of this engine and for peers.
    pub slots_in_use: u64,
    /// Slots of peers that are gone which cannot be lent again yet.
    pub slots_held_back: u64,
    /// Bytes that this engine's transfers have moved through slots.
    pub moved_bytes: u64,
    /// Bytes of this engine's transfers that peers have put or got.
    pub by_peers_bytes: u64,
    /// Requests that were taken.
    pub requests: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct RouteKey {
    device: i32,
    peer: u128,
    remote_device: i32,
}

/// The staged transfers of one engine.
pub struct Staged {
    config: Arc<Config>,
    channels: Arc<Channels>,
    holdings: Arc<Holdings>,
    memory: OnceLock<Arc<dyn Memory>>,
    stations: Mutex<BTreeMap<i32, Arc<Station>>>,
    routes: Mutex<HashMap<RouteKey, Arc<Route>>>,
    lanes: Mutex<usize>,
    lanes_changed: Condvar,
    closed: AtomicBool,
    moved_bytes: AtomicU64,
    by_peers_bytes: AtomicU64,
    requests: AtomicUsize,
}

impl Staged {
    /// Without rings and threads yet.
    #[must_use]
    pub fn new(config: &Arc<Config>, channels: &Arc<Channels>, holdings: &Arc<Holdings>) -> Arc<Self> {
        let staged = Arc::new(Self {
            config: Arc::clone(config),
            channels: Arc::clone(channels),
            holdings: Arc::clone(holdings),
            memory: OnceLock::new(),
            stations: Mutex::default(),
            routes: Mutex::default(),
            lanes: Mutex::default(),
            lanes_changed: Condvar::new(),
            closed: AtomicBool::new(false),
            moved_bytes: AtomicU64::new(0),
            by_peers_bytes: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
        });
        channels.set_relay(Arc::downgrade(&staged));
        staged
    }

    /// Whether anything can be staged at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.config.staged_slots > 0
    }

    /// Says what memory peers may reach; without it they reach none.
    pub fn serve(&self, memory: Arc<dyn Memory>) {
        // The first one stays.
        let _ = self.memory.set(memory);
    }

    /// Makes the ring of a device that will stage, so that the first channel has it bound. Without room for it the
    /// first staged transfer says so.
    pub fn expect(self: &Arc<Self>, device: &Arc<Device>) {
        if let Err(error) = self.station(device).and_then(|station| station.ring()) {
            log::warn!("{error}");
        }
    }

    /// Takes a request, to be sent by `means`, which the table of costs says takes `modelled_us`. Never waits for the
    /// peer.
    ///
    /// # Errors
    /// [`Code::NotSupportedTransport`] when staging is turned off, [`Code::StaleHandle`] after the shutdown, why the
    /// connection is over, [`Code::TooManyRequests`] without a thread. The request is not finished then.
    pub fn submit(
        self: &Arc<Self>,
        request: &Arc<Request>,
        device: &Arc<Device>,
        remote_device: i32,
        connection: &Arc<Connection>,
        means: Means,
        modelled_us: Option<f64>,
    ) -> Result<()> {
        if !self.is_on() {
            return Err(Error::new(
                Code::NotSupportedTransport,
                Stage::Submit,
                "no link takes this memory as it is, and MOONCAKE_TRANSFER_STAGED_SLOTS=0 turns the relay off",
            )
            .advice("unset it, or register 2 MiB aligned NPU memory at both ends"));
        }
        // A route of its own would be made for each request over it, with threads that end only later.
        if !connection.is_alive() {
            return Err(connection.ended().cloned().unwrap_or_else(|| {
                Error::new(Code::Socket, Stage::Submit, "the control connection to the peer is being closed")
            }));
        }
        let station = self.station(device)?;
        let key = RouteKey { device: device.id(), peer: connection.peer().incarnation.id, remote_device };
        let route = {
            let mut routes = self.routes.lock();
            if !routes.contains_key(&key) {
                // Those that came after the loss of their peer was told.
                routes.retain(|_, route| route.connection().is_alive());
            }
            let route = routes.entry(key).or_insert_with(|| Route::new(&station, connection, remote_device));
            if !route.connection().is_alive() {
                // Its end is being told of.
                *route = Route::new(&station, connection, remote_device);
            }
            Arc::clone(route)
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        route.submit(self, &Work::new(request, self.config.staged_slot_bytes, means, modelled_us))?;
        self.channels.wake_watch();
        Ok(())
    }

    /// Serves a message about slots; gives back one that is not.
    pub fn message(
        self: &Arc<Self>,
        from: &Arc<Connection>,
        message: Message,
        answer: Answer,
        device_of: impl FnOnce(i32) -> Result<Arc<Device>>,
    ) -> Option<(Message, Answer)> {
        match message {
            Message::OpenSlot { protocol, device, wait_ms } => {
                let station = if protocol == STAGED_PROTOCOL {
                    device_of(device).and_then(|device| self.lending(&device))
                } else {
                    Err(Error::new(
                        Code::Unsupported,
                        Stage::Connect,
                        format!("the peer stages by version {protocol}, this side by {STAGED_PROTOCOL}"),
                    )
                    .advice("run the same release of mooncake-transfer at both ends"))
                };
                match station {
                    Ok(station) => {
                        station.agent().open(&station, from, Duration::from_millis(wait_ms), answer);
                    }
                    Err(error) => answer.give(Err(error)),
                }
            }
            Message::MoveSlot(order) => match self.stations.lock().get(&order.device).cloned() {
                Some(station) => station.agent().move_slot(&station, from, order, answer),
                None => answer.give(Err(no_station(order.device))),
            },
            Message::MoveDirect(order) => {
                match device_of(order.device).and_then(|device| self.lending(&device)) {
                    Ok(station) => station.agent().move_direct(&station, from, order, answer),
                    Err(error) => answer.give(Err(error)),
                }
            }
            Message::StopDirect { number } => answer.give(self.stop_direct(from, number)),
            Message::StopSlot(which) => {
                answer.give(self.agent_of(which.device, |station| station.agent().stop_slot(from, which)));
            }
            Message::ReleaseSlot(which) => {
                answer.give(self.agent_of(which.device, |station| station.agent().release(from, which)));
            }
            other => return Some((other, answer)),
        }
        None
    }

    /// The same for messages that want no answer; `None` when it is about something else.
    pub fn note(&self, from: &Arc<Connection>, message: &Message) -> Option<Result<Message>> {
        match message {
            Message::StopSlot(which) => {
                Some(self.agent_of(which.device, |station| station.agent().stop_slot(from, *which)))
            }
            Message::StopDirect { number } => Some(self.stop_direct(from, *number)),
            Message::ReleaseSlot(which) => {
                Some(self.agent_of(which.device, |station| station.agent().release(from, *which)))
            }
            _ => None,
        }
    }

    /// Fails requests that wait and must stop; whether any wait.
    #[must_use]
    pub fn look(&self) -> bool {
        let routes: Vec<Arc<Route>> = self.routes.lock().values().cloned().collect();
        routes.iter().filter(|route| route.look()).count() > 0
    }

    fn stop_direct(&self, from: &Arc<Connection>, number: u64) -> Result<Message> {
        let stations: Vec<Arc<Station>> = self.stations.lock().values().cloned().collect();
        for station in stations {
            station.agent().stop_direct(from, number);
        }
        // One that is over already has been answered.
        Ok(Message::Done)
    }

    fn agent_of(&self, device: i32, serve: impl FnOnce(&Station) -> Result<()>) -> Result<Message> {
        let station = self.stations.lock().get(&device).cloned().ok_or_else(|| no_station(device))?;
        serve(&station).map(|()| Message::Done)
    }

    fn lending(self: &Arc<Self>, device: &Arc<Device>) -> Result<Arc<Station>> {
        if !self.is_on() {
            let text = "this engine lends no slots: MOONCAKE_TRANSFER_STAGED_SLOTS is 0";
            return Err(Error::new(Code::NotSupportedTransport, Stage::Connect, text));
        }
        self.station(device)
    }

    fn station(self: &Arc<Self>, device: &Arc<Device>) -> Result<Arc<Station>> {
        let mut stations = self.stations.lock();
        // Under the lock that the shutdown takes them out under.
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::StaleHandle, Stage::Submit, "the engine was shut down"));
        }
        let station = stations
            .entry(device.id())
            .or_insert_with(|| Station::new(Arc::downgrade(self), device, self.turns(device)));
        Ok(Arc::clone(station))
    }

    /// The peer is gone. `worker` is the number of the last thread that may run a channel with it.
    pub fn peer_lost(&self, peer: &Incarnation, worker: u64, why: &Error) {
        let lost: Vec<Arc<Route>> = {
            let mut routes = self.routes.lock();
            let keys: Vec<RouteKey> = routes
                .iter()
                .filter(|(key, route)| key.peer == peer.id && !route.connection().is_alive())
                .map(|(key, _)| *key)
                .collect();
            keys.iter().filter_map(|key| routes.remove(key)).collect()
        };
        for route in lost {
            route.close(why);
        }
        let stations: Vec<Arc<Station>> = self.stations.lock().values().cloned().collect();
        for station in stations {
            station.agent().peer_lost(peer.id, worker);
        }
    }

    /// What it has done and holds.
    #[must_use]
    pub fn report(&self) -> StagedReport {
        let stations: Vec<Arc<Station>> = self.stations.lock().values().cloned().collect();
        let mut report = StagedReport {
            moved_bytes: self.moved_bytes.load(Ordering::Relaxed),
            by_peers_bytes: self.by_peers_bytes.load(Ordering::Relaxed),
            requests: u64::try_from(self.requests.load(Ordering::Relaxed)).unwrap_or(u64::MAX),
            ..StagedReport::default()
        };
        for station in stations {
            let counts = station.agent().counts();
            let own = station.ring_if_made().map_or(0, |ring| u64::from(ring.used()));
            report.slots_in_use = report.slots_in_use.saturating_add(counts.lent).saturating_add(own);
            report.slots_held_back = report.slots_held_back.saturating_add(counts.held_back);
        }
        report
    }

    /// Threads that start copies on a device at a time: one, where its launches are in one row.
    fn turns(&self, device: &Device) -> usize {
        let class = match device.chip() {
            Chip::A3 => LinkClass::A3Hccs,
            Chip::A2 | Chip::Other => LinkClass::A2Hccs,
        };
        if self.channels.costs().costs(class).launches_per_device { 1 } else { route::LANES_PER_ROUTE }
    }

    /// What the choice of a route has to know about slots.
    #[must_use]
    pub fn slots(&self) -> Slots {
        slots_of(&self.config)
    }

    /// Takes nothing more, and asks all threads to end.
    pub fn stop(&self) {
        let stations: Vec<Arc<Station>> = {
            let stations = self.stations.lock();
            self.closed.store(true, Ordering::Release);
            stations.values().cloned().collect()
        };
        let why = Error::new(Code::Cancelled, Stage::Drain, "the engine was shut down");
        let routes: Vec<Arc<Route>> = self.routes.lock().drain().map(|(_, route)| route).collect();
        for route in routes {
            route.close(&why);
        }
        for station in stations {
            station.agent().stop();
        }
    }

    /// Waits for the threads, and gives the rings back, once their channels have ended.
    ///
    /// # Errors
    /// [`Code::StillRunning`] at the deadline; the rings stay then.
    pub fn wait_stopped(&self, deadline: Deadline) -> Result<()> {
        let running = |what: &str| Error::new(Code::StillRunning, Stage::Drain, what.to_owned());
        let mut lanes = self.lanes.lock();
        while *lanes > 0 {
            if self.lanes_changed.wait_until(&mut lanes, deadline.at()).timed_out() {
                return Err(running("staged transfers are still running"));
            }
        }
        drop(lanes);
        let stations = self.stations.lock().clone();
        for station in stations.values() {
            if !station.agent().wait_stopped(deadline) {
                return Err(running("the relay agent still copies for a peer"));
            }
        }
        Ok(())
    }

    /// Takes the rings out; their memory goes back when their registrations have.
    #[must_use]
    pub fn take_rings(&self) -> Vec<Arc<Ring>> {
        let stations = std::mem::take(&mut *self.stations.lock());
        stations.values().filter_map(|station| station.take_ring()).collect()
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn make_ring(&self, device: &Arc<Device>) -> Result<Arc<Ring>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::StaleHandle, Stage::Submit, "the engine was shut down"));
        }
        Ring::make(device, &self.config, &self.holdings)
    }

    fn pin(&self, range: ByteRange) -> Option<Held> {
        self.memory.get()?.pin(range)
    }

    /// Gives a request to a channel that is ready.
    fn push_to(&self, peer: u128, channel: &str, request: Arc<Request>) -> Result<()> {
        self.channels.push_to(peer, channel, request)
    }

    fn channels_run(&self, peer: u128, worker: u64) -> bool {
        self.channels.has_worker(peer, worker)
    }

    fn count(&self, bytes: u64) {
        self.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_by_peer(&self, bytes: u64) {
        self.by_peers_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Hands a piece to the channel; its batch tells of the end.
    fn put_on_wire(&self, job: Job, route: &Route) {
        let request = Request::new(job);
        let device = route.station().device();
        let submitted = self.channels.submit(&request, device, route.remote_device(), route.connection());
        if let Err(error) = submitted {
            request.fail(&error);
        }
    }

    /// Runs a lane on a thread of its own.
    fn start_lane(self: &Arc<Self>, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut lanes = self.lanes.lock();
        if *lanes >= LANE_LIMIT {
            return Err(no_thread("as many as may be run already"));
        }
        let staged = Arc::clone(self);
        std::thread::Builder::new()
            .name("mct-staged".into())
            .spawn(move || {
                let counted = Counted(&staged);
                run();
                drop(counted);
            })
            .map_err(|error| no_thread(&error.to_string()))?;
        *lanes = lanes.saturating_add(1);
        Ok(())
    }
}

/// What the choice of a route has to know about the slots that these settings make.
#[must_use]
pub fn slots_of(config: &Config) -> Slots {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Slots {
        slot_bytes: config.staged_slot_bytes,
        count: count(route::LANES_PER_ROUTE).min(config.staged_slots.div_ceil(2)),
    }
}

/// The ways that these settings leave to a transfer over a link of this kind, which takes the memory or does not.
#[must_use]
pub fn allowed(config: &Config, class: LinkClass, direction: Direction, takes_memory: bool) -> Allowed {
    if !takes_memory {
        Allowed::Staged
    } else if !config.ascend_aggregate || config.staged_slots == 0 {
        Allowed::Direct
    } else if config.both_ends && (direction == Direction::Write || class.is_roce()) {
        Allowed::Any
    } else {
        Allowed::Either
    }
}

/// Counts a lane out, also when it ends by a defect.
struct Counted<'a>(&'a Staged);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut lanes = self.0.lanes.lock();
        *lanes = lanes.saturating_sub(1);
        drop(lanes);
        self.0.lanes_changed.notify_all();
    }
}

fn no_station(device: i32) -> Error {
    Error::new(
        Code::InvalidArgument,
        Stage::Execute,
        "the relay agent refuses: no slot of this device was lent",
    )
    .device(device)
}

/// How requests that a channel cannot take find their way here.
pub type Relay = Weak<Staged>;

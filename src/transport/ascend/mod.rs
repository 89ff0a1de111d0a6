//! NPU to NPU through HCCL's one-sided calls.
//!
//! # How a job runs
//!
//! [`Ascend::submit`] looks for a ready [`channel`] to the peer's device whose memory covers the job, and
//! queues it there. Otherwise the job waits in the pair's slot while a new generation of the channel is made: the
//! two engines exchange rank and regions over the control connection, then both make a two-rank communicator, bind
//! their regions and prepare it. Each channel has a worker thread of its own, which submits at most 256 descriptors
//! a call with several calls in flight, and learns of their end by events.
//!
//! # Releases of CANN
//!
//! Every release from 8.1 on is served by what it has: memory registered per device, or with each channel before 8.3
//! ([`family`]; the two sides agree); ids and attributes of devices by the public interface, or by the inner runtime before
//! 8.5; copies with the host in batches from 8.2 on, else one by one. Where a release has neither, the error names the
//! function and the release that has it. Which release first has what is inferred for the functions that no public
//! header shows.
//!
//! # Threads
//!
//! - `mct-npu-N`, one per device and process: registers memory, with the device bound.
//! - `mct-channel-N`, one per channel: makes it, submits to it, completes and ends it. A vendor call that hangs on a
//!   dead peer stalls that channel and nothing else.
//! - `mct-ascend`: ends jobs whose deadline passes while they wait for a channel.
//!
//! # Locks, in this order
//!
//! `channels` (the map of slots), a slot's state, a channel's state, a device's regions. None is held across a
//! vendor call or a message; the one exception is the process-wide lock around a communicator's init, which the
//! vendor does not support at the same time.
//!
//! # Invariants
//!
//! The memory of a channel is frozen when it is prepared. A job that needs newer memory gets a new generation, and
//! the old one ends when its transfers have. A failed stream costs its channel, nothing else.

pub mod rank;
pub mod raw;
pub mod result;

mod channel;
mod channels;
mod costs;
mod described;
pub(crate) mod device;
mod direct;
mod family;
mod opening;
pub(in crate::transport) mod print;
mod registration;
pub(in crate::transport) mod session;
mod slot;
pub mod staged;
mod worker;
mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use channels::ChannelReport;
pub use rank::{Chip, Link};
pub use raw::Runtime;
pub use registration::{HCCS_ALIGNMENT_BYTES, REGION_COUNT_LIMIT, REGION_LIMIT_BYTES};

use self::channels::Channels;
use self::device::Device;
use self::raw::PointerKind;
use self::registration::{Holding, Holdings, Links};
use self::slot::Key;
use self::staged::work::Means;
use self::staged::{Memory, Staged, StagedReport};
use super::request::Request;
use super::{Job, Route};
use crate::config::Config;
use crate::control::{Answer, ChannelAnswer, ChannelOffer, Connection, Message};
use crate::deadline::Deadline;
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, MemoryKind};
use crate::plan::{self, Choice, Group, Side, choose};

/// How long a registration may take; the vendor's call is bookkeeping, but it may queue behind others.
const REGISTER_LIMIT: Duration = Duration::from_secs(60);

/// The NPU transport of one engine.
pub struct Ascend {
    runtime: Arc<Runtime>,
    config: Arc<Config>,
    channels: Arc<Channels>,
    devices: Mutex<BTreeMap<i32, Arc<Device>>>,
    holdings: Arc<Holdings>,
    staged: Arc<Staged>,
}

impl Ascend {
    /// Makes the transport; touches no device yet.
    ///
    /// # Errors
    /// [`Code::LibraryUnavailable`] when the loaded CANN lacks a function that every transfer needs, naming it and
    /// the release that has it; [`Code::Internal`] when no thread can be had.
    pub fn start(runtime: Arc<Runtime>, config: &Config, incarnation: Incarnation) -> Result<Self> {
        runtime.require_one_sided()?;
        let config = Arc::new(config.clone());
        let holdings: Arc<Holdings> = Arc::default();
        let channels = Channels::start(Arc::clone(&config), incarnation, Arc::clone(&holdings))?;
        let staged = Staged::new(&config, &channels, &holdings);
        Ok(Self { runtime, config, channels, devices: Mutex::default(), holdings, staged })
    }

    /// The vendor's functions.
    #[must_use]
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// The device to work with: the one the calling thread has bound, else the one whose physical number is `npu`.
    ///
    /// # Errors
    /// [`Code::Context`] when neither is there, [`Code::InvalidArgument`] when they are different devices, naming
    /// both, [`Code::DeviceNotFound`] when this process does not see `npu`.
    pub fn device_for_caller(&self, npu: Option<u32>) -> Result<i32> {
        device::for_caller(&self.runtime, npu)
    }

    /// Opens a device; the first one is the default of jobs and offers that name none.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn attach(&self, device: i32) -> Result<()> {
        self.device(device).map(drop)
    }

    /// The devices that were opened.
    #[must_use]
    pub fn devices(&self) -> Vec<i32> {
        self.devices.lock().keys().copied().collect()
    }

    /// The host's number of an opened device.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn physical_device(&self, device: i32) -> Result<u32> {
        self.device(device).map(|device| device.physical())
    }

    /// What memory an address belongs to; memory the vendor does not know counts as the host's.
    ///
    /// # Errors
    /// [`Code::LibraryUnavailable`] when the vendor's function is missing.
    pub fn classify(&self, address: u64) -> Result<MemoryKind> {
        classify(&self.runtime, address)
    }

    /// Registers a range with the vendor, so that channels made from now on can move it.
    ///
    /// Memory of the host is registered with `device` only if a link of it can be RoCE; HCCS takes none. Whether
    /// that was so is the answer.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] with address and remainder when no link of the device can take the range, else what
    /// the vendor says.
    pub fn register(&self, range: ByteRange, kind: MemoryKind, device: i32) -> Result<bool> {
        let device = self.device(device)?;
        let links = self.links(&device);
        if kind == MemoryKind::Host && !links.roce {
            return Ok(false);
        }
        let holding = Holding::acquire(&device, range, links, Deadline::after(REGISTER_LIMIT))?;
        // Memory that will be staged: with the ring there already, no channel has to be made twice for it.
        if links.relay && (self.config.ascend_aggregate || (links.hccs && !holding.fits_hccs())) {
            self.staged.expect(&device);
        }
        // The engine's registry refuses overlaps; the same start twice replaces the earlier holding, which ends.
        drop(self.holdings.insert(range.start(), holding));
        Ok(true)
    }

    /// Takes a range back. Channels that have it bound end on both sides, unless another registration shares its
    /// pages; jobs that wait or run on them go on over a new channel.
    ///
    /// # Errors
    /// [`Code::Busy`] when a channel could not be ended by the deadline; the range is withdrawn all the same, and
    /// deregistered as soon as that channel ends.
    pub fn unregister(&self, range: ByteRange, device: i32, deadline: Deadline) -> Result<()> {
        let Some(holding) = self.holdings.remove(device, range.start()) else { return Ok(()) };
        let device = Arc::clone(holding.device());
        let withdrawn = holding.release();
        if withdrawn.is_empty() {
            return Ok(());
        }
        self.channels.retire_local(device.id(), &withdrawn);
        registration::wait_gone(&device, &withdrawn, deadline)
    }

    /// Takes a job for the peer at the other end of `connection`. Never waits for the peer: the job is finished
    /// later, by its deadline, through its submission.
    ///
    /// # Errors
    /// [`Code::Context`] when no device is open, [`Code::StaleHandle`] after [`shutdown`](Self::shutdown). The job is
    /// finished as failed then.
    pub fn submit(&self, job: Job, connection: &Arc<Connection>) -> Result<()> {
        let device = match job.local_device {
            Some(id) => self.device(id),
            None => self.default_device(),
        };
        let device = match device {
            Ok(device) => device,
            Err(error) => {
                Request::new(job).fail(&error);
                return Err(error);
            }
        };
        let remote = job.remote_device.unwrap_or(channels::ANY_DEVICE);
        let choice = self.choose(&job, &device, remote, connection);
        if let Some(choice) = &choice {
            log::debug!("{}: {choice}", job.peer);
        }
        match choice {
            Some(choice) if choice.route == plan::Route::Staged => {
                let means = Means::Slots(Some(choice.fill));
                self.submit_staged(job, &device, remote, connection, means, Some(choice.chosen_us))
            }
            Some(choice) if choice.route == plan::Route::BothEnds => {
                self.submit_staged(job, &device, remote, connection, Means::BothEnds, Some(choice.chosen_us))
            }
            Some(choice) if choice.route == plan::Route::Split => {
                let (staged, direct) = split(job, &choice);
                let means = Means::Slots(Some(choice.fill));
                // The numbers of a choice are about the whole group.
                let taken = self.submit_staged(staged, &device, remote, connection, means, None);
                self.submit_direct(direct, &device, remote, connection).and(taken)
            }
            _ if job.route == Route::Staged => {
                self.submit_staged(job, &device, remote, connection, Means::Slots(None), None)
            }
            _ => self.submit_direct(job, &device, remote, connection),
        }
    }

    fn submit_direct(
        &self,
        job: Job,
        device: &Arc<Device>,
        remote_device: i32,
        connection: &Arc<Connection>,
    ) -> Result<()> {
        let request = Request::new(job);
        self.channels
            .submit(&request, device, remote_device, connection)
            .inspect_err(|error| request.fail(error))
    }

    fn submit_staged(
        &self,
        job: Job,
        device: &Arc<Device>,
        remote_device: i32,
        connection: &Arc<Connection>,
        means: Means,
        modelled_us: Option<f64>,
    ) -> Result<()> {
        let request = Request::new(job);
        self.staged
            .submit(&request, device, remote_device, connection, means, modelled_us)
            .inspect_err(|error| request.fail(error))
    }

    /// What the costs say about a job that may go by slots; `None` for one that may not, and as long as the costs are
    /// not known.
    fn choose(&self, job: &Job, device: &Device, remote: i32, connection: &Connection) -> Option<Choice> {
        let takes_memory = match job.route {
            Route::Staged => false,
            Route::Any if self.config.ascend_aggregate => true,
            Route::Any | Route::Wire => return None,
        };
        if !self.staged.is_on() {
            return None;
        }
        let key =
            Key { local_device: device.id(), peer: connection.peer().incarnation.id, remote_device: remote };
        // Before there is a channel nobody knows what the link is.
        let costs = self.channels.ready_costs(key)?;
        let allowed = staged::allowed(&self.config, costs.class, job.direction, takes_memory);
        let side = |device: Option<i32>| if device.is_some() { Side::Device } else { Side::Host };
        let group = Group {
            extents: &job.extents,
            direction: job.direction,
            local: side(job.local_device),
            remote: side(job.remote_device),
        };
        Some(choose(&costs, &self.staged.slots(), &group, allowed))
    }

    /// Answers a peer that wants a channel; the channel itself is made on a thread of its own.
    ///
    /// # Errors
    /// [`Code::Busy`] when this side has made an offer of its own that goes first, else why it cannot be.
    pub fn offer(&self, from: &Arc<Connection>, offer: ChannelOffer) -> Result<ChannelAnswer> {
        let device = self.device_of_offer(offer.target_device)?;
        self.channels.offer(from, &device, offer)
    }

    /// Says what memory of the engine peers may reach by way of slots; without it they reach none.
    pub fn serve(&self, memory: Arc<dyn Memory>) {
        self.staged.serve(memory);
    }

    /// What staging has done and what it holds.
    #[must_use]
    pub fn staged(&self) -> StagedReport {
        self.staged.report()
    }

    /// Serves a request of a peer about slots, which may be answered later; gives back one that is about something
    /// else.
    pub fn slot_request(
        &self,
        from: &Arc<Connection>,
        message: Message,
        answer: Answer,
    ) -> Option<(Message, Answer)> {
        self.staged.message(from, message, answer, |id| self.device_of_offer(id))
    }

    /// A device of the engine that a peer names; peers make it open no others.
    fn device_of_offer(&self, id: i32) -> Result<Arc<Device>> {
        if id == channels::ANY_DEVICE {
            return self.default_device();
        }
        self.devices.lock().get(&id).cloned().ok_or_else(|| {
            let text = format!("this engine does not use device {id}");
            Error::new(Code::DeviceNotFound, Stage::Connect, text).device(id)
        })
    }

    /// Handles a message of the control connection; `None` when it is not about channels.
    pub fn message(&self, from: &Arc<Connection>, message: Message) -> Option<Result<Message>> {
        if let Some(served) = self.staged.note(from, &message) {
            return Some(served);
        }
        match message {
            Message::OpenChannel(offer) => Some(self.offer(from, offer).map(Message::ChannelAccepted)),
            Message::ChannelBound { channel } => {
                self.channels.peer_bound(from, &channel);
                Some(Ok(Message::Done))
            }
            Message::ChannelReady { .. } => Some(Ok(Message::Done)),
            Message::ChannelFailed { channel, reason } => {
                self.channels.peer_failed(from, &channel, &reason);
                Some(Ok(Message::Done))
            }
            Message::CloseChannel { channel } => {
                self.channels.peer_closed(from, &channel);
                Some(Ok(Message::Done))
            }
            _ => None,
        }
    }

    /// The peer is gone: what waits or runs for it fails, and nothing else.
    pub fn peer_lost(&self, peer: &Incarnation, why: &Error) {
        let last = self.channels.peer_lost(peer, why);
        self.staged.peer_lost(peer, last, why);
    }

    /// The peer takes `ranges` of its memory back: jobs for them that have not begun fail, and those that run are
    /// waited for. The engine's descriptor of the peer must not resolve the ranges any more when this is called.
    ///
    /// # Errors
    /// [`Code::Busy`] when transfers still touch them at the deadline.
    pub fn withdraw(&self, peer: &Incarnation, ranges: &[ByteRange], deadline: Deadline) -> Result<()> {
        self.channels.withdraw(peer, ranges, deadline)
    }

    /// The channels there are, for reports.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelReport> {
        self.channels.report()
    }

    /// Ends everything: waiting jobs fail as cancelled, running ones are drained, memory is given back.
    ///
    /// # Errors
    /// [`Code::StillRunning`] when something the transport started is still running at the deadline.
    pub fn shutdown(&self, deadline: Deadline) -> Result<()> {
        self.staged.stop();
        let ended = self.channels.shutdown(deadline);
        let ended = ended.and(self.staged.wait_stopped(deadline));
        // The rings' memory goes back behind their registrations, unless something may still use it.
        let rings = self.staged.take_rings();
        drop(self.holdings.take_all());
        if ended.is_err() {
            std::mem::forget(rings);
        }
        self.devices.lock().clear();
        ended
    }

    fn device(&self, id: i32) -> Result<Arc<Device>> {
        if let Some(device) = self.devices.lock().get(&id) {
            return Ok(Arc::clone(device));
        }
        self.channels.check_open()?;
        let device = Device::open(&self.runtime, id)?;
        let mut devices = self.devices.lock();
        if devices.is_empty() {
            self.channels.set_default_device(id);
        }
        Ok(Arc::clone(devices.entry(id).or_insert(device)))
    }

    fn default_device(&self) -> Result<Arc<Device>> {
        let id = self.channels.default_device().ok_or_else(|| {
            Error::new(Code::Context, Stage::Submit, "the engine uses no device yet")
                .advice("register NPU memory first, or name the device as host:port:npu_N")
        })?;
        self.device(id)
    }

    fn links(&self, device: &Device) -> Links {
        Links::of(device, &self.config)
    }
}

/// See [`Ascend::classify`].
///
/// # Errors
/// As there.
pub fn classify(runtime: &Runtime, address: u64) -> Result<MemoryKind> {
    Ok(match runtime.pointer_kind(address)? {
        PointerKind::Host { .. } => MemoryKind::Host,
        PointerKind::Device { device, .. } => MemoryKind::Device(device),
    })
}

/// The short extents of a job, which go by slots, and the others.
fn split(job: Job, choice: &Choice) -> (Job, Job) {
    let (short, long) = job.extents.iter().partition(|extent| choice.is_staged(extent.length_bytes));
    let staged = Job {
        direction: job.direction,
        extents: short,
        submission: Arc::clone(&job.submission),
        pins: job.pins.clone(),
        deadline: job.deadline,
        local_device: job.local_device,
        remote_device: job.remote_device,
        route: Route::Staged,
        peer: Arc::clone(&job.peer),
    };
    (staged, Job { extents: long, ..job })
}

impl Drop for Ascend {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown(Deadline::after(self.config.drain_grace)) {
            log::warn!("{error}");
        }
    }
}

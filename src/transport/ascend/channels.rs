//! The channels of one engine: one slot per pair of devices, with the ready channel, the one being made, and the
//! jobs that wait for it.
//!
//! # Generations
//!
//! The memory of a channel is frozen. A request that the ready channel does not cover waits while the next
//! generation is made; when that is ready it takes over, and the old one is retired. A request that two openings in
//! a row did not cover fails.
//!
//! # Crossing offers
//!
//! Both sides may want the channel at once. The lower end of the pair goes first: it refuses the other's offer as
//! busy, and the other, which finds the lower one's offer while its own is out, takes that and forgets its own.
//!
//! Waiting requests are bounded by the tasks that batches may have, and a request is refused only when the engine is
//! shut down; channels and their threads are bounded by [`CHANNEL_LIMIT`] and [`WORKER_LIMIT`](super::workers::WORKER_LIMIT).
//!
//! Invariants: a slot has at most one opening; a request is in a slot or in a channel, never in both; requests are
//! failed and channels are made with no lock held.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::channel::{Channel, Close};
use super::device::Device;
use super::opening::{Opening, Role};
use super::registration::Holdings;
use super::session::Session;
use super::slot::{Key, Slot, Waiting};
use super::staged::Relay;
use super::staged::work::Means;
use super::worker;
use super::workers::Workers;
use crate::config::Config;
use crate::control::{ChannelAnswer, ChannelKey, ChannelOffer, Connection, Message};
use crate::deadline::Deadline;
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::plan::{CostTable, LinkCosts};
use crate::report::Reporter;
use crate::transport::Request;

/// In an offer: whichever device the other side works with.
pub const ANY_DEVICE: i32 = -1;

/// Channels with one device that may be ready at once; the vendor's own library allows 512. The one that was idle
/// longest ends when another is needed.
pub const CHANNEL_LIMIT: usize = 256;

/// Openings in a row that may fail to cover a request.
const TRIES: u32 = 2;

/// How often jobs that wait are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// One channel, for reports.
#[derive(Clone, Debug)]
pub struct ChannelReport {
    /// The communicator's name.
    pub name: String,
    /// This side's device.
    pub local_device: i32,
    /// The peer's incarnation.
    pub peer: u128,
    /// The peer's device.
    pub remote_device: i32,
    /// HCCS or RoCE.
    pub link: &'static str,
    /// Requests that it has.
    pub load: usize,
}

/// The channels of one engine.
pub struct Channels {
    config: Arc<Config>,
    costs: CostTable,
    incarnation: Incarnation,
    holdings: Arc<Holdings>,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    default_device: AtomicI32,
    closed: AtomicBool,
    /// Threads that make or run channels now, and who waits for their end.
    workers: Mutex<Workers>,
    workers_changed: Condvar,
    /// Whether jobs wait somewhere, so that the watch has to look.
    watched: Mutex<bool>,
    watch: Condvar,
    failures: Reporter,
    /// Who takes requests that no link can take as they are.
    relay: OnceLock<Relay>,
}

impl Channels {
    /// Starts the watch over waiting jobs.
    ///
    /// # Errors
    /// [`Code::Internal`] when no thread can be had.
    pub fn start(
        config: Arc<Config>,
        incarnation: Incarnation,
        holdings: Arc<Holdings>,
    ) -> Result<Arc<Self>> {
        let channels = Arc::new(Self {
            costs: super::costs::table(&config),
            config,
            incarnation,
            holdings,
            slots: Mutex::default(),
            default_device: AtomicI32::new(ANY_DEVICE),
            closed: AtomicBool::new(false),
            workers: Mutex::default(),
            workers_changed: Condvar::new(),
            watched: Mutex::new(false),
            watch: Condvar::new(),
            failures: Reporter::default(),
            relay: OnceLock::new(),
        });
        let watcher = Arc::clone(&channels);
        std::thread::Builder::new()
            .name("mct-ascend".into())
            .spawn(move || watcher.keep_watch())
            .map_err(|error| Error::new(Code::Internal, Stage::Load, format!("no thread: {error}")))?;
        Ok(channels)
    }

    /// Makes sure that nothing was shut down yet.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] if it was.
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::StaleHandle, Stage::Submit, "the engine was shut down"));
        }
        Ok(())
    }

    /// Says who takes requests that no link can take as they are; the first one stays.
    pub fn set_relay(&self, relay: Relay) {
        let _ = self.relay.set(relay);
    }

    /// Hands a request over that the link cannot take.
    fn relay(&self, slot: &Slot, request: &Arc<Request>, refusal: &Error) {
        let relay = self.relay.get().and_then(Relay::upgrade).filter(|relay| relay.is_on());
        let outcome = match relay {
            Some(relay) => relay.submit(
                request,
                slot.device(),
                slot.key().remote_device,
                &slot.connection(),
                Means::Slots(None),
                None,
            ),
            None => Err(refusal.clone()),
        };
        if let Err(error) = outcome {
            request.fail(&error);
        }
    }

    /// What the ready channel between two devices costs, if there is one.
    #[must_use]
    pub fn ready_costs(&self, key: Key) -> Option<LinkCosts> {
        let slot = self.slots.lock().get(&key).cloned()?;
        let state = slot.state.lock();
        state.ready.as_ref().map(|channel| *channel.costs())
    }

    /// The name of the ready channel between two devices, if there is one.
    #[must_use]
    pub fn ready_name(&self, key: Key) -> Option<String> {
        let slot = self.slots.lock().get(&key).cloned()?;
        let state = slot.state.lock();
        state.ready.as_ref().map(|channel| channel.name().to_owned())
    }

    /// Gives a request to the ready channel with this name.
    ///
    /// # Errors
    /// [`Code::Busy`] when there is no such channel with the peer, or it does not reach the memory; the request is not
    /// finished then.
    pub fn push_to(&self, peer: u128, name: &str, request: Arc<Request>) -> Result<()> {
        let channel = self.slots_of(peer).iter().find_map(|slot| {
            let state = slot.state.lock();
            state.ready.as_ref().filter(|channel| channel.name() == name).cloned()
        });
        let refused = |what: &str| Error::new(Code::Busy, Stage::Submit, what.to_owned());
        let channel = channel.ok_or_else(|| refused("no ready channel has this name"))?;
        channel.push(request).map_err(|_request| refused("the channel does not reach the memory"))
    }

    /// The number of the thread that was started last to make or run a channel.
    #[must_use]
    pub fn last_worker(&self) -> u64 {
        self.workers.lock().last()
    }

    /// Whether a thread up to number `number` runs a channel with `peer`.
    #[must_use]
    pub fn has_worker(&self, peer: u128, number: u64) -> bool {
        self.workers.lock().has(peer, number)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What transfers cost.
    #[must_use]
    pub fn costs(&self) -> &CostTable {
        &self.costs
    }

    /// What this engine has registered.
    #[must_use]
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// This engine.
    #[must_use]
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// What this server is called when no setting says: its boot id. Without one, servers count as different.
    #[must_use]
    pub fn server_name(&self) -> String {
        if self.incarnation.boot_id.is_empty() {
            self.incarnation.hex()
        } else {
            self.incarnation.boot_id.clone()
        }
    }

    /// The device of jobs and offers that name none.
    #[must_use]
    pub fn default_device(&self) -> Option<i32> {
        Some(self.default_device.load(Ordering::Acquire)).filter(|device| *device != ANY_DEVICE)
    }

    /// Sets it.
    pub fn set_default_device(&self, device: i32) {
        self.default_device.store(device, Ordering::Release);
    }

    /// Takes a request.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] after shutdown; the request is not finished then.
    pub fn submit(
        self: &Arc<Self>,
        request: &Arc<Request>,
        device: &Arc<Device>,
        remote_device: i32,
        connection: &Arc<Connection>,
    ) -> Result<()> {
        self.check_open()?;
        let peer = connection.peer().incarnation.id;
        let key = Key { local_device: device.id(), peer, remote_device };
        let slot = self.slot(key, device, connection);
        self.place(&slot, [Waiting { request: Arc::clone(request), tries: 0 }]);
        Ok(())
    }

    fn slot(&self, key: Key, device: &Arc<Device>, connection: &Arc<Connection>) -> Arc<Slot> {
        let slot =
            Arc::clone(self.slots.lock().entry(key).or_insert_with(|| Slot::new(key, device, connection)));
        slot.set_connection(connection);
        slot
    }

    /// Gives requests to the ready channel, or makes them wait for the next one.
    fn place(self: &Arc<Self>, slot: &Arc<Slot>, requests: impl IntoIterator<Item = Waiting>) {
        let mut refused = Vec::new();
        let mut unfit = Vec::new();
        let mut opening = None;
        {
            let mut state = slot.state.lock();
            for mut waiting in requests {
                if let Some(error) = &state.lost {
                    refused.push((waiting.request, error.clone()));
                    continue;
                }
                if let Some(ready) = &state.ready {
                    match ready.push(waiting.request) {
                        Ok(()) => continue,
                        Err(request) => waiting.request = request,
                    }
                    if let Some(error) = ready.misfit(&waiting.request) {
                        unfit.push((waiting.request, error));
                        continue;
                    }
                }
                state.pending.push_back(waiting);
            }
            if !state.pending.is_empty() && state.opening.is_none() {
                opening = Some(state.begin(Role::Initiator));
            }
        }
        for (request, error) in refused {
            request.fail(&error);
        }
        for (request, error) in unfit {
            self.relay(slot, &request, &error);
        }
        if let Some(opening) = opening {
            self.open(slot, &opening);
        }
        self.wake_watch();
    }

    /// Runs `make` and then the channel it makes on a thread of its own.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] or [`Code::Internal`] without a thread; the opening has failed then.
    fn spawn(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        opening: &Arc<Opening>,
        make: impl FnOnce(&Arc<Channels>, &Arc<Slot>, &Arc<Opening>) -> Result<Option<(Arc<Channel>, Session)>>
        + Send
        + 'static,
    ) -> Result<()> {
        let started = self.start_worker(slot, opening, make);
        started.inspect_err(|error| self.opening_failed(slot, opening, error))
    }

    fn start_worker(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        opening: &Arc<Opening>,
        make: impl FnOnce(&Arc<Channels>, &Arc<Slot>, &Arc<Opening>) -> Result<Option<(Arc<Channel>, Session)>>
        + Send
        + 'static,
    ) -> Result<()> {
        let added = self.workers.lock().add(slot.key().peer);
        let number = added.ok_or_else(|| {
            let text = "as many channels as may be exist or are being made";
            Error::new(Code::TooManyRequests, Stage::Connect, text)
        })?;
        let (channels, on_slot, on_opening) = (Arc::clone(self), Arc::clone(slot), Arc::clone(opening));
        let spawned = std::thread::Builder::new().name(format!("mct-channel-{number}")).spawn(move || {
            channels.work(&on_slot, &on_opening, make);
            channels.worker_ended(on_slot.key().peer, number);
        });
        spawned.map(drop).map_err(|error| {
            self.worker_ended(slot.key().peer, number);
            Error::new(Code::Internal, Stage::Connect, format!("no thread for a channel: {error}"))
        })
    }

    /// Makes the channel that this side wants. What waits for it has failed when there is no thread for it.
    fn open(self: &Arc<Self>, slot: &Arc<Slot>, opening: &Arc<Opening>) {
        if let Err(error) = self.spawn(slot, opening, super::opening::initiate) {
            log::warn!("{error}");
        }
    }

    fn worker_ended(&self, peer: u128, number: u64) {
        let mut workers = self.workers.lock();
        workers.remove(peer, number);
        self.workers_changed.notify_all();
    }

    fn work(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        opening: &Arc<Opening>,
        make: impl FnOnce(&Arc<Channels>, &Arc<Slot>, &Arc<Opening>) -> Result<Option<(Arc<Channel>, Session)>>,
    ) {
        match make(self, slot, opening) {
            Ok(None) => {}
            Err(error) => self.give_up(slot, opening, &error),
            Ok(Some((channel, session))) => {
                if !self.opened(slot, opening, &channel) {
                    drop(session);
                    let closing = Message::CloseChannel { channel: channel.name().to_owned() };
                    if let Err(error) = channel.connection().send(closing) {
                        log::debug!("{error}");
                    }
                    return;
                }
                let ending = worker::run(&channel, session, &self.config);
                self.ended(slot, &channel, ending);
            }
        }
    }

    /// A channel is ready: it takes the place of the one before. False when nobody wants it any more.
    fn opened(self: &Arc<Self>, slot: &Arc<Slot>, opening: &Arc<Opening>, channel: &Arc<Channel>) -> bool {
        let mut failed = Vec::new();
        let mut unfit = Vec::new();
        let mut again = None;
        let old = {
            let mut state = slot.state.lock();
            if !state.is_opening(opening) || opening.stopped().is_some() {
                return false;
            }
            state.opening = None;
            state.forget_ports();
            slot.changed.notify_all();
            let old = state.ready.replace(Arc::clone(channel));
            if let Some(old) = &old {
                state.ending.push(Arc::clone(old));
            }
            for mut waiting in std::mem::take(&mut state.pending) {
                match channel.push(waiting.request) {
                    Ok(()) => continue,
                    Err(request) => waiting.request = request,
                }
                if let Some(error) = channel.misfit(&waiting.request) {
                    unfit.push((waiting.request, error));
                    continue;
                }
                waiting.tries = waiting.tries.saturating_add(1);
                match channel.refusal(&waiting.request) {
                    Some(error) if waiting.tries >= TRIES => failed.push((waiting.request, error)),
                    _ => state.pending.push_back(waiting),
                }
            }
            if !state.pending.is_empty() {
                again = Some(state.begin(Role::Initiator));
            }
            old
        };
        log::debug!("channel {} is ready over {}", channel.name(), channel.link().name());
        if let Some(old) = old {
            old.close(Close::Retire);
        }
        for (request, error) in failed {
            request.fail(&error);
        }
        for (request, error) in unfit {
            self.relay(slot, &request, &error);
        }
        if let Some(again) = again {
            self.open(slot, &again);
        }
        if slot.device().memory().withdrawn(&channel.reach().local) {
            // Memory was taken back while the channel was made; it has to end for that.
            slot.retire(channel);
        }
        self.make_room(slot.key());
        true
    }

    /// An opening has failed on this side: it begins once more with another port if that may help, else what waited
    /// for it has failed. Nothing happens when it is not the slot's any more, so that saying it twice is harmless.
    pub fn give_up(self: &Arc<Self>, slot: &Arc<Slot>, opening: &Arc<Opening>, error: &Error) {
        if super::opening::is_curable(error) && self.reopen(slot, opening) {
            log::debug!("{error}; again with another port");
        } else {
            self.opening_failed(slot, opening, error);
        }
    }

    /// An opening has failed, and with it what waited for it.
    fn opening_failed(&self, slot: &Slot, opening: &Arc<Opening>, error: &Error) {
        let waiting = {
            let mut state = slot.state.lock();
            if !state.is_opening(opening) {
                return;
            }
            state.opening = None;
            state.forget_ports();
            slot.changed.notify_all();
            std::mem::take(&mut state.pending)
        };
        if waiting.is_empty() {
            log::debug!("{error}");
        }
        for waiting in waiting {
            waiting.request.fail(error);
        }
    }

    /// A channel has ended; what it leaves behind goes to the next one.
    fn ended(self: &Arc<Self>, slot: &Arc<Slot>, channel: &Arc<Channel>, ending: worker::Ending) {
        {
            let mut state = slot.state.lock();
            state.ending.retain(|other| !Arc::ptr_eq(other, channel));
            if state.is_ready(channel) {
                state.ready = None;
            }
        }
        if let Some(error) = &ending.failure {
            log::debug!("channel {} ended: {error}", channel.name());
            self.failures.report(&error.clone().peer(&channel.connection().peer().segment));
        }
        self.place(slot, ending.returned.into_iter().map(|request| Waiting { request, tries: 0 }));
    }

    /// Answers a peer's offer and goes on with it on a thread.
    ///
    /// # Errors
    /// [`Code::Busy`] when this side's own offer goes first, else why the offer is refused.
    pub fn offer(
        self: &Arc<Self>,
        from: &Arc<Connection>,
        device: &Arc<Device>,
        offer: ChannelOffer,
    ) -> Result<ChannelAnswer> {
        self.check_open()?;
        let peer = from.peer().incarnation.id;
        let terms = super::opening::Terms::check(self, from, device, &offer)?;
        let key = Key { local_device: offer.target_device, peer, remote_device: terms.remote_device };
        let slot = self.slot(key, device, from);
        let opening = {
            let mut state = slot.state.lock();
            if let Some(error) = &state.lost {
                return Err(error.clone());
            }
            if let Some(current) = &state.opening
                && current.role() == Role::Initiator
                && terms.we_are_lower
            {
                return Err(Error::new(
                    Code::Busy,
                    Stage::Connect,
                    "offers for this channel cross; the other one goes first",
                ));
            }
            let opening = state.begin(Role::Acceptor);
            slot.changed.notify_all();
            opening
        };
        let answer = terms.answer(self, &slot, &offer);
        match answer {
            Ok((answer, accept)) => {
                opening.set_name(&offer.channel);
                self.spawn(&slot, &opening, accept)?;
                Ok(answer)
            }
            Err(error) => {
                self.opening_failed(&slot, &opening, &error);
                Err(error)
            }
        }
    }

    /// The peer's end of a channel that is being made is bound.
    pub fn peer_bound(&self, from: &Arc<Connection>, name: &str) {
        for slot in self.slots_of(from.peer().incarnation.id) {
            let opening = slot.state.lock().opening.clone();
            if let Some(opening) = opening.filter(|opening| opening.is_named(name)) {
                opening.peer_bound();
            }
        }
    }

    /// The peer's end of a channel failed.
    pub fn peer_failed(self: &Arc<Self>, from: &Arc<Connection>, name: &str, reason: &str) {
        let peer = from.peer().incarnation.id;
        let error = Error::new(
            Code::Endpoint,
            Stage::Connect,
            format!("the peer's end of the channel failed: {reason}"),
        )
        .peer(&*from.peer().segment);
        for slot in self.slots_of(peer) {
            let (opening, channels) = {
                let state = slot.state.lock();
                let opening = state.opening.clone().filter(|opening| opening.is_named(name));
                (opening, state.named(name))
            };
            for channel in channels {
                channel.close(Close::Fail(error.clone()));
            }
            if let Some(opening) = opening
                && !(reason.starts_with(super::opening::AGAIN) && self.reopen(&slot, &opening))
            {
                opening.stop(error.clone());
                self.opening_failed(&slot, &opening, &error);
            }
        }
    }

    /// Begins once more, with another port, what failed for a reason that may be cured by it. False when this was
    /// tried often enough, or when the opening is not the slot's any more.
    fn reopen(self: &Arc<Self>, slot: &Arc<Slot>, opening: &Arc<Opening>) -> bool {
        let next = {
            let mut state = slot.state.lock();
            if !state.is_opening(opening) {
                return false;
            }
            // Without anything that waits it is for the side that made the offer to make the next.
            let waits_for_offer = state.pending.is_empty() && opening.role() == Role::Acceptor;
            if !waits_for_offer && !state.next_port() {
                return false;
            }
            slot.changed.notify_all();
            if waits_for_offer {
                state.opening = None;
                return true;
            }
            state.begin(Role::Initiator)
        };
        self.open(slot, &next);
        true
    }

    /// The peer gives a channel up.
    pub fn peer_closed(&self, from: &Arc<Connection>, name: &str) {
        for slot in self.slots_of(from.peer().incarnation.id) {
            let state = slot.state.lock();
            let opening = state.opening.clone().filter(|opening| opening.is_named(name));
            let channels = state.named(name);
            drop(state);
            for channel in channels {
                channel.peer_closed();
            }
            if let Some(opening) = opening {
                // It was ready there and is over before it is ready here.
                let error = Error::new(Code::Endpoint, Stage::Connect, "the peer gave the channel up");
                opening.stop(error.clone());
                self.opening_failed(&slot, &opening, &error);
            }
        }
    }

    /// The peer is gone. Answers the number of the last thread that may still run a channel with it.
    pub fn peer_lost(&self, peer: &Incarnation, why: &Error) -> u64 {
        let lost: Vec<Arc<Slot>> = {
            let mut slots = self.slots.lock();
            let keys: Vec<Key> = slots.keys().filter(|key| key.peer == peer.id).copied().collect();
            keys.iter().filter_map(|key| slots.remove(key)).collect()
        };
        for slot in lost {
            slot.abandon(why);
        }
        self.workers.lock().last()
    }

    /// See [`Ascend::withdraw`](super::Ascend::withdraw).
    ///
    /// # Errors
    /// [`Code::Busy`] at the deadline.
    pub fn withdraw(&self, peer: &Incarnation, ranges: &[ByteRange], deadline: Deadline) -> Result<()> {
        let gone =
            Error::new(Code::AddressNotRegistered, Stage::Submit, "the peer took the remote memory back");
        let slots = self.slots_of(peer.id);
        let mut channels = Vec::new();
        for slot in &slots {
            let mut state = slot.state.lock();
            let (taken, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.pending)
                .into_iter()
                .partition(|waiting| waiting.request.touches_remote(ranges));
            state.pending = kept;
            channels.extend(state.channels().cloned());
            drop(state);
            for waiting in taken {
                waiting.request.fail(&gone);
            }
        }
        for channel in &channels {
            for request in channel.refuse_remote(ranges) {
                request.fail(&gone);
            }
        }
        channels.iter().try_for_each(|channel| channel.withdraw_remote(ranges, deadline))
    }

    /// Retires the channels that have one of these regions of this side bound.
    pub fn retire_local(&self, device: i32, regions: &[ByteRange]) {
        let slots: Vec<Arc<Slot>> = self
            .slots
            .lock()
            .values()
            .filter(|slot| slot.key().local_device == device || slot.device().id() == device)
            .cloned()
            .collect();
        for slot in slots {
            let ready = slot.state.lock().ready.clone().filter(|channel| channel.binds(regions));
            if let Some(ready) = ready {
                slot.retire(&ready);
            }
        }
    }

    /// Ends the channel that was idle longest when there are too many with one device.
    fn make_room(&self, fresh: Key) {
        let slots: Vec<Arc<Slot>> = self
            .slots
            .lock()
            .values()
            .filter(|slot| slot.key().local_device == fresh.local_device && slot.key() != fresh)
            .cloned()
            .collect();
        let mut idle = Vec::new();
        let mut ready = 1_usize;
        for slot in slots {
            let Some(channel) = slot.state.lock().ready.clone() else { continue };
            ready = ready.saturating_add(1);
            if channel.load() == 0 {
                idle.push((channel.idle(), slot, channel));
            }
        }
        if ready > CHANNEL_LIMIT
            && let Some((_, slot, channel)) = idle.into_iter().max_by_key(|(idle, _, _)| *idle)
        {
            slot.retire(&channel);
        }
    }

    /// The channels that are ready, for reports.
    #[must_use]
    pub fn report(&self) -> Vec<ChannelReport> {
        let slots: Vec<Arc<Slot>> = self.slots.lock().values().cloned().collect();
        slots
            .iter()
            .filter_map(|slot| {
                let channel = slot.state.lock().ready.clone()?;
                Some(ChannelReport {
                    name: channel.name().to_owned(),
                    local_device: slot.key().local_device,
                    peer: slot.key().peer,
                    remote_device: slot.key().remote_device,
                    link: channel.link().name(),
                    load: channel.load(),
                })
            })
            .collect()
    }

    /// See [`Ascend::shutdown`](super::Ascend::shutdown).
    ///
    /// # Errors
    /// [`Code::StillRunning`] when threads are still busy at the deadline.
    pub fn shutdown(&self, deadline: Deadline) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let slots: Vec<Arc<Slot>> = self.slots.lock().drain().map(|(_, slot)| slot).collect();
        let why = Error::new(Code::Cancelled, Stage::Drain, "the engine was shut down");
        for slot in slots {
            slot.abandon(&why);
        }
        self.wake_watch();
        let mut workers = self.workers.lock();
        while workers.total() > 0 {
            if self.workers_changed.wait_until(&mut workers, deadline.at()).timed_out() {
                return Err(Error::new(
                    Code::StillRunning,
                    Stage::Drain,
                    format!("{} channels are still busy in the vendor's library", workers.total()),
                ));
            }
        }
        Ok(())
    }

    fn slots_of(&self, peer: u128) -> Vec<Arc<Slot>> {
        self.slots.lock().values().filter(|slot| slot.key().peer == peer).cloned().collect()
    }

    /// Something waits that has to be looked at every now and then.
    pub fn wake_watch(&self) {
        let mut watched = self.watched.lock();
        if !*watched {
            *watched = true;
            self.watch.notify_all();
        }
    }

    /// Ends requests whose time is up while they wait, and tells of those that do not stop; sleeps when there are
    /// none.
    fn keep_watch(self: Arc<Self>) {
        loop {
            let mut watched = self.watched.lock();
            while !*watched {
                self.watch.wait(&mut watched);
            }
            drop(watched);
            std::thread::sleep(WATCH_INTERVAL);
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            *self.watched.lock() = false;
            if self.look() {
                *self.watched.lock() = true;
            }
        }
    }

    /// Looks at every request once. Whether there are any.
    fn look(&self) -> bool {
        let slots: Vec<Arc<Slot>> = self.slots.lock().values().cloned().collect();
        let mut waits = false;
        for slot in slots {
            let (overdue, channels) = {
                let mut state = slot.state.lock();
                let (overdue, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.pending)
                    .into_iter()
                    .partition(|waiting| waiting.request.must_stop(Stage::Connect, "").is_some());
                state.pending = kept;
                waits |= !state.pending.is_empty();
                let channels: Vec<_> = state.channels().cloned().collect();
                (overdue, channels)
            };
            for waiting in overdue {
                fail_overdue(&waiting.request, Stage::Connect, "no channel to the peer was ready");
            }
            for channel in channels {
                for request in channel.take_if(|request| request.must_stop(Stage::Submit, "").is_some()) {
                    fail_overdue(&request, Stage::Submit, "the channel to the peer was busy");
                }
                channel.report_stuck(self.config.drain_grace);
                waits |= channel.load() > 0;
            }
        }
        let relay = self.relay.get().and_then(Relay::upgrade);
        waits |= relay.is_some_and(|relay| relay.look());
        waits
    }
}

fn fail_overdue(request: &Arc<Request>, stage: Stage, what: &str) {
    if let Some(error) = request.must_stop(stage, what) {
        request.fail(&error);
    }
}

/// The two ends of a pair in the order both sides agree on, and whether this side is the lower one.
#[must_use]
pub fn pair(own: &Incarnation, own_device: i32, peer: &Incarnation, peer_device: i32) -> (ChannelKey, bool) {
    let lower = (own.id, own_device) < (peer.id, peer_device);
    let ((low, low_device), (high, high_device)) = if lower {
        ((own, own_device), (peer, peer_device))
    } else {
        ((peer, peer_device), (own, own_device))
    };
    (
        ChannelKey {
            lower: low.hex(),
            lower_device: low_device,
            higher: high.hex(),
            higher_device: high_device,
        },
        lower,
    )
}

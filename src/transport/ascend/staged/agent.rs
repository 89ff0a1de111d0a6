//! What this engine does for peers that stage: lends them slots of the ring, and copies between those and memory.
//!
//! A peer asks for a slot, puts into it or gets from it over the channel, and names in each request about it the
//! sequence number it was told last. The slot is the peer's until it gives it back. Requests are answered by a few
//! threads of the agent, never by those of the control connection; who waits for a slot waits in a queue.
//!
//! Invariants:
//! - An address that a peer names is used only while a region that holds all of the block is pinned, so that it
//!   cannot be unregistered meanwhile.
//! - A request is served only for the peer that the slot is lent to, and only under its current number.
//! - The slots of a peer that is gone are lent again only when every channel with it that there was has ended, since
//!   until then a put of the peer may still land in them. That none does once this side's communicator is destroyed is
//!   the vendor's promise for a queue pair of RoCE, and unverified on hardware for HCCS.
//! - Each slot has one request at most; no peer gets more than its share of the slots.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::copier::{Copier, Watch, Way};
use super::ring::Ring;
use super::station::Station;
use super::work::MAX_PIECE_BLOCKS;
use super::{Held, Staged};
use crate::control::{Answer, Connection, DirectMove, Message, SlotGrant, SlotMove, SlotUse};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, MemoryKind};

/// Threads that copy for peers, for each device.
pub const AGENT_THREADS: usize = 4;

/// Peers' requests for a slot that wait, for each device.
pub const MAX_WAITING: usize = 1024;

/// Orders to put or get that one peer has with a device at a time.
pub const ORDERS_PER_PEER: usize = 8;

/// Such orders of all peers, for each device.
pub const MAX_ORDERS: usize = 256;

/// Longest that a request for a slot waits before the peer has to ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How often slots of lost peers are looked at.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(50);

/// Who has a slot.
enum Owner {
    Nobody,
    /// The peer at the other end of this connection; over another one it is a stranger.
    Peer(Arc<Connection>),
    /// A peer that is gone, and the number of the last worker whose channel may still reach the slot.
    Gone {
        peer: u128,
        worker: u64,
    },
}

impl Owner {
    fn is(&self, from: &Arc<Connection>) -> bool {
        matches!(self, Self::Peer(owner) if Arc::ptr_eq(owner, from))
    }
}

struct Lent {
    owner: Owner,
    sequence: u64,
    /// Set to stop the request that the slot has.
    running: Option<Arc<AtomicBool>>,
    /// The peer wants the request under this number stopped, which has not come yet: the two may overtake each other.
    stopped_early: bool,
}

impl Lent {
    /// Takes it back from its owner, under a new number.
    fn free(&mut self) {
        self.owner = Owner::Nobody;
        self.sequence = self.sequence.saturating_add(1);
        self.stopped_early = false;
    }
}

/// A peer that waits for a slot.
struct Waiting {
    from: Arc<Connection>,
    until: Deadline,
    answer: Answer,
}

/// What a peer wants done.
enum Order {
    Slot(SlotMove),
    Direct(DirectMove),
}

/// A copy to do, or blocks to put or get.
struct Task {
    order: Order,
    from: Arc<Connection>,
    deadline: Deadline,
    stop: Arc<AtomicBool>,
    answer: Answer,
}

/// An order to put or get that is not answered yet.
struct Ordered {
    from: Arc<Connection>,
    number: u64,
    stop: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    lent: Vec<Lent>,
    ordered: Vec<Ordered>,
    waiting: VecDeque<Waiting>,
    tasks: VecDeque<Task>,
    threads: usize,
    stopped: bool,
}

/// Slots that the agent has, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lent to peers.
    pub lent: u64,
    /// Of peers that are gone, and not lent again yet.
    pub held_back: u64,
}

/// The agent of one device.
#[derive(Default)]
pub struct Agent {
    state: Mutex<State>,
    changed: Condvar,
}

fn refused(code: Code, why: &str) -> Error {
    Error::new(code, Stage::Execute, format!("the relay agent refuses: {why}"))
}

impl Agent {
    /// A peer wants a slot. Answered as soon as one is free, or when the wait is over.
    pub fn open(&self, station: &Arc<Station>, from: &Arc<Connection>, wait: Duration, answer: Answer) {
        let mut state = self.state.lock();
        let error = if state.stopped {
            refused(Code::StaleHandle, "the engine is being closed")
        } else if state.waiting.len() >= MAX_WAITING {
            refused(Code::Busy, "too many wait for a slot already")
        } else {
            let until = Deadline::after(wait.min(LONGEST_WAIT));
            state.waiting.push_back(Waiting { from: Arc::clone(from), until, answer });
            self.want_thread(state, station);
            return;
        };
        drop(state);
        answer.give(Err(error));
    }

    /// A peer wants bytes moved between a slot of its and memory.
    pub fn move_slot(&self, station: &Arc<Station>, from: &Arc<Connection>, order: SlotMove, answer: Answer) {
        let mut state = self.state.lock();
        let checked = check(&mut state, from, order.slot, order.sequence).and_then(|lent| {
            if lent.running.is_some() {
                return Err(refused(Code::Busy, "the slot has a request already"));
            }
            if lent.stopped_early {
                // As after every refusal, so that both know whose it is.
                lent.free();
                return Err(refused(Code::Cancelled, "the request was stopped"));
            }
            let stop = Arc::new(AtomicBool::new(false));
            lent.running = Some(Arc::clone(&stop));
            Ok(stop)
        });
        match checked {
            Ok(stop) => {
                let deadline = Deadline::after(Duration::from_millis(order.timeout_ms));
                let from = Arc::clone(from);
                state.tasks.push_back(Task { order: Order::Slot(order), from, deadline, stop, answer });
                self.want_thread(state, station);
            }
            Err(error) => {
                drop(state);
                self.changed.notify_one();
                answer.give(Err(error));
            }
        }
    }

    /// A peer wants blocks put or got. Answered when that is over.
    pub fn move_direct(
        &self,
        station: &Arc<Station>,
        from: &Arc<Connection>,
        order: DirectMove,
        answer: Answer,
    ) {
        let mut state = self.state.lock();
        let own = state.ordered.iter().filter(|ordered| Arc::ptr_eq(&ordered.from, from));
        let refusal = if state.stopped {
            Some(refused(Code::StaleHandle, "the engine is being closed"))
        } else if own.clone().any(|ordered| ordered.number == order.number) {
            Some(refused(Code::InvalidArgument, "an order has the number of another one"))
        } else if own.count() >= ORDERS_PER_PEER || state.ordered.len() >= MAX_ORDERS {
            Some(refused(Code::Busy, "there are as many orders as there may be"))
        } else {
            None
        };
        if let Some(error) = refusal {
            drop(state);
            answer.give(Err(error));
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let ordered = Ordered { from: Arc::clone(from), number: order.number, stop: Arc::clone(&stop) };
        state.ordered.push(ordered);
        let deadline = Deadline::after(Duration::from_millis(order.timeout_ms));
        let order = Order::Direct(order);
        state.tasks.push_back(Task { order, from: Arc::clone(from), deadline, stop, answer });
        self.want_thread(state, station);
    }

    /// A peer wants its order stopped; the order itself is answered when that is done.
    pub fn stop_direct(&self, from: &Arc<Connection>, number: u64) {
        let state = self.state.lock();
        let wanted = |ordered: &&Ordered| ordered.number == number && Arc::ptr_eq(&ordered.from, from);
        if let Some(ordered) = state.ordered.iter().find(wanted) {
            ordered.stop.store(true, Ordering::Release);
        }
    }

    /// A peer wants its request on a slot stopped; the request itself is answered when that is done.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when the slot is not the peer's.
    pub fn stop_slot(&self, from: &Arc<Connection>, which: SlotUse) -> Result<()> {
        let mut state = self.state.lock();
        let lent = check(&mut state, from, which.slot, which.sequence)?;
        match &lent.running {
            Some(running) => running.store(true, Ordering::Release),
            None => lent.stopped_early = true,
        }
        Ok(())
    }

    /// A peer gives a slot back.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when the slot is not the peer's, [`Code::Busy`] while a request of it runs.
    pub fn release(&self, from: &Arc<Connection>, which: SlotUse) -> Result<()> {
        let mut state = self.state.lock();
        let lent = check(&mut state, from, which.slot, which.sequence)?;
        if lent.running.is_some() {
            return Err(refused(Code::Busy, "the slot has a request"));
        }
        lent.free();
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// A peer is gone. Its slots are held back while a worker up to number `worker` runs a channel with it.
    pub fn peer_lost(&self, peer: u128, worker: u64) {
        let gone = |from: &Connection| from.peer().incarnation.id == peer && !from.is_alive();
        let mut state = self.state.lock();
        // Their answers have nobody to go to.
        let waiting = std::mem::take(&mut state.waiting);
        let (lost, waiting): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|waiting| gone(&waiting.from));
        state.waiting = waiting;
        for lent in &mut state.lent {
            if matches!(&lent.owner, Owner::Peer(owner) if gone(owner)) {
                lent.owner = Owner::Gone { peer, worker };
                if let Some(running) = &lent.running {
                    running.store(true, Ordering::Release);
                }
            }
        }
        for ordered in state.ordered.iter().filter(|ordered| gone(&ordered.from)) {
            ordered.stop.store(true, Ordering::Release);
        }
        drop(state);
        drop(lost);
        self.changed.notify_all();
    }

    /// The slots, counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.state.lock();
        let count = |of: fn(&Owner) -> bool| {
            u64::try_from(state.lent.iter().filter(|lent| of(&lent.owner)).count()).unwrap_or(u64::MAX)
        };
        Counts {
            lent: count(|owner| matches!(owner, Owner::Peer(_))),
            held_back: count(|owner| matches!(owner, Owner::Gone { .. })),
        }
    }

    /// Ends the threads; what waits fails.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        let orders = state.ordered.iter().map(|ordered| &ordered.stop);
        for running in state.lent.iter().filter_map(|lent| lent.running.as_ref()).chain(orders) {
            running.store(true, Ordering::Release);
        }
        let waiting = std::mem::take(&mut state.waiting);
        let tasks = if state.threads == 0 { std::mem::take(&mut state.tasks) } else { VecDeque::new() };
        drop(state);
        self.changed.notify_all();
        let error = refused(Code::StaleHandle, "the engine is being closed");
        for answer in
            waiting.into_iter().map(|one| one.answer).chain(tasks.into_iter().map(|task| task.answer))
        {
            answer.give(Err(error.clone()));
        }
    }

    /// Whether its threads have ended; waits until then.
    #[must_use]
    pub fn wait_stopped(&self, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        while state.threads > 0 {
            if self.changed.wait_until(&mut state, deadline.at()).timed_out() {
                return state.threads == 0;
            }
        }
        true
    }

    /// Makes sure that there is a thread for what was queued.
    fn want_thread(&self, mut state: parking_lot::MutexGuard<'_, State>, station: &Arc<Station>) {
        let start = state.threads < AGENT_THREADS;
        if start {
            state.threads = state.threads.saturating_add(1);
        }
        drop(state);
        self.changed.notify_one();
        if !start {
            return;
        }
        let on_thread = Arc::clone(station);
        let name = format!("mct-agent-{}", station.device().id());
        if let Err(error) =
            std::thread::Builder::new().name(name).spawn(move || on_thread.agent().run(&on_thread))
        {
            log::error!("no thread for the relay agent: {error}");
            let mut state = self.state.lock();
            state.threads = state.threads.saturating_sub(1);
            // Another one may have been started meanwhile, and then all of this is its.
            if state.threads == 0 {
                // Dropped answers tell the peers.
                let (waiting, tasks) = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.tasks));
                for lent in &mut state.lent {
                    // As after every refusal, so that both know whose it is; a lost peer's is still held back.
                    if lent.running.take().is_some() && matches!(lent.owner, Owner::Peer(_)) {
                        lent.free();
                    }
                }
                state.ordered.clear();
                drop(state);
                drop((waiting, tasks));
            }
        }
    }

    /// A thread of the agent.
    fn run(&self, station: &Arc<Station>) {
        let mut copier = Copier::new(station.device(), station.gate());
        while let Some(task) = self.next(station) {
            // A defect costs its order: the thread and the slot are there for the next one.
            let outcome = catch_unwind(AssertUnwindSafe(|| match &task.order {
                Order::Slot(order) => order.copy(&mut copier, station, &task),
                Order::Direct(order) => order.run(station, &task.from, task.deadline, &task),
            }))
            .unwrap_or_else(|_| {
                log::error!("an order of {} met a defect", task.from.peer().segment);
                Err(refused(Code::Internal, "the order met a defect"))
            });
            self.finish(task, outcome);
        }
        // Before the count says so: its stream belongs to the device.
        drop(copier);
        let mut state = self.state.lock();
        state.threads = state.threads.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }

    /// The next copy; lends slots meanwhile. `None` ends the thread.
    fn next(&self, station: &Arc<Station>) -> Option<Task> {
        loop {
            let mut answers = Vec::new();
            let mut needs_ring = false;
            let found = {
                let mut state = self.state.lock();
                if state.stopped {
                    let tasks = std::mem::take(&mut state.tasks);
                    drop(state);
                    let error = refused(Code::StaleHandle, "the engine is being closed");
                    for task in tasks {
                        self.finish(task, Err(error.clone()));
                    }
                    return None;
                }
                state.reclaim(station);
                if !state.waiting.is_empty() {
                    match station.ring_if_made() {
                        Some(ring) => state.lend(&ring, &mut answers),
                        None => needs_ring = true,
                    }
                }
                let found = state.tasks.pop_front();
                if found.is_none() && answers.is_empty() && !needs_ring {
                    match state.next_look() {
                        Some(at) => {
                            let _ = self.changed.wait_until(&mut state, at.at());
                        }
                        None => self.changed.wait(&mut state),
                    }
                }
                found
            };
            if found.is_some() {
                // Somebody else looks after those who wait meanwhile.
                self.changed.notify_one();
            }
            for (answer, outcome) in answers {
                answer.give(outcome);
            }
            if needs_ring && let Err(error) = station.ring() {
                let waiting = std::mem::take(&mut self.state.lock().waiting);
                for one in waiting {
                    one.answer.give(Err(error.clone()));
                }
            }
            if found.is_some() {
                return found;
            }
        }
    }

    fn finish(&self, task: Task, outcome: Result<()>) {
        let answer = {
            let mut state = self.state.lock();
            let wanted = !state.waiting.is_empty();
            let slot = match &task.order {
                Order::Slot(order) => order.slot,
                Order::Direct(_) => {
                    state.ordered.retain(|ordered| !Arc::ptr_eq(&ordered.stop, &task.stop));
                    drop(state);
                    self.changed.notify_one();
                    task.answer.give(outcome.map(|()| Message::Done));
                    return;
                }
            };
            let Some(lent) = usize::try_from(slot).ok().and_then(|slot| state.lent.get_mut(slot)) else {
                return;
            };
            lent.running = None;
            lent.sequence = lent.sequence.saturating_add(1);
            match outcome {
                Ok(()) => Ok(Message::SlotMoved { sequence: lent.sequence, wanted }),
                Err(error) => {
                    // A peer that was refused has lost the slot as well, so that both know whose it is.
                    if lent.owner.is(&task.from) {
                        lent.owner = Owner::Nobody;
                    }
                    Err(error)
                }
            }
        };
        self.changed.notify_one();
        task.answer.give(answer);
    }
}

/// The slot, if it is the peer's under that number.
fn check<'a>(state: &'a mut State, from: &Arc<Connection>, slot: u32, sequence: u64) -> Result<&'a mut Lent> {
    usize::try_from(slot)
        .ok()
        .and_then(|slot| state.lent.get_mut(slot))
        .filter(|lent| lent.owner.is(from) && lent.sequence == sequence)
        .ok_or_else(|| {
            refused(Code::InvalidArgument, &format!("slot {slot} is not lent to this peer as use {sequence}"))
        })
}

impl State {
    /// Frees the slots of lost peers that nothing can reach any more.
    fn reclaim(&mut self, station: &Station) {
        for lent in &mut self.lent {
            if let Owner::Gone { peer, worker } = lent.owner
                && lent.running.is_none()
                && !station.channels_run(peer, worker)
            {
                lent.free();
            }
        }
    }

    /// Gives free slots to those who wait, in their order, and turns away who waited long enough.
    fn lend(&mut self, ring: &Ring, answers: &mut Vec<(Answer, Result<Message>)>) {
        while self.lent.len() < usize::try_from(ring.lent_slots()).unwrap_or(0) {
            self.lent.push(Lent { owner: Owner::Nobody, sequence: 1, running: None, stopped_early: false });
        }
        let share = self.lent.len().div_ceil(2);
        let mut still = VecDeque::with_capacity(self.waiting.len());
        for one in std::mem::take(&mut self.waiting) {
            // Nobody would say a second time that it is lost.
            if !one.from.is_alive() {
                continue;
            }
            let has = self.lent.iter().filter(|lent| lent.owner.is(&one.from));
            let may = has.count() < share;
            let free =
                self.lent.iter_mut().zip(0_u32..).find(|(lent, _)| matches!(lent.owner, Owner::Nobody));
            match free.filter(|_| may) {
                Some((lent, slot)) => {
                    lent.owner = Owner::Peer(Arc::clone(&one.from));
                    let grant = SlotGrant {
                        device: ring.device().id(),
                        slot,
                        sequence: lent.sequence,
                        address: ring.lent_address(slot),
                        length_bytes: ring.slot_bytes(),
                    };
                    answers.push((one.answer, Ok(Message::SlotGranted(grant))));
                }
                None if one.until.expired() => {
                    answers.push((one.answer, Err(refused(Code::Busy, "no slot became free in time"))));
                }
                None => still.push_back(one),
            }
        }
        self.waiting = still;
    }

    /// When something has to be looked at though nobody says so.
    fn next_look(&self) -> Option<Deadline> {
        let gone = self.lent.iter().any(|lent| matches!(lent.owner, Owner::Gone { .. }));
        let reclaim = gone.then(|| Deadline::after(RECLAIM_INTERVAL));
        let waits = self.waiting.iter().map(|waiting| waiting.until);
        waits.chain(reclaim).reduce(Deadline::sooner)
    }
}

impl Watch for Task {
    fn stop(&self) -> Option<Error> {
        if self.stop.load(Ordering::Acquire) {
            return Some(refused(Code::Cancelled, "the request was stopped"));
        }
        // Seen here before somebody tells of it: the peer counts the request as failed already.
        if !self.from.is_alive() {
            return Some(refused(Code::Cancelled, "the peer that asked is gone"));
        }
        self.deadline.expired().then(|| refused(Code::Timeout, "the request's time was over"))
    }

    fn stuck(&self) {}
}

impl SlotMove {
    /// Checks every address, and copies.
    fn copy(&self, copier: &mut Copier, station: &Arc<Station>, task: &Task) -> Result<()> {
        if let Some(error) = task.stop() {
            return Err(error);
        }
        let ring = station.ring()?;
        let staged: Arc<Staged> = Weak::upgrade(station.staged())
            .ok_or_else(|| refused(Code::StaleHandle, "the engine is being closed"))?;
        if self.blocks.is_empty() || self.blocks.len() > MAX_PIECE_BLOCKS {
            let why = format!("a request names 1 block at least and {MAX_PIECE_BLOCKS} at most");
            return Err(refused(Code::InvalidArgument, &why));
        }
        let mut held: Vec<(Held, ByteRange)> = Vec::new();
        let mut total_bytes = 0_u64;
        let mut kinds = Vec::with_capacity(self.blocks.len());
        for &(address, length_bytes) in &self.blocks {
            total_bytes = total_bytes.saturating_add(length_bytes);
            let range =
                ByteRange::checked(address, length_bytes).filter(|range| !range.is_empty()).ok_or_else(
                    || refused(Code::InvalidArgument, "a block is empty or passes the end of memory"),
                )?;
            let known = held.iter().rev().find(|(held, _)| held.range.contains(range));
            let kind = match known {
                Some((held, _)) => held.kind,
                None => {
                    let pinned = staged.pin(range).ok_or_else(|| {
                        refused(Code::AddressNotRegistered, "a block lies in no region that is registered")
                            .range(address, length_bytes)
                    })?;
                    let kind = pinned.kind;
                    held.push((pinned, range));
                    kind
                }
            };
            if let MemoryKind::Device(device) = kind
                && device != ring.device().id()
            {
                return Err(refused(Code::InvalidArgument, "a block lies on another device than the slot")
                    .range(address, length_bytes));
            }
            kinds.push(kind == MemoryKind::Host);
        }
        if total_bytes > ring.slot_bytes() {
            return Err(refused(Code::InvalidArgument, "the blocks are longer than the slot"));
        }
        let way = if self.gather { Way::Gather } else { Way::Scatter };
        let mut place = ring.lent_address(self.slot);
        let mut rest = self.blocks.as_slice();
        let mut kinds = kinds.as_slice();
        // Blocks of one kind that follow each other are one call.
        while let Some(&host) = kinds.first() {
            let run = kinds.iter().take_while(|kind| **kind == host).count();
            let (now, later) = rest.split_at_checked(run).unwrap_or((rest, &[]));
            copier.copy(way, place, now.iter().copied(), host, task)?;
            place = place.saturating_add(now.iter().fold(0, |sum: u64, block| sum.saturating_add(block.1)));
            rest = later;
            kinds = kinds.get(run..).unwrap_or_default();
        }
        drop(held);
        Ok(())
    }
}

//! One peer's data listener as a client sees it: what waits for it, and the lanes that take from there.
//!
//! Lanes pull work when they have room, so a slow one holds back only what it has taken. Invariants: the queue
//! is bounded by jobs; a peer that is broken takes nothing more and holds nothing, whoever uses it makes a new
//! one from a fresh descriptor. Lock order: a lane's state, then the queue.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::lane::Lane;
use super::reactor::Reactor;
use super::settings::Settings;
use super::transfer::{Cursor, Over, Piece, Transfer, report};
use crate::batch::Help;
use crate::error::{Code, Error, Result, Stage};
use crate::transport::Job;

/// One more lane is used for each so many bytes of a job.
const BYTES_PER_LANE: u64 = 256 << 10;
/// Up to so many bytes are handed to the kernel on the thread that submits them.
const INLINE_BYTES: u64 = 64 << 10;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Arc<Transfer>, Cursor)>,
    /// Pieces of broken lanes of which nothing was sent.
    again: VecDeque<Piece>,
    broken: Option<Error>,
}

/// A peer that can be sent to.
pub struct TcpPeer {
    name: Arc<str>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) confirmed: bool,
    pub(super) settings: Arc<Settings>,
    reactor: Weak<Reactor>,
    lanes: RwLock<Vec<Arc<Lane>>>,
    /// Lanes that are connected.
    live: AtomicUsize,
    /// Whether a lane was ever connected.
    was_up: AtomicBool,
    queue: Mutex<Queue>,
}

impl TcpPeer {
    pub(super) fn new(
        name: &str,
        addresses: Vec<SocketAddr>,
        confirmed: bool,
        settings: &Arc<Settings>,
        reactor: &Arc<Reactor>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::from(name),
            addresses,
            confirmed,
            settings: Arc::clone(settings),
            reactor: Arc::downgrade(reactor),
            lanes: RwLock::default(),
            live: AtomicUsize::new(0),
            was_up: AtomicBool::new(false),
            queue: Mutex::default(),
        })
    }

    /// How callers name the peer.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether requests can be expected to arrive: it is not broken, and its lanes were not all lost.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let lost = self.keeps_lanes()
            && self.was_up.load(Ordering::Acquire)
            && self.live.load(Ordering::Acquire) == 0;
        !lost && self.queue.lock().broken.is_none()
    }

    /// Connected lanes, for tests and reports.
    #[must_use]
    pub fn live_lanes(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Whether a lane outlives its request.
    pub(super) fn keeps_lanes(&self) -> bool {
        self.confirmed && self.settings.keep
    }

    /// Takes a job; every extent of it is reported in the end. Never blocks on the peer.
    pub(super) fn submit(self: &Arc<Self>, job: Job) {
        let submission = Arc::clone(&job.submission);
        let transfer = Transfer::new(job, self.settings.lanes, self.confirmed, self);
        if transfer.pieces() == 0 {
            return;
        }
        let length_bytes = transfer.length_bytes();
        let pieces = transfer.pieces();
        let small = length_bytes <= INLINE_BYTES || !transfer.is_write();
        {
            let mut queue = self.queue.lock();
            let refusal = match &queue.broken {
                Some(error) => Some(error.clone()),
                None if queue.waiting.len() >= self.settings.max_jobs => Some(
                    Error::new(
                        Code::TooManyRequests,
                        Stage::Submit,
                        format!("{} jobs wait for this peer already", queue.waiting.len()),
                    )
                    .advice("wait for submitted batches before submitting more"),
                ),
                None => None,
            };
            if let Some(error) = refusal {
                drop(queue);
                fail_rest(&transfer, Cursor::default(), &error);
                return;
            }
            queue.waiting.push_back((Arc::clone(&transfer), Cursor::default()));
        }
        drop(transfer);
        let wanted = if self.keeps_lanes() {
            usize::try_from(length_bytes.div_ceil(BYTES_PER_LANE)).unwrap_or(usize::MAX)
        } else {
            pieces
        };
        let batch = Arc::clone(submission.batch());
        let woken = self.wake(wanted.clamp(1, self.settings.lanes.max(1)), small).map(|lane| {
            if let Some(lane) = lane.filter(|_| small && self.keeps_lanes()) {
                let help: Weak<dyn Help> = Arc::downgrade(&lane) as Weak<dyn Help>;
                // It is under way already: nobody depends on the help.
                let _ = batch.offer(help);
            }
        });
        let stopped = self.reactor.upgrade().is_none_or(|reactor| reactor.is_stopped());
        if let Err(error) = woken.and_then(|()| if stopped { Err(self.closing()) } else { Ok(()) }) {
            self.close(&error);
        }
    }

    /// Wakes `wanted` lanes, idle ones first; makes lanes while there are fewer. Gives the lane if it is one.
    fn wake(self: &Arc<Self>, wanted: usize, small: bool) -> Result<Option<Arc<Lane>>> {
        if self.lanes.read().len() < wanted {
            let reactor = self.reactor.upgrade().ok_or_else(|| self.closing())?;
            let mut lanes = self.lanes.write();
            while lanes.len() < wanted {
                lanes.push(reactor.attach(|handle, token| Lane::new(self, handle, token))?);
            }
        }
        let lanes = self.lanes.read();
        if let (1, Some(first)) = (wanted, lanes.first()) {
            let lane = lanes.iter().find(|lane| lane.is_idle()).unwrap_or(first);
            lane.wake(small);
            return Ok(Some(Arc::clone(lane)));
        }
        let idle = lanes.iter().filter(|lane| lane.is_idle());
        let busy = lanes.iter().filter(|lane| !lane.is_idle());
        for lane in idle.chain(busy).take(wanted) {
            lane.wake(false);
        }
        Ok(None)
    }

    fn closing(&self) -> Error {
        Error::new(Code::StaleHandle, Stage::Submit, "the engine is being closed").peer(&*self.name)
    }

    /// Adds a lane whose connection is up already.
    pub(super) fn adopt(self: &Arc<Self>, stream: mio::net::TcpStream, reactor: &Arc<Reactor>) -> Result<()> {
        let lane = reactor.attach(|handle, token| Lane::new(self, handle, token))?;
        lane.adopt(stream).map_err(|error| {
            Error::new(Code::Socket, Stage::Connect, format!("a data lane cannot be watched: {error}"))
                .peer(&*self.name)
        })?;
        self.lanes.write().push(lane);
        Ok(())
    }

    /// Gives up: everything that waits or is under way fails with `error`.
    pub fn close(&self, error: &Error) {
        self.give_up(error);
        let lanes = self.lanes.read().clone();
        for lane in lanes {
            lane.abandon(error);
        }
    }

    fn give_up(&self, error: &Error) {
        let mut overs = Vec::new();
        self.fail_waiting(error, &mut overs);
        report(&mut overs);
    }

    pub(super) fn fail_waiting(&self, error: &Error, overs: &mut Vec<Over>) {
        let mut queue = self.queue.lock();
        queue.broken.get_or_insert_with(|| error.clone());
        overs.extend(queue.again.drain(..).map(|piece| Over::failed(piece, error)));
        for (transfer, mut cursor) in queue.waiting.drain(..) {
            while let Some(piece) = transfer.next(&mut cursor) {
                overs.push(Over::failed(piece, error));
            }
        }
    }

    /// Whether anything waits for a lane.
    pub(super) fn has_work(&self) -> bool {
        let queue = self.queue.lock();
        !queue.waiting.is_empty() || !queue.again.is_empty()
    }

    /// Hands out pieces until `take` wants no more. Pieces of jobs that are to stop go to `overs`.
    pub(super) fn pull(&self, overs: &mut Vec<Over>, mut take: impl FnMut(Piece) -> bool) {
        let mut queue = self.queue.lock();
        loop {
            let piece = match queue.again.pop_front() {
                Some(piece) => piece,
                None => {
                    let Some((transfer, cursor)) = queue.waiting.front_mut() else { return };
                    match transfer.next(cursor) {
                        Some(piece) => piece,
                        None => {
                            queue.waiting.pop_front();
                            continue;
                        }
                    }
                }
            };
            if piece.transfer.is_stopped()
                && let Some(error) = piece.transfer.must_stop("the request was over before its turn came")
            {
                overs.push(Over::failed(piece, &error));
                continue;
            }
            if !take(piece) {
                return;
            }
        }
    }

    /// Takes back pieces of which nothing was sent, to be handed out first.
    pub(super) fn put_back(&self, pieces: impl DoubleEndedIterator<Item = Piece>, overs: &mut Vec<Over>) {
        let mut queue = self.queue.lock();
        let broken = queue.broken.clone();
        for piece in pieces.rev() {
            match &broken {
                Some(error) => overs.push(Over::failed(piece, error)),
                None => queue.again.push_front(piece),
            }
        }
    }

    /// Fails what waits and has to stop.
    pub(super) fn expire(&self, overs: &mut Vec<Over>) {
        const WHAT: &str = "no lane to the peer was free";
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() && queue.again.is_empty() {
            return;
        }
        let again = std::mem::take(&mut queue.again);
        for piece in again {
            match piece.transfer.must_stop(WHAT) {
                Some(error) => overs.push(Over::failed(piece, &error)),
                None => queue.again.push_back(piece),
            }
        }
        queue.waiting.retain_mut(|(transfer, cursor)| match transfer.must_stop(WHAT) {
            Some(error) => {
                while let Some(piece) = transfer.next(cursor) {
                    overs.push(Over::failed(piece, &error));
                }
                false
            }
            None => true,
        });
    }

    /// A lane is up.
    pub(super) fn lane_up(&self) {
        self.live.fetch_add(1, Ordering::AcqRel);
        self.was_up.store(true, Ordering::Release);
    }

    /// A lane is gone.
    pub(super) fn lane_down(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
    }

    /// A lane cannot be connected. When none is up the peer is broken.
    pub(super) fn unreachable(&self, error: &Error, overs: &mut Vec<Over>) {
        if self.live.load(Ordering::Acquire) == 0 {
            self.fail_waiting(error, overs);
        }
    }
}

impl Drop for TcpPeer {
    fn drop(&mut self) {
        for lane in self.lanes.get_mut().drain(..) {
            lane.detach();
        }
    }
}

fn fail_rest(transfer: &Arc<Transfer>, mut cursor: Cursor, error: &Error) {
    let mut overs = Vec::new();
    while let Some(piece) = transfer.next(&mut cursor) {
        overs.push(Over::failed(piece, error));
    }
    report(&mut overs);
}

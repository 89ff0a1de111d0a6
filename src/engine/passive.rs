//! What peers ask of us: descriptors, notes and probes on the handshake port, channels and withdrawals on the
//! control connection.
//!
//! Holds the engine weakly: the listeners' threads must not keep an engine alive that its owner has dropped.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::remote::{Link, Remote};
use super::{Shared, WeakShared};
use crate::control::{Answer, Connection, Handler, Hello, Message};
use crate::deadline::Deadline;
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};
use crate::handshake::Responder;
use crate::memory::{ByteRange, MemoryKind};
use crate::notify::Note;
use crate::transport::ascend::staged::{Held, Memory};
use crate::transport::host::Challenge;
use crate::transport::tcp::{Hold, Served};

/// Peers that are asked at the same time to stop using a range.
const WITHDRAWALS_AT_ONCE: usize = 16;
/// Ranges that one message withdraws.
const RANGES_OF_A_WITHDRAWAL: usize = 4096;

/// The callbacks of the listeners.
pub(super) struct Passive(WeakShared);

impl Passive {
    pub(super) fn new(engine: WeakShared) -> Self {
        Self(engine)
    }

    fn engine(&self) -> Result<Arc<Shared>> {
        self.0
            .upgrade()
            .ok_or_else(|| Error::new(Code::StaleHandle, Stage::Handshake, "the engine is being closed"))
    }

    /// Keeps the region that holds all of `range` registered: the whole of it, and what memory it is.
    fn hold(&self, range: ByteRange) -> Option<(ByteRange, MemoryKind, Hold)> {
        let engine = self.0.upgrade()?;
        // A withdrawal that is given up opens the region before it stops serving the range, so that who found
        // neither looks once more.
        for _ in 0..2 {
            if let Some(region) = engine.registry.find_containing(range)
                && let Some(pin) = region.pin()
            {
                return Some((region.range(), region.kind(), Hold::Region(pin)));
            }
            if let Some((range, kind, held)) = engine.closing.hold(range) {
                return Some((range, kind, Hold::Closing(held)));
            }
        }
        None
    }
}

impl Responder for Passive {
    fn descriptor(&self) -> Vec<u8> {
        // Upstream answers `null` while it has no segment; so do we while we go away.
        self.engine().map_or_else(
            |_| b"null\n".to_vec(),
            |engine| {
                engine.observed.metrics.handshakes_served.increment();
                engine.descriptor().encode()
            },
        )
    }

    fn notify(&self, note: Note) -> Result<()> {
        let engine = self.engine()?;
        let metrics = &engine.observed.metrics;
        metrics.notes_received.increment();
        engine.notes.push(note).inspect_err(|_| metrics.notes_dropped.increment())
    }
}

impl Served for Passive {
    fn pin(&self, range: ByteRange) -> Option<Hold> {
        let (_, kind, hold) = self.hold(range)?;
        (kind == MemoryKind::Host).then_some(hold)
    }
}

impl Memory for Passive {
    fn pin(&self, range: ByteRange) -> Option<Held> {
        let (range, kind, hold) = self.hold(range)?;
        Some(Held { range, kind, hold: Arc::new(hold) })
    }
}

impl Handler for Passive {
    fn request(&self, from: &Arc<Connection>, message: Message) -> Result<Message> {
        let engine = self.engine()?;
        match message {
            Message::Ping => Ok(Message::Pong),
            Message::Withdraw { ranges, epoch } => {
                engine.withdraw_remote(&from.peer().incarnation, &ranges, epoch)?;
                Ok(Message::Withdrawn)
            }
            Message::Prove { .. } if !engine.config.same_host || engine.config.force_tcp => {
                let what = "transfers between processes of one host are turned off there";
                Err(Error::new(Code::Unsupported, Stage::Connect, what))
            }
            Message::Prove { .. } if !engine.incarnation.same_boot(&from.peer().incarnation) => {
                Err(Error::new(Code::Unsupported, Stage::Connect, "it runs on another host"))
            }
            Message::Prove { challenge } => {
                let challenge = Challenge::parse(&challenge)?;
                let placed = || engine.placed();
                let peer = from.peer();
                engine
                    .boards
                    .offer(peer.incarnation.id, &peer.segment, &challenge, placed)
                    .map(Message::Proof)
            }
            // A peer must not make this process open CANN: without NPU memory of ours there is nothing to offer for.
            message => {
                let ascend = engine.npu.opened().ok_or_else(|| {
                    Error::new(Code::DeviceNotFound, Stage::Connect, "this engine uses no NPU")
                })?;
                ascend.message(from, message).unwrap_or_else(|| {
                    let what = "the message is not a request we serve";
                    Err(Error::new(Code::NotImplemented, Stage::Connect, what))
                })
            }
        }
    }

    fn serve(&self, from: &Arc<Connection>, message: Message, answer: Answer) {
        // The slots of peers are lent and copied by threads of their own.
        let rest = match self.0.upgrade().and_then(|engine| engine.npu.opened()) {
            Some(ascend) => ascend.slot_request(from, message, answer),
            None => Some((message, answer)),
        };
        if let Some((message, answer)) = rest {
            answer.give(self.request(from, message));
        }
    }

    fn connected(&self, peer: &Hello) {
        if let Ok(engine) = self.engine() {
            engine.heard_from(&peer.segment);
        }
    }

    fn lost(&self, peer: &Incarnation, why: &Error) {
        if let Ok(engine) = self.engine() {
            engine.observed.metrics.control_connections_lost.increment();
            engine.peer_lost(peer, why);
        }
    }
}

impl Shared {
    /// The links to a process, those that are being made included.
    fn remotes_of(&self, incarnation: &Incarnation) -> Vec<Arc<Remote>> {
        let mut remotes = self.remotes.lock();
        remotes.retain(|remote| remote.strong_count() > 0);
        let alive = remotes.iter().filter_map(Weak::upgrade);
        alive.filter(|remote| remote.incarnation.as_ref() == Some(incarnation)).collect()
    }

    /// A peer withdraws memory: wait for our transfers to it, then forget it and tell the transport.
    fn withdraw_remote(&self, incarnation: &Incarnation, ranges: &[(u64, u64)], epoch: u64) -> Result<()> {
        let deadline = self.withdraw_deadline();
        for remote in self.remotes_of(incarnation) {
            remote.withdraw(ranges, epoch, deadline)?;
        }
        if let Some(ascend) = self.npu.opened() {
            let ranges: Vec<ByteRange> = ranges
                .iter()
                .filter_map(|&(start, length_bytes)| ByteRange::checked(start, length_bytes))
                .collect();
            ascend.withdraw(incarnation, &ranges, deadline)?;
        }
        Ok(())
    }

    /// Withdraws ranges of ours at every connected peer, and waits until each has stopped using them; up to
    /// [`WITHDRAWALS_AT_ONCE`] peers are asked at a time.
    ///
    /// A peer that does not answer in time is cut off: its connection and channels go, so that it has nothing
    /// left to reach us by.
    ///
    /// # Errors
    /// [`Code::Busy`], naming the peer, when one still uses a range; then the others were not all asked, unless the
    /// engine ends.
    pub(super) fn withdraw_at_peers(&self, ranges: &[ByteRange], deadline: Deadline) -> Result<()> {
        let Some(control) = self.control.get() else { return Ok(()) };
        let connections = control.connections();
        let goes_on = self.closed.load(Ordering::Acquire);
        let mut first = Ok(());
        for some in ranges.chunks(RANGES_OF_A_WITHDRAWAL) {
            let outcome = self.withdraw_some(&connections, some, deadline);
            first = first.and(outcome);
            if first.is_err() && !goes_on {
                return first;
            }
        }
        first
    }

    fn withdraw_some(
        &self,
        connections: &[Arc<Connection>],
        ranges: &[ByteRange],
        deadline: Deadline,
    ) -> Result<()> {
        let goes_on = self.closed.load(Ordering::Acquire);
        let mut first = Ok(());
        for some in connections.chunks(WITHDRAWALS_AT_ONCE) {
            if first.is_err() && !goes_on {
                return first;
            }
            if let [connection] = some {
                first = first.and(self.withdraw_at(connection, ranges, deadline));
                continue;
            }
            let outcome = std::thread::scope(|scope| {
                let ask = |connection| {
                    let thread = std::thread::Builder::new().name("mct-withdraw".into());
                    thread.spawn_scoped(scope, move || self.withdraw_at(connection, ranges, deadline))
                };
                let asked: Vec<_> = some.iter().map(|connection| (connection, ask(connection))).collect();
                asked.into_iter().try_for_each(|(connection, thread)| match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|_| {
                        Err(Error::new(Code::Internal, Stage::Register, "a withdrawal ended in a panic"))
                    }),
                    // No thread to be had: this peer is asked in turn.
                    Err(_) => self.withdraw_at(connection, ranges, deadline),
                })
            });
            first = first.and(outcome);
        }
        first
    }

    fn withdraw_at(
        &self,
        connection: &Arc<Connection>,
        ranges: &[ByteRange],
        deadline: Deadline,
    ) -> Result<()> {
        let message = Message::Withdraw {
            ranges: ranges.iter().map(|range| (range.start(), range.length_bytes())).collect(),
            epoch: self.registry.epoch(),
        };
        match connection.request(message, deadline) {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Code::Busy => Err(error.peer(&connection.peer().segment)),
            Err(error) => {
                // Of a peer that is gone already there is nothing to cut.
                let level = if connection.is_alive() { log::Level::Warn } else { log::Level::Debug };
                log::log!(level, "cutting off a peer that did not confirm a withdrawal: {error}");
                connection.close();
                self.peer_lost(&connection.peer().incarnation, &error);
                Ok(())
            }
        }
    }

    /// A peer of that name has called, so that it lives: uses of it need not wait for a back-off to end.
    fn heard_from(&self, name: &str) {
        let Some(segment) = self.segments.by_name(name) else { return };
        if let Some(peer) = self.peers.read().get(&segment.id) {
            peer.heard_from();
        }
    }

    /// The control connection to a process is gone.
    fn peer_lost(&self, incarnation: &Incarnation, why: &Error) {
        for peer in self.peers_of(incarnation) {
            if let Some(Link::Remote(remote)) = peer.ready().filter(|link| link.is_process(incarnation)) {
                remote.close(why);
            }
            peer.lost(why, |link| link.is_process(incarnation));
        }
        if let Some(ascend) = self.npu.opened() {
            ascend.peer_lost(incarnation, why);
        }
    }

    fn peers_of(&self, incarnation: &Incarnation) -> Vec<Arc<crate::peer::Peer<Link>>> {
        let peers = self.peers.read();
        peers
            .values()
            .filter(|peer| peer.ready().is_some_and(|link| link.is_process(incarnation)))
            .cloned()
            .collect()
    }

    /// How long a peer waits for its own transfers before it answers a withdrawal with "busy": half the time
    /// the asking side waits for the answer.
    fn withdraw_deadline(&self) -> Deadline {
        Deadline::after(self.config.handshake_connect_timeout / 2)
    }
}

//! One thread of a route: a piece through a slot of ours, the wire, and a slot of the peer's.
//!
//! A write gathers local blocks into a slot of ours, puts that into a slot the peer has lent, and asks the peer's
//! agent to scatter it; a read is the same the other way round. The peer's slot is asked for first, so that no slot of
//! ours waits for a peer that does not answer; it is kept for the next piece, and given back when there is none for a
//! moment, or when the next one needs no slot.
//!
//! Invariants: a piece is over only when nothing of it runs, here or at the peer: a request that must stop stops the
//! wire by its batch and the agent by a message, and then waits for both. Only the end of the connection ends the
//! wait for the agent. A slot that the agent counts as lent to this lane is the one in hand, the one asked for, or the
//! one owed, of each at most one; while the connection lives and the route is open, the lane ends only when there is
//! none. An exception is a lane that ends by a defect: its slot stays lent until the connection ends, and what it
//! waited for at the peer is not waited for any more.

use std::sync::Arc;
use std::time::Duration;

use super::super::print::Line;
use super::super::slot::Key;
use super::copier::{Copier, Watch, Way};
use super::ring::{OwnSlot, Ring};
use super::route::Route;
use super::work::{Block, End, Piece, Work};
use super::{Staged, both_ends};
use crate::batch::{Batch, Submission};
use crate::control::{DirectMove, Message, Pending, STAGED_PROTOCOL, SlotGrant, SlotMove, SlotUse};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::plan::{self, Direction, Extent};
use crate::transport::{Job, Request, Route as Choice};

/// How long the peer's agent may keep a request for a slot before it is asked again.
const GRANT_WAIT: Duration = Duration::from_millis(500);

/// Pause after an agent had no slot to lend.
const GRANT_PAUSE: Duration = Duration::from_millis(2);

/// How long the peer's slot is kept for the next request, so that those which follow each other need not ask again.
const KEEP: Duration = Duration::from_millis(3);

struct Lane<'a> {
    route: &'a Route,
    staged: &'a Arc<Staged>,
    copier: Copier,
    grant: Option<SlotGrant>,
    /// A slot was asked for and the answer is not there yet.
    asked: Option<Pending>,
    /// A slot that is not ours any more, of which the agent could not be told yet: too much waited to be sent. It is
    /// told before another one is asked for.
    owed: Option<SlotUse>,
    /// Others wait for the slot that is lent to us.
    wanted: bool,
}

/// Runs a lane until there is nothing more for it.
pub fn run(route: &Arc<Route>, staged: &Arc<Staged>) {
    let mut lane = Lane {
        route,
        staged,
        copier: Copier::new(route.station().device(), route.station().gate()),
        grant: None,
        asked: None,
        owed: None,
        wanted: false,
    };
    let mut counted = Counted { route, in_order: false };
    while let Some(piece) = route.next() {
        let mut next = Some(piece);
        while let Some(piece) = next {
            lane.finish(piece);
            if lane.wanted {
                lane.release();
            } else {
                let _ = lane.owes();
            }
            let _ = route.look();
            next = route.next_before(Deadline::after(KEEP));
        }
        lane.give_back();
    }
    counted.in_order = true;
}

/// Tells the route of the lane's end when the lane itself could not.
struct Counted<'a> {
    route: &'a Route,
    in_order: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.in_order {
            self.route.lane_ended();
        }
    }
}

/// A piece as the copier sees it.
struct PieceWatch<'a> {
    request: &'a Request,
    route: &'a Route,
    grace: Duration,
}

impl Watch for PieceWatch<'_> {
    fn stop(&self) -> Option<Error> {
        let _ = self.route.look();
        self.request.must_stop(Stage::Execute, "the staged transfer was stopped")
    }

    fn stuck(&self) {
        self.request.report_if_stuck(self.grace);
        let _ = self.route.look();
    }
}

impl Lane<'_> {
    fn finish(&mut self, piece: Piece) {
        let moved = if piece.work.is_from_both_ends() {
            // It may take long, and others can use the slot meanwhile.
            self.release();
            self.launch_piece(&piece)
        } else {
            self.move_piece(&piece).inspect(|()| self.staged.count(piece.length_bytes))
        };
        let end = moved.map_or_else(End::Failed, |()| End::Arrived);
        let work = Arc::clone(&piece.work);
        let arrived = matches!(end, End::Arrived);
        piece.finish(end);
        if self.staged.config().ascend_print && arrived && work.request().is_finished() && work.tell() {
            self.print(&work);
        }
    }

    /// The line that is asked for; it tells of the whole request.
    fn print(&self, work: &Work) {
        let (request, executing) = (work.request(), work.executing().unwrap_or_default());
        let line = Line {
            request,
            route: if work.is_from_both_ends() { plan::Route::BothEnds } else { plan::Route::Staged },
            link: self.staged.channels.ready_costs(self.key()).map_or("-", |costs| costs.class.link()),
            planning: request.accepted().elapsed().saturating_sub(executing),
            submitting: None,
            executing,
            modelled_us: work.modelled_us(),
        };
        log::info!("{line}");
    }

    /// The pair of devices.
    fn key(&self) -> Key {
        Key {
            local_device: self.route.station().device().id(),
            peer: self.route.connection().peer().incarnation.id,
            remote_device: self.route.remote_device(),
        }
    }

    /// A piece without slots, launched here or by the peer. When it returns, nothing of the piece runs.
    fn launch_piece(&self, piece: &Piece) -> Result<()> {
        let request = piece.work.request();
        let watch = PieceWatch { request, route: self.route, grace: self.staged.config().drain_grace };
        if let Some(error) = watch.stop() {
            return Err(error);
        }
        if piece.by_peer {
            if self.by_peer(request, &piece.blocks, &watch)? {
                self.staged.count_by_peer(piece.length_bytes);
                return Ok(());
            }
            piece.work.peer_refuses();
        }
        self.send(request, both_ends::extents(&piece.blocks), request.job().local_device, &watch)
    }

    /// Has the peer put or get the blocks; false when it does not, and nothing of them runs.
    fn by_peer(&self, request: &Request, blocks: &[Block], watch: &PieceWatch<'_>) -> Result<bool> {
        let connection = self.route.connection();
        let key = self.key();
        let Some(channel) = self.staged.channels.ready_name(key) else { return Ok(false) };
        let number = both_ends::next_number();
        let order = DirectMove {
            device: self.route.remote_device(),
            channel,
            number,
            put: request.direction() == Direction::Read,
            blocks: blocks.iter().map(|block| (block.remote, block.local, block.length_bytes)).collect(),
            timeout_ms: u64::try_from(request.deadline().remaining().as_millis()).unwrap_or(u64::MAX),
        };
        let pending = match connection.ask(&Message::MoveDirect(order)) {
            Ok(pending) => pending,
            Err(error) if connection.is_alive() => {
                log::debug!("a transfer is launched here alone, since the peer cannot be asked: {error}");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        loop {
            let error = match pending.wait(Route::slice()) {
                Ok(Some(Message::Done)) => return Ok(true),
                Ok(Some(_)) => nonsense(),
                Ok(None) => {
                    let _ = self.route.look();
                    if watch.stop().is_some() {
                        // Until it is answered: the first may come before the order itself, which other threads of the
                        // peer serve. Without a connection the answer is that there is none.
                        let _ = connection.send(Message::StopDirect { number });
                        watch.stuck();
                    }
                    continue;
                }
                Err(error) => error,
            };
            if connection.is_alive() {
                log::debug!("the peer launches nothing of a transfer: {error}");
                return watch.stop().map_or(Ok(false), Err);
            }
            // What the peer puts here is over when its channels are.
            let last = self.staged.channels.last_worker();
            while request.direction() == Direction::Read && self.staged.channels_run(key.peer, last) {
                std::thread::sleep(GRANT_PAUSE);
                watch.stuck();
            }
            return Err(error);
        }
    }

    /// All steps of a piece. When it returns, nothing of the piece runs.
    fn move_piece(&mut self, piece: &Piece) -> Result<()> {
        let request = piece.work.request();
        let watch = PieceWatch { request, route: self.route, grace: self.staged.config().drain_grace };
        if let Some(error) = watch.stop() {
            return Err(error);
        }
        let ring = self.route.station().ring()?;
        let grant = self.grant(&watch)?;
        let slot = own_slot(&ring, &watch)?;
        if piece.length_bytes <= grant.length_bytes {
            return self.move_blocks(request, &piece.blocks, grant, &slot, &watch);
        }
        // The peer's slots are shorter than ours.
        for part in cut(&piece.blocks, grant.length_bytes) {
            let grant = self.grant(&watch)?;
            self.move_blocks(request, &part, grant, &slot, &watch)?;
        }
        Ok(())
    }

    /// The steps of blocks that fit both slots.
    fn move_blocks(
        &mut self,
        request: &Request,
        blocks: &[Block],
        grant: SlotGrant,
        slot: &OwnSlot,
        watch: &PieceWatch<'_>,
    ) -> Result<()> {
        let length_bytes = blocks.iter().fold(0, |sum: u64, block| sum.saturating_add(block.length_bytes));
        if length_bytes > grant.length_bytes {
            return Err(nonsense());
        }
        let local = blocks.iter().map(|block| (block.local, block.length_bytes));
        let host = request.job().local_device.is_none();
        match request.direction() {
            Direction::Write => {
                self.copier.copy(Way::Gather, slot.address(), local, host, watch)?;
                self.wire(request, length_bytes, slot, grant.address, watch)?;
                self.by_agent(request, blocks, grant, Way::Scatter, watch)
            }
            Direction::Read => {
                self.by_agent(request, blocks, grant, Way::Gather, watch)?;
                self.wire(request, length_bytes, slot, grant.address, watch)?;
                self.copier.copy(Way::Scatter, slot.address(), local, host, watch)
            }
        }
    }

    /// A slot of the peer's.
    fn grant(&mut self, watch: &PieceWatch<'_>) -> Result<SlotGrant> {
        loop {
            if let Some(grant) = self.grant {
                if grant.length_bytes > 0 {
                    return Ok(grant);
                }
                return Err(nonsense());
            }
            if self.owes() {
                std::thread::sleep(GRANT_PAUSE);
            } else {
                self.ask()?;
            }
            let _ = self.route.look();
            if self.grant.is_none()
                && let Some(error) = watch.stop()
            {
                return Err(error);
            }
        }
    }

    /// Asks for a slot if none is asked for, and waits a moment for the answer.
    fn ask(&mut self) -> Result<()> {
        let pending = match self.asked.take() {
            Some(pending) => pending,
            None => self.route.connection().ask(&Message::OpenSlot {
                protocol: STAGED_PROTOCOL,
                device: self.route.remote_device(),
                wait_ms: u64::try_from(GRANT_WAIT.as_millis()).unwrap_or(u64::MAX),
            })?,
        };
        match pending.wait(Route::slice()) {
            Ok(Some(answer)) => self.grant = Some(granted(answer)?),
            Ok(None) => self.asked = Some(pending),
            Err(error) if matches!(error.code(), Code::Busy | Code::TooManyRequests) => {
                std::thread::sleep(GRANT_PAUSE);
            }
            Err(error) => return Err(no_agent(error)),
        }
        Ok(())
    }

    /// Slot to slot, over the channel.
    fn wire(
        &self,
        request: &Request,
        length_bytes: u64,
        slot: &OwnSlot,
        remote: u64,
        watch: &PieceWatch<'_>,
    ) -> Result<()> {
        let extent = Extent {
            local: slot.address(),
            remote,
            length_bytes,
            first_task: 0,
            task_count: 1,
            skip_bytes: 0,
        };
        self.send(request, vec![extent], Some(self.route.station().device().id()), watch)
    }

    /// Extents, each a task of its own, over the channel; waits for the end.
    fn send(
        &self,
        request: &Request,
        extents: Vec<Extent>,
        local_device: Option<i32>,
        watch: &PieceWatch<'_>,
    ) -> Result<()> {
        let tasks = u32::try_from(extents.len()).unwrap_or(u32::MAX);
        let batch = Arc::new(Batch::new(tasks)?);
        let lengths: Vec<u64> = extents.iter().map(|extent| extent.length_bytes).collect();
        let submission = Submission::start(&batch, lengths, request.deadline())?;
        let job = Job {
            direction: request.direction(),
            extents,
            submission,
            pins: Vec::new(),
            deadline: request.deadline(),
            local_device,
            remote_device: request.job().remote_device,
            route: Choice::Wire,
            peer: Arc::clone(&request.job().peer),
        };
        batch.quiet_after(|| {
            self.staged.put_on_wire(job, self.route);
            both_ends::wait(&batch, watch)
        })
    }

    /// The peer's agent copies between its slot and its memory.
    fn by_agent(
        &mut self,
        request: &Request,
        blocks: &[Block],
        grant: SlotGrant,
        way: Way,
        watch: &PieceWatch<'_>,
    ) -> Result<()> {
        let timeout = request.deadline().remaining();
        let order = SlotMove {
            device: grant.device,
            slot: grant.slot,
            sequence: grant.sequence,
            gather: way == Way::Gather,
            blocks: blocks.iter().map(|block| (block.remote, block.length_bytes)).collect(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let connection = self.route.connection();
        let pending = connection.ask(&Message::MoveSlot(order))?;
        // Whatever comes now, the slot is ours only after an answer that says so.
        self.grant = None;
        let mut told = false;
        loop {
            match pending.wait(Route::slice()) {
                Ok(Some(Message::SlotMoved { sequence, wanted })) => {
                    self.grant = Some(SlotGrant { sequence, ..grant });
                    self.wanted = wanted;
                    return Ok(());
                }
                Ok(Some(_)) => return Err(nonsense()),
                Ok(None) => {}
                Err(error) => {
                    if error.code() == Code::TooManyRequests {
                        // Turned away before the agent saw it, which still counts the slot as lent.
                        self.grant = Some(grant);
                        self.release();
                    }
                    // What was stopped from here has this side's reason.
                    return Err(watch.stop().filter(|_| told).unwrap_or(error));
                }
            }
            let _ = self.route.look();
            if watch.stop().is_some() {
                // Too much may wait to be sent just now: then it is told at the next look.
                told = told || connection.send(Message::StopSlot(usage(grant))).is_ok();
                watch.stuck();
            }
        }
    }

    /// Gives the peer's slot back; as soon as it can be told.
    fn release(&mut self) {
        self.wanted = false;
        let Some(grant) = self.grant.take() else {
            let _ = self.owes();
            return;
        };
        self.owed = Some(usage(grant));
        if self.owes() {
            let peer = &self.route.connection().peer().segment;
            log::debug!("slot {} of {peer} is given back later: too much waits to be sent", grant.slot);
        }
    }

    /// Whether the agent has to be told yet that a slot is its own again; tries to.
    fn owes(&mut self) -> bool {
        let Some(which) = self.owed else { return false };
        let connection = self.route.connection();
        // The end of the connection tells it as well.
        if connection.send(Message::ReleaseSlot(which)).is_ok() || !connection.is_alive() {
            self.owed = None;
        }
        self.owed.is_some()
    }

    /// Leaves nothing lent: neither the slot in hand, nor one that is asked for and not lent yet, which the agent
    /// answers within its own bound, nor one owed. At most until the end of the connection, or of the route, after
    /// which that of the connection comes.
    fn give_back(&mut self) {
        loop {
            if let Some(pending) = self.asked.take() {
                match pending.wait(Route::slice()) {
                    Ok(Some(answer)) => self.grant = granted(answer).ok(),
                    Ok(None) => self.asked = Some(pending),
                    Err(error) => log::debug!("{error}"),
                }
            }
            let until = if self.asked.is_some() {
                Deadline::after(Duration::ZERO)
            } else {
                self.release();
                if self.owed.is_none() || self.route.is_closed() {
                    return;
                }
                Route::slice()
            };
            let _ = self.route.look();
            // More may have come meanwhile, and the slot will be wanted.
            if let Some(piece) = self.route.next_before(until) {
                self.finish(piece);
            }
        }
    }
}

fn own_slot(ring: &Arc<Ring>, watch: &PieceWatch<'_>) -> Result<OwnSlot> {
    loop {
        if let Some(slot) = ring.take(Route::slice()) {
            return Ok(slot);
        }
        let _ = watch.route.look();
        if let Some(error) = watch.stop() {
            return Err(error);
        }
    }
}

/// Blocks in parts of at most `limit_bytes`, which is above 0.
fn cut(blocks: &[Block], limit_bytes: u64) -> Vec<Vec<Block>> {
    let (mut parts, mut part, mut room_bytes) = (Vec::new(), Vec::new(), limit_bytes);
    for block in blocks {
        let mut rest = *block;
        while rest.length_bytes > 0 {
            let length_bytes = rest.length_bytes.min(room_bytes);
            part.push(Block { length_bytes, ..rest });
            rest = Block {
                local: rest.local.saturating_add(length_bytes),
                remote: rest.remote.saturating_add(length_bytes),
                length_bytes: rest.length_bytes - length_bytes,
            };
            room_bytes -= length_bytes;
            if room_bytes == 0 {
                parts.push(std::mem::take(&mut part));
                room_bytes = limit_bytes;
            }
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

fn usage(grant: SlotGrant) -> SlotUse {
    SlotUse { device: grant.device, slot: grant.slot, sequence: grant.sequence }
}

fn granted(answer: Message) -> Result<SlotGrant> {
    match answer {
        Message::SlotGranted(grant) => Ok(grant),
        _ => Err(nonsense()),
    }
}

fn nonsense() -> Error {
    Error::new(
        Code::RejectHandshake,
        Stage::Execute,
        "the peer answered a request about a slot with something else",
    )
}

/// A release without an agent cannot read the question.
fn no_agent(error: Error) -> Error {
    match error.code() {
        Code::MalformedJson | Code::NotImplemented => Error::new(
            Code::NotSupportedTransport,
            Stage::Submit,
            format!("the transfer has to be staged, and the peer has no relay agent: {error}"),
        )
        .advice("run the same release of mooncake-transfer at both ends"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_blocks() {
        let block = |local, length_bytes| Block { local, remote: local + 1000, length_bytes };
        let blocks = [block(0, 5), block(100, 25), block(200, 10), block(300, 1)];
        let parts = cut(&blocks, 10);
        let lengths: Vec<u64> =
            parts.iter().map(|part| part.iter().map(|block| block.length_bytes).sum()).collect();
        assert_eq!(lengths, [10, 10, 10, 10, 1]);
        let bytes = |blocks: &[Block]| -> Vec<(u64, u64)> {
            blocks
                .iter()
                .flat_map(|block| (0..block.length_bytes).map(|at| (block.local + at, block.remote + at)))
                .collect()
        };
        assert_eq!(bytes(&parts.concat()), bytes(&blocks));
        assert!(cut(&[], 10).is_empty());
    }
}

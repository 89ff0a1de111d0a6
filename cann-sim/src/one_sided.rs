//! `HcclBatchPut` and `HcclBatchGet`: checks in the vendor's order, then one task on the caller's stream whose copies
//! run in the initiator's process alone (facts 2.4, point 5).
//!
//! Descriptors are checked and accepted one at a time: an error at descriptor k leaves the k before it on the
//! stream, as on hardware, and on RoCE without the closing fence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abi::OneSideDescriptor;
use crate::block::Place;
use crate::communicator::Communicator;
use crate::context;
use crate::copy::{self, Direction, Interrupted};
use crate::cost::charge::{Descriptor, Launches};
use crate::cost::{self, clock};
use crate::fault::{self, Course, LinkState};
use crate::link::{Link, Peer, Reach};
use crate::rank_table::LinkKind;
use crate::settings::settings;
use crate::status::{Fail, Outcome, acl, hccl};
use crate::stream::{STREAMS, Stream};
use crate::task::{Task, Work};

/// Descriptors one call takes.
pub const DESCRIPTOR_LIMIT: usize = 256;

/// What passes a slowed link between two looks at the clock.
const SLOW_PART_BYTES: usize = 64 << 10;

/// One checked descriptor.
#[derive(Debug, Clone, Copy)]
struct Piece {
    local: usize,
    remote: usize,
    length: usize,
    route: Route,
    local_is_host: bool,
}

/// How a piece's bytes move.
#[derive(Debug, Clone, Copy)]
enum Route {
    /// Both ends are mapped here.
    Mapped,
    /// The remote end is only in its owner's process.
    RemoteProcess(libc::pid_t),
    /// The local end is ordinary memory of this process, the remote end is mapped.
    LocalPlain,
}

/// The accepted descriptors of one call.
struct OneSided {
    link: Arc<Link>,
    direction: Direction,
    pieces: Vec<Piece>,
    /// When each was launched by the cost model.
    launches: Option<Launches>,
}

impl Work for OneSided {
    fn run(&mut self, stream: &Stream) -> Outcome {
        let (own, peer) = self.link.ends;
        let state = fault::at_link(own, peer);
        let rate = match state {
            LinkState::Down => return self.link_error(stream),
            LinkState::Slow(bytes_per_second) => Some(bytes_per_second),
            LinkState::Good => None,
        };
        match (self.link.kind, self.link.peer()) {
            (_, Peer::Alive) | (LinkKind::Hccs, Peer::Departed) => {}
            (LinkKind::Hccs, Peer::Gone) => {
                return Err(Fail::new(
                    acl::SUSPECT_REMOTE_ERROR,
                    "the peer's process is gone; its memory cannot be reached",
                ));
            }
            (LinkKind::Roce, _) => return unanswered(stream),
        }
        match fault::steer("transfer", stream)? {
            Course::Normal => self.move_all(Some(&|| stream.is_aborting()), rate, stream),
            Course::Unstoppable => self.move_all(None, rate, stream),
            Course::Later(time) => {
                self.move_later(time, stream);
                Ok(())
            }
            Course::Aborted => Ok(()),
        }
    }
}

impl OneSided {
    /// Moves the pieces in order, at most `rate` bytes a second; nothing stops it when `aborted` is None.
    fn move_all(&self, aborted: Option<&dyn Fn() -> bool>, rate: Option<u64>, stream: &Stream) -> Outcome {
        let (own, peer) = self.link.ends;
        let aborted = || aborted.is_some_and(|aborted| aborted());
        let stop = || aborted() || fault::link_is_down(own, peer);
        let limit = self.part_limit(rate);
        let started = Instant::now();
        let mut moved_bytes = 0_u64;
        for (index, whole) in self.pieces.iter().enumerate() {
            self.charge(index, whole, stream);
            for (number, piece) in whole.parts(limit).enumerate() {
                let result = if stop() { Err(Interrupted::Stopped) } else { self.pass(&piece, &stop) };
                match result {
                    Ok(()) => {}
                    Err(Interrupted::Stopped) if aborted() => {
                        self.abandon(index, number.saturating_mul(limit), rate);
                        return Ok(());
                    }
                    Err(Interrupted::Stopped) => return self.link_error(stream),
                    // The owner's memory is unmapped or its process ended: the NIC gets no answer.
                    Err(Interrupted::Refused(_)) => return unanswered(stream),
                }
                moved_bytes = moved_bytes.saturating_add(u64::try_from(piece.length).unwrap_or(u64::MAX));
                if let Some(rate) = rate {
                    // Waits on an abort too; whether there was one is asked before the next part.
                    stream.hang(started.checked_add(time_of(moved_bytes, rate)));
                }
            }
        }
        stream.settle();
        Ok(())
    }

    /// Charges a piece to the device and the wire, and waits for its beginning.
    fn charge(&self, index: usize, piece: &Piece, stream: &Stream) {
        let (Some(costs), Some(launches)) = (cost::costs(), &self.launches) else { return };
        let ready_ns = launches.end_of(index).max(stream.model_end_ns());
        stream.hold(ready_ns.saturating_sub(clock::LEAD_NS));
        let descriptor = Descriptor {
            kind: self.link.kind,
            ends: self.link.places,
            direction: self.direction,
            local_is_host: piece.local_is_host,
            length: piece.length,
        };
        stream.extend(costs.descriptor(stream.device, &descriptor, ready_ns));
    }

    /// Moves one part. A card moves nothing for a communicator that was destroyed: its queue pair is gone.
    fn pass(&self, piece: &Piece, stop: &dyn Fn() -> bool) -> Result<(), Interrupted> {
        if self.link.kind == LinkKind::Hccs {
            return piece.run(self.direction, stop);
        }
        let gone = || Err(Interrupted::Refused(std::io::ErrorKind::NotConnected.into()));
        let mut result = None;
        self.link.line.pass(|| result = Some(piece.run(self.direction, stop)));
        result.unwrap_or_else(gone)
    }

    /// Bytes between two looks whether to go on. On RoCE a part is also what the card moves as a whole.
    fn part_limit(&self, rate: Option<u64>) -> usize {
        match (rate, self.link.kind) {
            (Some(_), _) => SLOW_PART_BYTES,
            (None, LinkKind::Roce) => copy::CHUNK,
            (None, LinkKind::Hccs) => usize::MAX,
        }
    }

    /// The stream was aborted inside the batch. The chip's copies end with their task; the doorbells of a RoCE batch
    /// have all rung by then, and the card goes on with its work requests until the queue pair is destroyed.
    fn abandon(&self, index: usize, done: usize, rate: Option<u64>) {
        if self.link.kind == LinkKind::Hccs {
            return;
        }
        let mut rest: Vec<Piece> = self.pieces.get(index..).unwrap_or_default().to_vec();
        if let Some(piece) = rest.first_mut() {
            let done = done.min(piece.length);
            *piece = Piece {
                local: piece.local + done,
                remote: piece.remote + done,
                length: piece.length - done,
                ..*piece
            };
        }
        let (link, direction) = (Arc::clone(&self.link), self.direction);
        // Without a thread the bytes stay away, as those of a card that gave up.
        let _ = std::thread::Builder::new()
            .name("npu-nic".to_owned())
            .spawn(move || land(&link, direction, &rest, rate));
    }

    /// The bytes land in their own time, unless the communicator is destroyed before.
    fn move_later(&self, time: Duration, stream: &Stream) {
        let (link, direction, pieces) = (Arc::clone(&self.link), self.direction, self.pieces.clone());
        fault::land_later(stream, time, move || land(&link, direction, &pieces, None));
    }

    /// Nothing passes: HCCS says so, RoCE waits for an answer.
    fn link_error(&self, stream: &Stream) -> Outcome {
        let (own, peer) = self.link.ends;
        match self.link.kind {
            LinkKind::Hccs => Err(Fail::new(
                acl::LINK_ERROR,
                format!("the link between the physical NPUs {own} and {peer} is down"),
            )),
            LinkKind::Roce => unanswered(stream),
        }
    }
}

/// Moves pieces that no stream waits for; the link's regions keep alive what they name.
fn land(link: &Link, direction: Direction, pieces: &[Piece], rate: Option<u64>) {
    let started = Instant::now();
    let mut moved_bytes = 0_u64;
    for piece in pieces.iter().flat_map(|piece| piece.parts(rate.map_or(copy::CHUNK, |_| SLOW_PART_BYTES))) {
        let passed = link.line.pass(|| {
            // A range that is not there any more takes nothing.
            let _ = piece.run(direction, &|| false);
        });
        if !passed {
            return;
        }
        moved_bytes = moved_bytes.saturating_add(u64::try_from(piece.length).unwrap_or(u64::MAX));
        if let Some(rate) = rate {
            let due = started.checked_add(time_of(moved_bytes, rate));
            std::thread::sleep(
                due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now())),
            );
        }
    }
}

/// How long `bytes` take at `rate` bytes a second.
fn time_of(bytes: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

impl Piece {
    /// The piece in parts of at most `limit` bytes.
    fn parts(&self, limit: usize) -> impl Iterator<Item = Self> {
        let Self { local, remote, length, .. } = *self;
        (0..length).step_by(limit).map(move |offset| Self {
            local: local + offset,
            remote: remote + offset,
            length: limit.min(length - offset),
            ..*self
        })
    }

    fn run(&self, direction: Direction, stop: &dyn Fn() -> bool) -> Result<(), Interrupted> {
        let Self { local, remote, length, route, .. } = *self;
        match (route, direction) {
            (Route::Mapped, Direction::Write) => copy::move_mapped(remote, local, length, stop),
            (Route::Mapped, Direction::Read) => copy::move_mapped(local, remote, length, stop),
            (Route::RemoteProcess(pid), _) => copy::move_foreign(pid, local, remote, length, direction, stop),
            (Route::LocalPlain, Direction::Write) => copy::move_checked(remote, local, length, stop),
            (Route::LocalPlain, Direction::Read) => copy::move_checked(local, remote, length, stop),
        }
    }
}

/// A RoCE link without a partner: the stream waits for its notify until it is aborted or the execution times out.
fn unanswered(stream: &Stream) -> Outcome {
    let limit = Duration::from_secs(settings().execution_timeout_seconds);
    if stream.hang(Instant::now().checked_add(limit)) {
        return Ok(());
    }
    Err(Fail::new(acl::SUSPECT_REMOTE_ERROR, "the peer did not answer within the execution timeout"))
}

/// Bytes of one element of a `HcclDataType`.
fn element_size(data_type: i32) -> Option<usize> {
    match data_type {
        0 | 7 | 14..=17 => Some(1),
        1 | 3 | 8 | 11 => Some(2),
        2 | 4 | 9 => Some(4),
        5 | 6 | 10 => Some(8),
        12 => Some(16),
        _ => None,
    }
}

fn check(link: &Link, descriptor: &OneSideDescriptor) -> Outcome<Piece> {
    let element = element_size(descriptor.data_type)
        .ok_or_else(|| Fail::new(hccl::E_PARA, format!("{} is no data type", descriptor.data_type)))?;
    let (local, remote) = (descriptor.local as usize, descriptor.remote as usize);
    if local == 0 || remote == 0 || descriptor.count == 0 {
        return Err(Fail::new(hccl::E_PARA, "a descriptor has a NULL address or the count 0"));
    }
    let length = usize::try_from(descriptor.count)
        .ok()
        .and_then(|count| count.checked_mul(element))
        .ok_or_else(|| Fail::new(hccl::E_PARA, format!("{} elements are too many", descriptor.count)))?;
    let (remote_region, remote_offset) = link.remote.find(remote, length).ok_or_else(|| {
        Fail::new(
            hccl::E_INTERNAL,
            format!("Can't find remoteBuffer by key: {length} bytes at {remote:#x} lie in no single region of the peer"),
        )
    })?;
    let (local_region, local_offset) = link.local.find(local, length).ok_or_else(|| {
        Fail::new(
            hccl::E_INTERNAL,
            format!(
                "Can't find localBuffer by key: {length} bytes at {local:#x} lie in no single bound region"
            ),
        )
    })?;
    let (local, local_is_plain) = match local_region.reach {
        Reach::Mapped { base, .. } => (base + local_offset, false),
        Reach::Process(_) => (local, true),
    };
    let (remote, route) = match remote_region.reach {
        Reach::Mapped { base, .. } if local_is_plain => (base + remote_offset, Route::LocalPlain),
        Reach::Mapped { base, .. } => (base + remote_offset, Route::Mapped),
        Reach::Process(pid) => (remote, Route::RemoteProcess(pid)),
    };
    let local_is_host = match &local_region.reach {
        Reach::Mapped { block, .. } => block.as_ref().is_some_and(|block| block.place == Place::Host),
        Reach::Process(_) => true,
    };
    Ok(Piece { local, remote, length, route, local_is_host })
}

/// The stream of a put or get: never NULL, of the current context.
fn stream_of(handle: usize) -> Outcome<Arc<Stream>> {
    let context = context::current().map_err(|fail| fail.with_code(hccl::E_RUNTIME))?;
    STREAMS.get(handle).filter(|stream| stream.context_handle() == context.handle).ok_or_else(|| {
        Fail::new(hccl::E_RUNTIME, format!("{handle:#x} is no live stream of the current context"))
    })
}

/// Checks and submits one call; pointers were checked before.
pub fn submit(
    communicator: &Communicator,
    remote_rank: u32,
    descriptors: &[OneSideDescriptor],
    stream: usize,
    direction: Direction,
) -> Outcome {
    if descriptors.len() > DESCRIPTOR_LIMIT {
        return Err(Fail::new(
            hccl::E_PARA,
            format!("{} descriptors are more than {DESCRIPTOR_LIMIT}", descriptors.len()),
        ));
    }
    if remote_rank >= communicator.size || remote_rank == communicator.rank {
        return Err(Fail::new(
            hccl::E_PARA,
            format!("rank {remote_rank} is our own or not below {}", communicator.size),
        ));
    }
    let link = communicator
        .link(remote_rank)
        .ok_or_else(|| Fail::new(hccl::E_NOT_FOUND, format!("no link to rank {remote_rank} is prepared")))?;
    let stream = stream_of(stream)?;
    let mut pieces = Vec::with_capacity(descriptors.len());
    let mut failure = None;
    for (index, descriptor) in descriptors.iter().enumerate() {
        match check(&link, descriptor) {
            Ok(piece) => pieces.push(piece),
            Err(mut fail) => {
                fail.text = format!("descriptor {index}: {}", fail.text);
                failure = Some(fail);
                break;
            }
        }
    }
    if !pieces.is_empty() {
        let count = pieces.len();
        let began_ns = cost::costs().map_or(0, |_| clock::launching_ns());
        let launches =
            cost::costs().map(|costs| costs.launch_descriptors(stream.device, link.kind, direction, count));
        let work = Task::Work(Box::new(OneSided { link, direction, pieces, launches }));
        let submitted = match launches {
            None => stream.submit(work),
            Some(launches) => stream.submit_at(work, launches.end_of(0)),
        };
        submitted.map_err(|fail| fail.with_code(hccl::E_RUNTIME))?;
        if let Some(launches) = launches {
            clock::pass(began_ns, launches.end_of(count.saturating_sub(1)), clock::LEAD_NS);
        }
    }
    failure.map_or(Ok(()), Err)
}

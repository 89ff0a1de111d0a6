//! The older family of one-sided HCCL (facts 2.3 and 2.4 point 7): memory is registered with a communicator for one
//! peer, described in 512 bytes, exchanged with that peer, and enabled by it.
//!
//! A pair can exchange again; what was exchanged before stays. A link is rebuilt whenever its memory changes, so that
//! tasks already on a stream keep the one they began with. What hardware does with memory registered twice, or with a
//! description of another communicator, is not documented: a duplicate answers the same description, an overlap and
//! a foreign description are refused.
//!
//! Locks: `pairs` is not held while ranks meet.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;

use crate::abi::MemoryDescription;
use crate::clock::Deadline;
use crate::communicator::{self, Communicator, LINK_BYTES, LinkBuffers};
use crate::device::Device;
use crate::fd_channel;
use crate::link::{self, Line, Link, Reachable};
use crate::rank_table::LinkKind;
use crate::region::{Region, RegionKind};
use crate::rendezvous::{Meeting, Offer};
use crate::status::{Fail, Outcome, hccl};

/// The longest region of device memory (facts 2.4 point 7).
const DEVICE_LIMIT_BYTES: u64 = 64 << 30;
/// The longest region of host memory (facts 2.4 point 7).
const HOST_LIMIT_BYTES: u64 = 1 << 40;
/// Regions one exchange carries.
const EXCHANGE_LIMIT: usize = 4096;
/// What a description made here begins with.
const MAGIC: u64 = 0x6361_6e6e_6d65_6d31;

/// One region of a peer.
#[derive(Debug, Clone)]
struct Remote {
    kind: RegionKind,
    reachable: Reachable,
    is_enabled: bool,
}

/// What we share with one peer.
#[derive(Default)]
struct Pair {
    local: Vec<Arc<Region>>,
    remote: Vec<Remote>,
    line: Option<Arc<Line>>,
    link: Option<Arc<Link>>,
}

/// The memory of a communicator by the older family.
#[derive(Default)]
pub struct Descriptions {
    pairs: Mutex<BTreeMap<u32, Pair>>,
}

impl Descriptions {
    /// The link to a rank, once descriptions were exchanged with it.
    pub fn link(&self, rank: u32) -> Option<Arc<Link>> {
        self.pairs.lock().get(&rank)?.link.clone()
    }

    /// Ends the links, with their communicator.
    pub fn end(&self, device: &Device) {
        for pair in std::mem::take(&mut *self.pairs.lock()).into_values() {
            if let Some(line) = pair.line {
                line.close();
                device.heap.discharge(LINK_BYTES);
            }
        }
    }
}

fn word(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn kind_of(number: u64) -> Outcome<RegionKind> {
    match number {
        0 => Ok(RegionKind::Device),
        1 => Ok(RegionKind::Host),
        other => Err(Fail::new(hccl::E_PARA, format!("memory type {other} is neither device nor host"))),
    }
}

fn number_of(kind: RegionKind) -> u64 {
    match kind {
        RegionKind::Device => 0,
        RegionKind::Host => 1,
    }
}

fn description(from: u32, to: u32, kind: RegionKind, start: usize, length: usize) -> MemoryDescription {
    MemoryDescription {
        local_rank: from,
        remote_rank: to,
        words: [MAGIC, word(start), word(length), number_of(kind)],
        rest: [0; 472],
    }
}

/// The range that a description names.
fn named(description: &MemoryDescription) -> Outcome<(RegionKind, usize, usize)> {
    let [magic, start, length, kind] = description.words;
    let (Ok(start), Ok(length), MAGIC) = (usize::try_from(start), usize::try_from(length), magic) else {
        return Err(Fail::new(hccl::E_PARA, "this is no description of memory"));
    };
    Ok((kind_of(kind)?, start, length))
}

fn unknown() -> Fail {
    Fail::new(hccl::E_PARA, "the description is of no memory that this communicator knows")
}

impl Communicator {
    /// `HcclRegisterMem`: for our own rank there is nothing to do, and nothing is described.
    pub fn describe(
        &self,
        remote_rank: u32,
        kind: i32,
        start: usize,
        length: u64,
    ) -> Outcome<Option<MemoryDescription>> {
        let kind = kind_of(u64::try_from(kind).unwrap_or(u64::MAX))?;
        let limit = if kind == RegionKind::Device { DEVICE_LIMIT_BYTES } else { HOST_LIMIT_BYTES };
        if start == 0 || length == 0 || length > limit {
            return Err(Fail::new(
                hccl::E_PARA,
                format!("the address is NULL, or {length} bytes are none or more than {limit}"),
            ));
        }
        let link_kind = self.link_kind(remote_rank)?;
        if remote_rank == self.rank {
            return Ok(None);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let end = start
            .checked_add(length)
            .ok_or_else(|| Fail::new(hccl::E_PARA, "the range passes the end of memory"))?;
        let region = Arc::new(Region {
            handle: 0,
            kind,
            start,
            length,
            user_id: self.device.user_id,
            bound: AtomicUsize::new(0),
        });
        // The older family registers with card or chip at once, so that bad memory is found out here.
        link::make_offer(link_kind, self.device.user_id, std::slice::from_ref(&region))?;
        let mut pairs = self.descriptions.pairs.lock();
        let pair = pairs.entry(remote_rank).or_default();
        let same = |other: &Arc<Region>| other.kind == kind && other.start == start && other.length == length;
        if !pair.local.iter().any(same) {
            let overlaps = |other: &Arc<Region>| {
                other.kind == kind && start < other.start + other.length && other.start < end
            };
            if pair.local.iter().any(overlaps) {
                return Err(Fail::new(hccl::E_PARA, "the range overlaps one registered for this rank"));
            }
            pair.local.push(region);
            self.rebuild(remote_rank, pair)?;
        }
        Ok(Some(description(self.rank, remote_rank, kind, start, length)))
    }

    /// `HcclDeregisterMem`; the peer is not told.
    pub fn forget(&self, description: &MemoryDescription) -> Outcome {
        let (kind, start, length) = named(description)?;
        let mut pairs = self.descriptions.pairs.lock();
        let pair = pairs
            .get_mut(&description.remote_rank)
            .filter(|_| description.local_rank == self.rank)
            .ok_or_else(unknown)?;
        let count = pair.local.len();
        pair.local.retain(|region| (region.kind, region.start, region.length) != (kind, start, length));
        if pair.local.len() == count {
            return Err(unknown());
        }
        self.rebuild(description.remote_rank, pair)
    }

    /// `HcclExchangeMemDesc`: blocks until the peer does the same, and answers its descriptions.
    pub fn exchange(
        &self,
        remote_rank: u32,
        local: &[MemoryDescription],
        timeout_seconds: i32,
        room: usize,
    ) -> Outcome<Vec<MemoryDescription>> {
        let deadline = communicator::deadline(timeout_seconds)?;
        let kind = self.link_kind(remote_rank)?;
        if remote_rank == self.rank || local.len() > EXCHANGE_LIMIT {
            return Err(Fail::new(hccl::E_PARA, "the rank is our own, or there are too many descriptions"));
        }
        let regions = self.regions_of(remote_rank, local)?;
        let is_first = self.descriptions.link(remote_rank).is_none();
        let buffers = LinkBuffers::take(self.device, usize::from(is_first));
        let offer = Offer {
            is_exhausted: buffers.is_none(),
            ..link::make_offer(kind, self.device.user_id, &regions)?
        };
        let kinds: Vec<u64> = regions
            .iter()
            // What `make_offer` offers: HCCS takes no host memory.
            .filter(|region| kind == LinkKind::Roce || region.kind == RegionKind::Device)
            .map(|region| number_of(region.kind))
            .collect();
        let failed = |error: std::io::Error| self.meeting_failed(&error);
        self.wait_for_link(remote_rank, deadline).map_err(failed)?;
        let (low, high) = (self.rank.min(remote_rank), self.rank.max(remote_rank));
        let place = u32::from(self.rank != low);
        let purpose = format!("exchange {low} {high}");
        let meeting =
            Meeting::open(self.meeting_key(purpose.as_bytes()), place, 2, deadline).map_err(failed)?;
        let (socket, theirs) = self.meet(&meeting, 1 - place, &offer, deadline)?;
        let their_kinds =
            exchange_kinds(&socket, place, &kinds, theirs.regions.len(), deadline).map_err(failed)?;
        let reachable = link::reach(&theirs)?;
        if reachable.len() > room {
            return Err(Fail::new(
                hccl::E_PARA,
                format!("the peer has {} descriptions, the array has room for {room}", reachable.len()),
            ));
        }
        let mut answer = Vec::new();
        let mut pairs = self.descriptions.pairs.lock();
        let pair = pairs.entry(remote_rank).or_default();
        if pair.line.is_none() {
            if let Some(buffers) = buffers {
                buffers.keep();
            }
            pair.line = Some(Arc::new(Line::new(socket)));
        }
        for (reachable, kind) in reachable.into_iter().zip(their_kinds) {
            let kind = kind_of(kind)?;
            answer.push(description(remote_rank, self.rank, kind, reachable.start, reachable.length));
            let same = |old: &&mut Remote| {
                old.kind == kind
                    && (old.reachable.start, old.reachable.length) == (reachable.start, reachable.length)
            };
            match pair.remote.iter_mut().find(same) {
                Some(old) => old.reachable = reachable,
                None => pair.remote.push(Remote { kind, reachable, is_enabled: false }),
            }
        }
        self.rebuild(remote_rank, pair)?;
        Ok(answer)
    }

    /// The regions that descriptions of ours name.
    fn regions_of(&self, remote_rank: u32, local: &[MemoryDescription]) -> Outcome<Vec<Arc<Region>>> {
        let pairs = self.descriptions.pairs.lock();
        let known = pairs.get(&remote_rank).map(|pair| pair.local.as_slice()).unwrap_or_default();
        let find = |description: &MemoryDescription| {
            let wanted = named(description)?;
            known
                .iter()
                .find(|region| {
                    (region.kind, region.start, region.length) == wanted
                        && (description.local_rank, description.remote_rank) == (self.rank, remote_rank)
                })
                .cloned()
                .ok_or_else(unknown)
        };
        local.iter().map(find).collect()
    }

    /// `HcclEnableMemAccess` and, with false, `HcclDisableMemAccess`; answers the peer's range.
    pub fn enable(
        &self,
        description: &MemoryDescription,
        is_enabled: bool,
    ) -> Outcome<(RegionKind, usize, usize)> {
        let (kind, start, length) = named(description)?;
        let mut pairs = self.descriptions.pairs.lock();
        let pair = pairs
            .get_mut(&description.local_rank)
            .filter(|_| description.remote_rank == self.rank)
            .ok_or_else(unknown)?;
        let remote = pair
            .remote
            .iter_mut()
            .find(|remote| {
                (remote.kind, remote.reachable.start, remote.reachable.length) == (kind, start, length)
            })
            .ok_or_else(unknown)?;
        remote.is_enabled = is_enabled;
        self.rebuild(description.local_rank, pair)?;
        Ok((kind, start, length))
    }

    fn rebuild(&self, rank: u32, pair: &mut Pair) -> Outcome {
        let Some(line) = &pair.line else { return Ok(()) };
        let kind = self.link_kind(rank)?;
        let remote =
            pair.remote.iter().filter(|remote| remote.is_enabled).map(|remote| remote.reachable.clone());
        let local = link::resolve_local(&pair.local, Self::host_is_usable(kind));
        let link =
            Link::new(kind, self.ends(rank), self.places(rank)?, Arc::clone(line), remote.collect(), local);
        pair.link = Some(Arc::new(link));
        Ok(())
    }
}

/// Tells the kinds of the offered regions, in their order, and hears the peer's. The lower rank speaks first.
fn exchange_kinds(
    socket: &UnixStream,
    place: u32,
    kinds: &[u64],
    count: usize,
    deadline: Deadline,
) -> std::io::Result<Vec<u64>> {
    let own: Vec<u8> = kinds.iter().map(|kind| u8::from(*kind != 0)).collect();
    let mut theirs = vec![0; count];
    if place == 0 {
        fd_channel::send(socket, &own, deadline)?;
    }
    fd_channel::receive(socket, &mut theirs, deadline)?;
    if place != 0 {
        fd_channel::send(socket, &own, deadline)?;
    }
    Ok(theirs.into_iter().map(u64::from).collect())
}

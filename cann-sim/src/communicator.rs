//! Communicators: made from a rank table, given memory, prepared together, used by put and get (facts 2.4).
//!
//! A communicator belongs to (process, device), not to a context. Its name is unique among the live communicators of
//! a device in this process. The memory set freezes when it is prepared. Destroying it is local; the peer only
//! notices on RoCE, where its work requests no longer find a partner.
//!
//! Locks: `preparing` is held over the whole meeting and by nobody else; `bound` and `prepared` are leaves.

use std::collections::HashSet;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::card;
use crate::clock::Deadline;
use crate::context;
use crate::cost::{self, ledger::Place};
use crate::description::Descriptions;
use crate::device::{self, Device};
use crate::fault;
use crate::handle::Handles;
use crate::link::{self, Line, Link};
use crate::rank_table::{self, LinkKind, Rank, RankTable};
use crate::region::{self, Region};
use crate::rendezvous::{self, Meeting, Offer};
use crate::server_port::{self, HeldPort};
use crate::settings::settings;
use crate::status::{Fail, Outcome, hccl};

/// Device memory that one link takes for its own buffers (facts 2.4 point 4).
pub const LINK_BYTES: usize = 2 << 20;

/// Pause between two looks at a link that is down.
const DOWN_LINK_PAUSE: Duration = Duration::from_millis(2);

/// Links by rank, our own place empty.
type Links = Arc<Vec<Option<Arc<Link>>>>;

/// One communicator.
pub struct Communicator {
    /// The name both sides gave.
    pub name: String,
    /// The device that was current when it was made.
    pub device: &'static Device,
    /// Our rank.
    pub rank: u32,
    /// Number of ranks.
    pub size: u32,
    table: RankTable,
    table_text: String,
    quality_is_valid: bool,
    bound: Mutex<Vec<Arc<Region>>>,
    preparing: Mutex<()>,
    prepared: Mutex<Option<Links>>,
    /// The older family's memory and links.
    pub descriptions: Descriptions,
    /// The port our card listens at for higher ranks.
    port: Mutex<Option<Arc<HeldPort>>>,
}

/// Device memory for the buffers of links, given back unless it is kept.
pub struct LinkBuffers {
    device: &'static Device,
    bytes: usize,
}

impl LinkBuffers {
    /// Takes the memory of so many links, if the device has it.
    pub fn take(device: &'static Device, count: usize) -> Option<Self> {
        let bytes = LINK_BYTES.saturating_mul(count);
        device.heap.charge(bytes).then_some(Self { device, bytes })
    }

    /// The links are there; their end gives the memory back.
    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for LinkBuffers {
    fn drop(&mut self) {
        self.device.heap.discharge(self.bytes);
    }
}

/// Live communicators.
pub static COMMUNICATORS: Handles<Communicator> = Handles::new(0x55);

/// Names in use, with the device's user id.
static NAMES: LazyLock<Mutex<HashSet<(u32, String)>>> = LazyLock::new(Mutex::default);

/// The communicator of a handle.
pub fn resolve(handle: usize) -> Outcome<Arc<Communicator>> {
    COMMUNICATORS
        .get(handle)
        .ok_or_else(|| Fail::new(hccl::E_PARA, format!("{handle:#x} is no live communicator")))
}

/// The current device, with the number HCCL answers when there is none. That the number is 15 is inferred: the facts
/// say only that a device must be current, and 15 is what a failed runtime call becomes.
pub fn current_device() -> Outcome<&'static Device> {
    Ok(context::current().map_err(|fail| fail.with_code(hccl::E_RUNTIME))?.device)
}

/// `HcclCommInitClusterInfoMemConfig`. Whether traffic class and service level are valid counts only when the
/// communicator connects (facts 2.2).
pub fn create(table_text: &str, rank: u32, name: &str, quality_is_valid: bool) -> Outcome<usize> {
    let settings = settings();
    if let Err(text) = &settings.connect_timeout_seconds {
        return Err(Fail::new(
            hccl::E_PARA,
            format!("EI0001: HCCL_CONNECT_TIMEOUT is \"{text}\", not a number of seconds from 120 to 7200"),
        ));
    }
    if name.is_empty() {
        return Err(Fail::new(hccl::E_PARA, "the communicator's name is empty"));
    }
    let device = current_device()?;
    let _server = server_port::initialise()?;
    let table = rank_table::parse(table_text, settings)?;
    let size = u32::try_from(table.ranks.len()).map_err(|_| Fail::new(hccl::E_PARA, "too many ranks"))?;
    let own = usize::try_from(rank).ok().and_then(|index| table.ranks.get(index)).ok_or_else(|| {
        Fail::new(hccl::E_PARA, format!("rank {rank} is not below the {size} ranks of the table"))
    })?;
    if own.device_id != device.physical_id {
        return Err(Fail::new(
            hccl::E_PARA,
            format!(
                "rank {rank} is device {} in the rank table, the current device is physical {}",
                own.device_id, device.physical_id
            ),
        ));
    }
    if !NAMES.lock().insert((device.user_id, name.to_owned())) {
        return Err(Fail::new(
            hccl::E_PARA,
            format!("a communicator named {name} lives on device {} of this process", device.user_id),
        ));
    }
    let communicator = Communicator {
        name: name.to_owned(),
        device,
        rank,
        size,
        table,
        table_text: table_text.to_owned(),
        quality_is_valid,
        bound: Mutex::default(),
        preparing: Mutex::new(()),
        prepared: Mutex::new(None),
        descriptions: Descriptions::default(),
        port: Mutex::new(None),
    };
    let handle = COMMUNICATORS.reserve();
    COMMUNICATORS.insert(handle, Arc::new(communicator));
    Ok(handle)
}

/// `HcclCommDestroy`: all memory must be unbound; the peer is not told.
pub fn destroy(handle: usize) -> Outcome {
    let removed = COMMUNICATORS.remove_if(handle, |communicator| {
        let bound = communicator.bound.lock().len();
        if bound > 0 {
            return Err(Fail::new(hccl::E_PARA, format!("{bound} registered ranges are still bound")));
        }
        Ok(())
    });
    let communicator = match removed {
        None => return Err(Fail::new(hccl::E_PARA, format!("{handle:#x} is no live communicator"))),
        Some(result) => result?,
    };
    let links = communicator.prepared.lock().take();
    if let Some(links) = links {
        communicator.device.heap.discharge(LINK_BYTES * links.iter().flatten().count());
        links.iter().flatten().for_each(|link| link.line.close());
    }
    communicator.descriptions.end(communicator.device);
    communicator.port.lock().take();
    NAMES.lock().remove(&(communicator.device.user_id, communicator.name.clone()));
    Ok(())
}

impl Communicator {
    /// `HcclCommBindMem`.
    pub fn bind(&self, handle: usize) -> Outcome {
        let region = region::bind(handle)?;
        let mut bound = self.bound.lock();
        if bound.iter().any(|other| other.handle == handle) || region.user_id != self.device.user_id {
            region::unbind(&region);
            return Err(Fail::new(hccl::E_PARA, "the memory is bound already, or belongs to another device"));
        }
        bound.push(region);
        Ok(())
    }

    /// `HcclCommUnbindMem`.
    pub fn unbind(&self, handle: usize) -> Outcome {
        let mut bound = self.bound.lock();
        let index = bound.iter().position(|region| region.handle == handle).ok_or_else(|| {
            Fail::new(hccl::E_PARA, format!("{handle:#x} is not bound to this communicator"))
        })?;
        region::unbind(&bound.remove(index));
        Ok(())
    }

    /// The link to a rank, once prepared, or once its descriptions were exchanged.
    pub fn link(&self, rank: u32) -> Option<Arc<Link>> {
        let index = usize::try_from(rank).ok()?;
        let prepared = self.prepared.lock().as_ref().and_then(|links| links.get(index).cloned().flatten());
        prepared.or_else(|| self.descriptions.link(rank))
    }

    /// `HcclCommPrepare`: blocks until every rank of the table is here, or the time is over.
    pub fn prepare(&self, timeout_seconds: i32) -> Outcome {
        let deadline = deadline(timeout_seconds)?;
        let _preparing = self.preparing.lock();
        if self.prepared.lock().is_some() {
            return Ok(());
        }
        if !self.quality_is_valid {
            return Err(Fail::new(
                hccl::E_PARA,
                "the traffic class is above 255 or the service level above 7",
            ));
        }
        let count = usize::try_from(self.size).unwrap_or(usize::MAX).saturating_sub(1);
        let buffers = LinkBuffers::take(self.device, count);
        let links =
            self.meet_all(buffers.is_none(), deadline).inspect_err(|_| drop(self.port.lock().take()))?;
        if let Some(buffers) = buffers {
            buffers.keep();
        }
        *self.prepared.lock() = Some(Arc::new(links));
        Ok(())
    }

    fn meet_all(&self, is_exhausted: bool, deadline: Deadline) -> Outcome<Vec<Option<Arc<Link>>>> {
        let bound = self.bound.lock().clone();
        let kinds: Vec<LinkKind> = (0..self.size).map(|rank| self.link_kind(rank)).collect::<Outcome<_>>()?;
        let failed = |error: io::Error| self.meeting_failed(&error);
        if kinds.contains(&LinkKind::Roce) {
            card::check(self.member(self.rank)?)?;
        }
        // The checks of our own memory come first: they need no peer.
        let mut offers = Vec::new();
        for (rank, kind) in (0_u32..).zip(&kinds) {
            offers.push(if rank == self.rank {
                None
            } else {
                Some(Offer { is_exhausted, ..link::make_offer(*kind, self.device.user_id, &bound)? })
            });
        }
        self.listen(&kinds)?;
        let meeting =
            Meeting::open(self.meeting_key(b"prepare"), self.rank, self.size, deadline).map_err(failed)?;
        let mut links = Vec::new();
        for ((rank, kind), offer) in (0_u32..).zip(kinds).zip(&offers) {
            links.push(match offer {
                None => None,
                Some(offer) => {
                    self.wait_for_link(rank, deadline).map_err(failed)?;
                    let (socket, theirs) = self.meet(&meeting, rank, offer, deadline)?;
                    let local = link::resolve_local(&bound, Self::host_is_usable(kind));
                    let remote = link::reach(&theirs)?;
                    Some(Arc::new(Link::new(
                        kind,
                        self.ends(rank),
                        self.places(rank)?,
                        Arc::new(Line::new(socket)),
                        remote,
                        local,
                    )))
                }
            });
        }
        Ok(links)
    }

    /// Meets the rank at a place; one of the two may have come only to say that its device is full (facts 2.4
    /// point 4: 13 at the other).
    pub fn meet(
        &self,
        meeting: &Meeting,
        place: u32,
        offer: &Offer,
        deadline: Deadline,
    ) -> Outcome<(UnixStream, Offer)> {
        let met = meeting.meet(place, offer, deadline).map_err(|error| self.meeting_failed(&error))?;
        if offer.is_exhausted {
            // Inferred: the facts tell what the peer of a full device sees (13), not what its own side answers.
            return Err(Fail::new(hccl::E_MEMORY, "no device memory is left for the buffers of the link"));
        }
        if met.1.is_exhausted {
            return Err(Fail::new(hccl::E_TCP_TRANSFER, "the peer has no device memory left for the link"));
        }
        Ok(met)
    }

    /// What every rank must see alike: peers that disagree on it never meet.
    pub fn meeting_key(&self, purpose: &[u8]) -> String {
        let settings = settings();
        rendezvous::key(&[
            settings.namespace.as_bytes(),
            self.name.as_bytes(),
            self.table_text.as_bytes(),
            settings.soc_name.to_bytes(),
            &[u8::from(settings.intra_roce)],
            purpose,
        ])
    }

    fn member(&self, rank: u32) -> Outcome<&Rank> {
        usize::try_from(rank)
            .ok()
            .and_then(|index| self.table.ranks.get(index))
            .ok_or_else(|| Fail::new(hccl::E_PARA, format!("there is no rank {rank} in the table")))
    }

    /// The link to a rank, as the rank table has it.
    pub fn link_kind(&self, rank: u32) -> Outcome<LinkKind> {
        rank_table::choose_link(self.member(self.rank)?, self.member(rank)?, settings())
    }

    /// Whether our own host memory can be the local end: HCCS takes none of it on A2.
    pub fn host_is_usable(kind: LinkKind) -> bool {
        kind == LinkKind::Roce || settings().is_a3
    }

    /// Takes the port of our card, if higher ranks come over RoCE (facts 2.4 points 4 and 2.5).
    fn listen(&self, kinds: &[LinkKind]) -> Outcome {
        let is_server = (0..).zip(kinds).any(|(rank, kind)| rank > self.rank && *kind == LinkKind::Roce);
        if is_server && self.port.lock().is_none() {
            let held = server_port::hold(self.member(self.rank)?)?;
            *self.port.lock() = held;
        }
        Ok(())
    }

    /// Physical ids of our NPU and of a rank's.
    pub fn ends(&self, rank: u32) -> (u32, u32) {
        let other = usize::try_from(rank).ok().and_then(|index| self.table.ranks.get(index));
        (self.device.physical_id, other.map_or(u32::MAX, |other| other.device_id))
    }

    /// Our place and a rank's, for the cost model.
    pub fn places(&self, rank: u32) -> Outcome<cost::charge::Ends> {
        let place = |rank: u32| -> Outcome<Place> {
            let member = self.member(rank)?;
            Ok(Place::named(&member.server_id, member.device_id))
        };
        Ok((place(self.rank)?, place(rank)?))
    }

    /// A link that a scripted fault holds down carries no meeting.
    pub fn wait_for_link(&self, rank: u32, deadline: Deadline) -> io::Result<()> {
        let (own, peer) = self.ends(rank);
        while fault::link_is_down(own, peer) || !self.has_route(rank) {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(DOWN_LINK_PAUSE);
        }
        Ok(())
    }

    /// Inside a super pod the chips find each other by the ids of the table: a missing or wrong one leads nowhere
    /// (facts 3).
    fn has_route(&self, rank: u32) -> bool {
        let (Ok(own), Ok(peer), Ok(kind)) = (self.member(self.rank), self.member(rank), self.link_kind(rank))
        else {
            return false;
        };
        if kind != LinkKind::Hccs || own.super_pod_id.is_none() {
            return true;
        }
        let real = device::super_device_id(self.device.physical_id).to_string();
        own.super_device_id.as_deref() == Some(real.as_str()) && peer.super_device_id.is_some()
    }

    /// What a meeting that failed answers.
    pub fn meeting_failed(&self, error: &io::Error) -> Fail {
        if error.kind() == io::ErrorKind::TimedOut {
            return Fail::new(
                hccl::E_TIMEOUT,
                format!(
                    "EI0006: not all {} ranks of {} came to prepare in time (late, other rank table, name or link type)",
                    self.size, self.name
                ),
            );
        }
        Fail::new(hccl::E_SYSCALL, format!("preparing {} failed: {error}", self.name))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // A preparation or exchange that came to its end after the communicator was destroyed.
        if let Some(links) = self.prepared.lock().take() {
            self.device.heap.discharge(LINK_BYTES * links.iter().flatten().count());
        }
        self.descriptions.end(self.device);
        for region in self.bound.lock().drain(..) {
            region::unbind(&region);
        }
    }
}

/// Seconds as `HcclCommPrepare` takes them: 0 is `HCCL_CONNECT_TIMEOUT`, -1 for ever.
pub fn deadline(timeout_seconds: i32) -> Outcome<Deadline> {
    let seconds = match timeout_seconds {
        -1 => return Ok(None),
        0 => *settings().connect_timeout_seconds.as_ref().unwrap_or(&120),
        1.. => u64::from(timeout_seconds.unsigned_abs()),
        _ => return Err(Fail::new(hccl::E_PARA, format!("timeout {timeout_seconds} s is below -1"))),
    };
    Ok(Instant::now().checked_add(Duration::from_secs(seconds)))
}

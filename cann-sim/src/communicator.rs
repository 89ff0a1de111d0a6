//! Communicators: made from a rank table, given memory, prepared together, used by put and get (facts 2.4).
//!
//! A communicator belongs to (process, device), not to a context. Its name is unique among the live communicators of
//! a device in this process. The memory set freezes when it is prepared. Destroying it is local; the peer only
//! notices on RoCE, where its work requests no longer find a partner.
//!
//! Locks: `preparing` is held over the whole meeting and by nobody else; `bound` and `prepared` are leaves.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::context;
use crate::device::Device;
use crate::fault;
use crate::handle::Handles;
use crate::link::{self, Link};
use crate::rank_table::{self, LinkKind, RankTable};
use crate::region::{self, Region};
use crate::rendezvous::{self, Meeting};
use crate::settings::settings;
use crate::status::{Fail, Outcome, hccl};

/// Device memory that one link takes for its own buffers (facts 2.4 point 4).
const LINK_BYTES: usize = 2 << 20;

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
    bound: Mutex<Vec<Arc<Region>>>,
    preparing: Mutex<()>,
    prepared: Mutex<Option<Links>>,
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

/// The current device, with the number HCCL answers when there is none.
pub fn current_device() -> Outcome<&'static Device> {
    Ok(context::current().map_err(|fail| fail.with_code(hccl::E_RUNTIME))?.device)
}

/// `HcclCommInitClusterInfoMemConfig`.
pub fn create(table_text: &str, rank: u32, name: &str) -> Outcome<usize> {
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
        bound: Mutex::default(),
        preparing: Mutex::new(()),
        prepared: Mutex::new(None),
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
    }
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

    /// The link to a rank, once prepared.
    pub fn link(&self, rank: u32) -> Option<Arc<Link>> {
        let prepared = self.prepared.lock();
        prepared.as_ref()?.get(usize::try_from(rank).ok()?)?.clone()
    }

    /// `HcclCommPrepare`: blocks until every rank of the table is here, or the time is over.
    pub fn prepare(&self, timeout_seconds: i32) -> Outcome {
        let deadline = deadline(timeout_seconds)?;
        let _preparing = self.preparing.lock();
        if self.prepared.lock().is_some() {
            return Ok(());
        }
        let links = self.meet_all(deadline)?;
        let count = links.iter().flatten().count();
        if !self.device.heap.charge(LINK_BYTES * count) {
            return Err(Fail::new(
                hccl::E_MEMORY,
                format!("no device memory is left for the buffers of {count} links"),
            ));
        }
        *self.prepared.lock() = Some(Arc::new(links));
        Ok(())
    }

    fn meet_all(&self, deadline: Deadline) -> Outcome<Vec<Option<Arc<Link>>>> {
        let settings = settings();
        let bound = self.bound.lock().clone();
        let own = usize::try_from(self.rank).ok().and_then(|index| self.table.ranks.get(index));
        let own = own.ok_or_else(|| Fail::new(hccl::E_INTERNAL, "our rank is not in the table"))?;
        let kinds: Vec<LinkKind> =
            self.table.ranks.iter().map(|rank| rank_table::choose_link(own, rank, settings)).collect();
        // The kind of every link is part of the meeting place: peers that see it differently never meet.
        let roce = if settings.intra_roce { [1_u8] } else { [0_u8] };
        let key = rendezvous::key(&[
            settings.namespace.as_bytes(),
            self.name.as_bytes(),
            self.table_text.as_bytes(),
            settings.soc_name.to_bytes(),
            &roce,
        ]);
        let failed = |error: io::Error| self.meeting_failed(&error);
        // The checks of our own memory come first: they need no peer.
        let mut offers = Vec::new();
        for (rank, kind) in (0_u32..).zip(&kinds) {
            offers.push(if rank == self.rank {
                None
            } else {
                Some(link::make_offer(*kind, self.device.user_id, &bound)?)
            });
        }
        let meeting = Meeting::open(key, self.rank, self.size, deadline).map_err(failed)?;
        let mut links = Vec::new();
        for ((rank, kind), offer) in (0_u32..).zip(kinds).zip(&offers) {
            links.push(match offer {
                None => None,
                Some(offer) => {
                    self.wait_for_link(rank, deadline).map_err(failed)?;
                    let (socket, theirs) = meeting.meet(rank, offer, deadline).map_err(failed)?;
                    let host_is_usable = kind == LinkKind::Roce || settings.is_a3;
                    let local = link::resolve_local(&bound, host_is_usable);
                    Some(Arc::new(Link::new(kind, self.ends(rank), socket, &theirs, local)?))
                }
            });
        }
        Ok(links)
    }

    /// Physical ids of our NPU and of a rank's.
    fn ends(&self, rank: u32) -> (u32, u32) {
        let other = usize::try_from(rank).ok().and_then(|index| self.table.ranks.get(index));
        (self.device.physical_id, other.map_or(u32::MAX, |other| other.device_id))
    }

    /// A link that a scripted fault holds down carries no meeting.
    fn wait_for_link(&self, rank: u32, deadline: Deadline) -> io::Result<()> {
        let (own, peer) = self.ends(rank);
        while fault::link_is_down(own, peer) {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(DOWN_LINK_PAUSE);
        }
        Ok(())
    }

    fn meeting_failed(&self, error: &io::Error) -> Fail {
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
        for region in self.bound.lock().drain(..) {
            region::unbind(&region);
        }
    }
}

/// Seconds as `HcclCommPrepare` takes them: 0 is `HCCL_CONNECT_TIMEOUT`, -1 for ever.
fn deadline(timeout_seconds: i32) -> Outcome<Deadline> {
    let seconds = match timeout_seconds {
        -1 => return Ok(None),
        0 => *settings().connect_timeout_seconds.as_ref().unwrap_or(&120),
        1.. => u64::from(timeout_seconds.unsigned_abs()),
        _ => return Err(Fail::new(hccl::E_PARA, format!("timeout {timeout_seconds} s is below -1"))),
    };
    Ok(Instant::now().checked_add(Duration::from_secs(seconds)))
}

//! Prepared links: the peer's regions mapped here, our own regions resolved, and the sign of life.
//!
//! A peer's memfd is mapped once per process, whatever the number of communicators. Ranges are those of the regions
//! that were offered; nothing else of the file is ever touched.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::{Mutex, RwLock};

use crate::arena::{self, HUGE_PAGE, Mapping};
use crate::block::{self, Block, Owner, Place};
use crate::copy::{self, Direction};
use crate::cost;
use crate::life::Life;
use crate::rank_table::LinkKind;
use crate::region::{Region, RegionKind};
use crate::rendezvous::{Medium, Offer, OfferedRegion};
use crate::settings::settings;
use crate::status::{Fail, Outcome, hccl};

/// A mapped file of a peer.
type Import = Arc<Mapping>;

/// Device and inode of a file.
type FileIdentity = (u64, u64);

/// Mapped files of peers.
static IMPORTS: LazyLock<Mutex<HashMap<FileIdentity, Weak<Mapping>>>> = LazyLock::new(Mutex::default);

/// The byte a communicator sends when it is destroyed in order.
const FAREWELL: &[u8] = b"B";

fn import(file: &OwnedFd) -> io::Result<Import> {
    let (device, inode, size) = arena::identity(file.as_fd())?;
    let mut imports = IMPORTS.lock();
    if let Some(mapping) = imports.get(&(device, inode)).and_then(Weak::upgrade) {
        return Ok(mapping);
    }
    imports.retain(|_, mapping| mapping.strong_count() > 0);
    if !arena::is_sealed(file.as_fd(), size) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the peer's memory is not sealed against shrinking",
        ));
    }
    let mapping = Arc::new(Mapping::new(file.as_fd(), 0, size, libc::PROT_READ | libc::PROT_WRITE)?);
    imports.insert((device, inode), Arc::downgrade(&mapping));
    Ok(mapping)
}

/// How the bytes of a region are reached from here.
#[derive(Debug, Clone)]
pub enum Reach {
    /// They are mapped: reachable address of the region's first byte, and what keeps it mapped.
    Mapped {
        /// First byte.
        base: usize,
        /// Own allocation, if it is ours.
        block: Option<Arc<Block>>,
        /// Mapping of the peer's file, if it is the peer's.
        import: Option<Import>,
    },
    /// By the kernel, in this process.
    Process(libc::pid_t),
}

/// One region of a prepared link.
#[derive(Debug, Clone)]
pub struct Reachable {
    /// First address as the owner knows it.
    pub start: usize,
    /// Bytes.
    pub length: usize,
    /// How.
    pub reach: Reach,
}

/// Regions by address.
///
/// Regions of one kind do not overlap; one of device and one of host kind may, because registration compares regions
/// of one kind only.
#[derive(Debug, Default)]
pub struct RegionMap {
    by_start: Vec<Reachable>,
    /// For each place of `by_start`, where the farthest region up to there ends: how far back a search must go.
    farthest_ends: Vec<usize>,
}

impl RegionMap {
    fn new(mut by_start: Vec<Reachable>) -> Self {
        by_start.sort_by_key(|region| region.start);
        let ends = by_start.iter().scan(0, |farthest: &mut usize, region| {
            *farthest = region.start.saturating_add(region.length).max(*farthest);
            Some(*farthest)
        });
        Self { farthest_ends: ends.collect(), by_start }
    }

    /// A region that holds all of the range, with the offset in it.
    pub fn find(&self, address: usize, length: usize) -> Option<(&Reachable, usize)> {
        let end = address.checked_add(length)?;
        let after = self.by_start.partition_point(|region| region.start <= address);
        let candidates = self.by_start.iter().zip(&self.farthest_ends).take(after).rev();
        candidates
            .take_while(|(_, farthest_end)| **farthest_end >= end)
            .map(|(region, _)| (region, address - region.start))
            .find(|(region, offset)| offset + length <= region.length)
    }
}

/// The state of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Its communicator lives.
    Alive,
    /// It destroyed its communicator.
    Departed,
    /// Its process is gone.
    Gone,
}

/// What two ranks keep of their meeting: the sign of life, and whether the wire between them still carries bytes.
#[derive(Debug)]
pub struct Line {
    socket: UnixStream,
    life: Life,
    /// Held, shared, while the card moves bytes.
    is_open: RwLock<bool>,
}

impl Line {
    /// A line over the socket of a meeting.
    pub fn new(socket: UnixStream) -> Self {
        Self { life: Life::of_peer(&socket), socket, is_open: RwLock::new(true) }
    }

    /// Moves bytes unless the line was closed; false when it was.
    pub fn pass(&self, moves: impl FnOnce()) -> bool {
        let is_open = self.is_open.read();
        if *is_open {
            moves();
        }
        *is_open
    }

    /// Tells the peer, and ends the work requests that the card still has: when this returns, none moves a byte.
    pub fn close(&self) {
        let mut is_open = self.is_open.write();
        if std::mem::take(&mut *is_open) {
            // The peer may be gone already; then nobody needs the farewell.
            // SAFETY: the descriptor is open and the buffer has one byte.
            unsafe {
                libc::send(
                    self.socket.as_raw_fd(),
                    FAREWELL.as_ptr().cast(),
                    FAREWELL.len(),
                    libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
                )
            };
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}

/// A prepared link to one rank.
#[derive(Debug)]
pub struct Link {
    /// Kind.
    pub kind: LinkKind,
    /// Physical ids of our NPU and the peer's.
    pub ends: (u32, u32),
    /// Our place and the peer's, as the cost model knows them.
    pub places: cost::charge::Ends,
    /// The peer's regions.
    pub remote: RegionMap,
    /// Our own regions that this kind of link can use.
    pub local: RegionMap,
    /// Where the bytes pass.
    pub line: Arc<Line>,
}

impl Link {
    /// A link with the peer's regions as they are reached from here.
    pub fn new(
        kind: LinkKind,
        ends: (u32, u32),
        places: cost::charge::Ends,
        line: Arc<Line>,
        remote: Vec<Reachable>,
        local: RegionMap,
    ) -> Self {
        Self { kind, ends, places, remote: RegionMap::new(remote), local, line }
    }

    /// Whether the peer is still there; two system calls.
    pub fn peer(&self) -> Peer {
        if self.line.life.has_ended() {
            return Peer::Gone;
        }
        let mut byte = 0_u8;
        // SAFETY: the descriptor is open and the buffer has one byte; MSG_PEEK leaves the farewell for later looks.
        let received = unsafe {
            libc::recv(
                self.line.socket.as_raw_fd(),
                (&raw mut byte).cast(),
                1,
                libc::MSG_PEEK | libc::MSG_DONTWAIT,
            )
        };
        match received {
            1 => Peer::Departed,
            0 => Peer::Gone,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Peer::Alive,
            _ => Peer::Gone,
        }
    }
}

fn malformed() -> Fail {
    Fail::new(hccl::E_INTERNAL, "the peer's offer is malformed")
}

/// Maps what a peer offered.
pub fn reach(offer: &Offer) -> Outcome<Vec<Reachable>> {
    let failed =
        |error: io::Error| Fail::new(hccl::E_MEMORY, format!("cannot map the peer's memory: {error}"));
    let mut imports = Vec::new();
    for file in &offer.files {
        imports.push(import(file).map_err(failed)?);
    }
    let pid = libc::pid_t::try_from(offer.pid).map_err(|_| malformed())?;
    let mut regions = Vec::new();
    for region in &offer.regions {
        regions.push(reach_offered(region, &imports, pid).ok_or_else(malformed)?);
    }
    Ok(regions)
}

fn reach_offered(region: &OfferedRegion, imports: &[Import], pid: libc::pid_t) -> Option<Reachable> {
    let start = usize::try_from(region.start).ok()?;
    let length = usize::try_from(region.length).ok()?;
    let reach = match region.medium {
        Medium::Process => Reach::Process(pid),
        Medium::File { index, offset } => {
            let import = imports.get(usize::try_from(index).ok()?)?;
            let offset = usize::try_from(offset).ok()?;
            if offset.checked_add(length)? > import.length() {
                return None;
            }
            Reach::Mapped { base: import.base() + offset, block: None, import: Some(Arc::clone(import)) }
        }
    };
    Some(Reachable { start, length, reach })
}

/// The network that a link of `kind` of this process goes over: chips of one server (A2) or super pod (A3) reach each
/// other whatever a rank table says, and no others; Ethernet reaches everybody.
fn fabric(kind: LinkKind) -> u64 {
    let settings = settings();
    let pod = u64::from(settings.super_pod_id) + 1;
    match kind {
        LinkKind::Roce => 0,
        LinkKind::Hccs if settings.is_a3 => pod,
        LinkKind::Hccs => (pod << 32) | u64::from(settings.server_index),
    }
}

/// What this rank offers over a link of `kind`, with the checks the link makes (facts 2.4 point 4, 2.6).
pub fn make_offer(kind: LinkKind, user_id: u32, regions: &[Arc<Region>]) -> Outcome<Offer> {
    let mut offer = Offer {
        pid: u64::from(std::process::id()),
        fabric: fabric(kind),
        is_exhausted: false,
        regions: Vec::new(),
        files: Vec::new(),
    };
    let mut files: HashMap<usize, u64> = HashMap::new();
    let mut host_bytes = 0_usize;
    for region in regions {
        if (kind, region.kind) == (LinkKind::Roce, RegionKind::Host) {
            host_bytes = host_bytes.saturating_add(region.length);
            if settings().host_registration_limit_bytes.is_some_and(|limit| host_bytes > limit) {
                return Err(nic_refusal(region, "the driver takes no more host memory"));
            }
        }
        let medium = match (kind, region.kind) {
            // HCCS takes no host memory; the region is silently not offered.
            (LinkKind::Hccs, RegionKind::Host) => continue,
            (_, RegionKind::Device) => {
                offer_block(&mut offer, &mut files, &device_block(kind, user_id, region)?, region)?
            }
            (LinkKind::Roce, RegionKind::Host) => match block::find(region.start) {
                // HCCL registers host memory itself, and the driver does that once (facts 1.6 and 2.6).
                Some(block) if block.owner == Owner::Program => {
                    return Err(nic_refusal(region, "507910: it is registered by aclrtHostRegister already"));
                }
                Some(block) if block.owner == Owner::Mapped => {
                    return Err(nic_refusal(
                        region,
                        "host memory of aclrtMallocPhysical cannot be registered",
                    ));
                }
                Some(block)
                    if block.place == Place::Host
                        && block.reach_allocated(region.start, region.length).is_some() =>
                {
                    offer_block(&mut offer, &mut files, &block, region)?
                }
                _ => {
                    probe_plain(region)?;
                    Medium::Process
                }
            },
        };
        let word = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        offer.regions.push(OfferedRegion { start: word(region.start), length: word(region.length), medium });
    }
    if offer.regions.iter().any(|region| region.medium == Medium::Process) {
        // Where the kernel restricts process_vm calls to descendants, the owner can permit them; a refusal shows
        // when a copy is tried.
        // SAFETY: prctl with plain numbers.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
    }
    Ok(offer)
}

fn nic_refusal(region: &Region, why: &str) -> Fail {
    Fail::new(
        hccl::E_NETWORK,
        format!("NIC registration of {} bytes at {:#x} failed: {why}", region.length, region.start),
    )
}

/// The allocation behind a device region, if the link can take it.
fn device_block(kind: LinkKind, user_id: u32, region: &Region) -> Outcome<Arc<Block>> {
    let refused = |why: &str| {
        let (code, step) = match kind {
            LinkKind::Hccs => (hccl::E_RUNTIME, "IPC registration"),
            LinkKind::Roce => (hccl::E_NETWORK, "NIC registration"),
        };
        Fail::new(code, format!("{step} of {} bytes at {:#x} failed: {why}", region.length, region.start))
    };
    let block = block::find(region.start)
        .filter(|block| {
            block.place == Place::Device(user_id) && !matches!(block.owner, Owner::Foreign { .. })
        })
        .ok_or_else(|| refused("it is no memory of this device"))?;
    if block.reach_allocated(region.start, region.length).is_none() {
        return Err(refused("the range is longer than the allocation"));
    }
    if kind == LinkKind::Hccs && (!region.start.is_multiple_of(HUGE_PAGE) || block.page_size != HUGE_PAGE) {
        return Err(refused("HCCS wants a start on a multiple of 2 MiB and huge pages"));
    }
    Ok(block)
}

fn offer_block(
    offer: &mut Offer,
    files: &mut HashMap<usize, u64>,
    block: &Arc<Block>,
    region: &Region,
) -> Outcome<Medium> {
    let Some(arena) = &block.arena else {
        // Host memory of the program that was registered with the runtime: there is no file to map.
        return Ok(Medium::Process);
    };
    let index = match files.get(&(Arc::as_ptr(arena) as usize)) {
        Some(index) => *index,
        None => {
            let file = arena
                .fd()
                .try_clone_to_owned()
                .map_err(|error| Fail::new(hccl::E_SYSCALL, format!("cannot share the memory: {error}")))?;
            let index = u64::try_from(offer.files.len()).unwrap_or(u64::MAX);
            offer.files.push(file);
            files.insert(Arc::as_ptr(arena) as usize, index);
            index
        }
    };
    let offset = block.offset + (region.start - block.start);
    Ok(Medium::File { index, offset: u64::try_from(offset).unwrap_or(u64::MAX) })
}

/// Whether the NIC could register ordinary host memory: both ends must be mapped.
fn probe_plain(region: &Region) -> Outcome {
    for address in [region.start, region.start + region.length - 1] {
        let mut byte = 0_u8;
        let local = (&raw mut byte) as usize;
        copy::move_foreign(copy::own_pid(), local, address, 1, Direction::Read, &|| false)
            .map_err(|_| nic_refusal(region, &format!("{address:#x} is not mapped")))?;
    }
    Ok(())
}

/// Our own side of the communicator: every bound region that its links can use as the local end.
pub fn resolve_local(regions: &[Arc<Region>], host_is_usable: bool) -> RegionMap {
    let mut reachable = Vec::new();
    for region in regions {
        if region.kind == RegionKind::Host && !host_is_usable {
            continue;
        }
        let reach = match block::find(region.start) {
            Some(block) => match block.reach(region.start, region.length) {
                Some(base) => Reach::Mapped { base, block: Some(block), import: None },
                None => continue,
            },
            None => Reach::Process(copy::own_pid()),
        };
        reachable.push(Reachable { start: region.start, length: region.length, reach });
    }
    RegionMap::new(reachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: usize, length: usize) -> Reachable {
        Reachable { start, length, reach: Reach::Process(0) }
    }

    /// Facts 2.4, point 5: a range must lie inside one region, whichever kind of region it is.
    #[test]
    fn a_region_of_each_kind_can_hold_an_address() {
        let map = RegionMap::new(vec![region(100, 50), region(0, 400), region(120, 10), region(500, 8)]);
        let found =
            |address, length| map.find(address, length).map(|(region, offset)| (region.start, offset));
        assert_eq!(found(120, 10), Some((120, 0)));
        assert_eq!(found(120, 11), Some((100, 20)));
        assert_eq!(found(120, 31), Some((0, 120)));
        assert_eq!(found(200, 200), Some((0, 200)));
        assert_eq!(found(200, 201), None);
        assert_eq!(found(400, 1), None);
        assert_eq!(found(504, 4), Some((500, 4)));
        assert_eq!(found(usize::MAX, 2), None);
    }
}

//! What this process has registered with the vendor on one device.
//!
//! The vendor's regions are disjoint and cannot be resized, so a [`Holding`] of a user range is a set of regions,
//! shared with every other holding that meets them, of whatever engine. A region has two kinds of owner: holdings,
//! and channels that have it bound ([`Binding`]). When the last holding goes, the region is withdrawn: no channel
//! binds it any more, those that have are told to end, and the last owner gives it back to the vendor.
//!
//! Where the loaded CANN has the older family of calls alone, the vendor hears of a region only when a channel is made;
//! what is held here is the same.
//!
//! Invariants: regions are registered and deregistered on the device's service thread only, one at a time, and no
//! lock is held meanwhile; a region is bound by every channel that its holder makes later; a bound region is never
//! deregistered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::device::Device;
use super::family::Family;
use super::rank::{Chip, Link};
use super::raw::{PointerKind, RegionHandle};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::registry::PinnedSet;
use crate::registry::planner::{self, Rules};

/// HCCS takes device memory in pieces that begin and end on this boundary.
pub const HCCS_ALIGNMENT_BYTES: u64 = 2 << 20;

/// Longest region that is registered in one piece; HCCL's older interface names 64 GiB as its limit.
pub const REGION_LIMIT_BYTES: u64 = 32 << 30;

/// Regions of one device; the network card takes about 4096.
pub const REGION_COUNT_LIMIT: usize = 4096;

/// One region of the vendor's.
#[derive(Clone, Copy, Debug)]
pub struct VendorRegion {
    /// What it covers.
    pub range: ByteRange,
    /// Memory of the host.
    pub host: bool,
    /// Whether an HCCS link can take it.
    pub hccs: bool,
    /// The vendor's handle; none where memory is registered with each communicator instead.
    pub handle: Option<RegionHandle>,
}

impl VendorRegion {
    /// Whether `link` can take it.
    #[must_use]
    pub const fn fits(&self, link: Link) -> bool {
        match link {
            Link::Hccs => self.hccs,
            Link::Roce => true,
        }
    }
}

struct Held {
    region: VendorRegion,
    holdings: AtomicU32,
}

/// The regions of one device.
#[derive(Default)]
pub struct DeviceMemory {
    set: Mutex<PinnedSet<Held>>,
    /// Told when a region is gone.
    gone: Condvar,
    epoch: AtomicU64,
}

impl DeviceMemory {
    /// Grows with every region that comes or goes.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether one of these regions is being withdrawn, or is gone.
    #[must_use]
    pub fn withdrawn(&self, regions: &[ByteRange]) -> bool {
        let set = self.set.lock();
        regions.iter().any(|region| {
            set.find_containing(*region).is_none_or(|(_, held)| held.holdings.load(Ordering::Acquire) == 0)
        })
    }
}

/// What kinds of memory the links of this device can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// HCCS may be the link to some peer.
    pub hccs: bool,
    /// RoCE may be the link to some peer: the device has a network address.
    pub roce: bool,
    /// What no link takes goes through slots.
    pub relay: bool,
}

impl Links {
    /// The links that a device has by its chip and the settings.
    #[must_use]
    pub fn of(device: &Device, config: &Config) -> Self {
        let roce = device.has_network(config);
        let hccs = !config.intra_roce && device.chip() != Chip::Other;
        // With neither, the vendor gets the memory as it is and the link's error names what is missing.
        Self { hccs, roce: roce || !hccs, relay: config.staged_slots > 0 }
    }
}

/// A user range that is registered, until it is [released](Self::release) or dropped.
pub struct Holding {
    device: Arc<Device>,
    starts: Vec<u64>,
}

impl Holding {
    /// Registers what of `range` is not registered yet.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] with the address and the remainder when no link of the device can take the range,
    /// [`Code::TooManyRequests`] when there would be too many regions, else what the vendor says. Nothing stays
    /// registered then that was not before.
    pub fn acquire(device: &Arc<Device>, range: ByteRange, links: Links, deadline: Deadline) -> Result<Self> {
        let on_thread = Arc::clone(device);
        device
            .run(deadline, move || {
                let starts = acquire(&on_thread, range, links)?;
                // Made here, so that it is undone when nobody waits for it any more.
                Ok(Self { device: on_thread, starts })
            })
            .map_err(|error| error.device(device.id()).range(range.start(), range.length_bytes()))
    }

    /// Whether every region of it is one that HCCS can take.
    #[must_use]
    pub fn fits_hccs(&self) -> bool {
        let set = self.device.memory().set.lock();
        set.iter().all(|(range, held)| held.region.hccs || !self.starts.contains(&range.start()))
    }

    /// The device it is registered with.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Gives the range back. Answers the regions that are withdrawn by it; they are gone when the channels that
    /// have them bound have ended, see [`wait_gone`].
    pub fn release(mut self) -> Vec<ByteRange> {
        self.give_back()
    }

    fn give_back(&mut self) -> Vec<ByteRange> {
        let starts = std::mem::take(&mut self.starts);
        let mut withdrawn = Vec::new();
        {
            let set = self.device.memory().set.lock();
            for start in &starts {
                let Some((range, held)) = set.iter().find(|(range, _)| range.start() == *start) else {
                    continue;
                };
                if held.holdings.fetch_sub(1, Ordering::AcqRel) == 1 {
                    withdrawn.push(range);
                }
            }
        }
        disown(&self.device, starts);
        withdrawn
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Waits until `regions` are no longer registered.
///
/// # Errors
/// [`Code::Busy`] when a channel still has one bound at the deadline.
pub fn wait_gone(device: &Device, regions: &[ByteRange], deadline: Deadline) -> Result<()> {
    let memory = device.memory();
    let mut set = memory.set.lock();
    for region in regions {
        // A region that was registered anew meanwhile has a holding, and is not what is waited for.
        while set.iter().any(|(range, held)| {
            range.start() == region.start() && held.holdings.load(Ordering::Acquire) == 0
        }) {
            if memory.gone.wait_until(&mut set, deadline.at()).timed_out() {
                return Err(Error::new(
                    Code::Busy,
                    Stage::Register,
                    "a channel still has the region bound; its transfers did not end in time",
                )
                .device(device.id())
                .range(region.start(), region.length_bytes()));
            }
        }
    }
    Ok(())
}

/// What one engine has registered.
///
/// Channels of an engine bind its own regions only: memory that another engine of the process registered, and whose
/// owner freed it without a word, must not break this engine's connections.
#[derive(Default)]
pub struct Holdings(Mutex<BTreeMap<(i32, u64), Holding>>);

impl Holdings {
    /// Keeps a holding under the start of its range; answers the one that was there.
    #[must_use]
    pub fn insert(&self, start: u64, holding: Holding) -> Option<Holding> {
        self.0.lock().insert((holding.device.id(), start), holding)
    }

    /// Takes a holding out.
    #[must_use]
    pub fn remove(&self, device: i32, start: u64) -> Option<Holding> {
        self.0.lock().remove(&(device, start))
    }

    /// Takes all holdings out.
    #[must_use]
    pub fn take_all(&self) -> Vec<Holding> {
        std::mem::take(&mut *self.0.lock()).into_values().collect()
    }

    /// Becomes an owner of every region of these holdings on `device`.
    #[must_use]
    pub fn bind(&self, device: &Arc<Device>) -> Binding {
        let holdings = self.0.lock();
        let starts: BTreeSet<u64> = holdings
            .values()
            .filter(|holding| holding.device.id() == device.id())
            .flat_map(|holding| holding.starts.iter().copied())
            .collect();
        let memory = device.memory();
        let mut set = memory.set.lock();
        let epoch = memory.epoch();
        let live: Vec<VendorRegion> = set
            .iter()
            .filter(|(range, held)| {
                starts.contains(&range.start()) && held.holdings.load(Ordering::Acquire) > 0
            })
            .map(|(_, held)| held.region)
            .collect();
        let regions = live.into_iter().filter(|region| set.hold(region.range).is_ok()).collect();
        Binding { device: Arc::clone(device), epoch, regions }
    }
}

/// The regions that one channel has bound.
pub struct Binding {
    device: Arc<Device>,
    epoch: u64,
    regions: Vec<VendorRegion>,
}

impl Binding {
    /// The epoch the regions are of.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The regions, sorted by address.
    #[must_use]
    pub fn regions(&self) -> &[VendorRegion] {
        &self.regions
    }

    /// Lets go of regions that `link` cannot take, and answers them.
    pub fn keep_for(&mut self, link: Link) -> Vec<VendorRegion> {
        let (kept, dropped): (Vec<_>, Vec<_>) = self.regions.iter().partition(|region| region.fits(link));
        self.regions = kept;
        disown(&self.device, dropped.iter().map(|region| region.range.start()).collect());
        dropped
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        disown(&self.device, self.regions.iter().map(|region| region.range.start()).collect());
    }
}

/// Gives up one ownership each; the last owner deregisters, on the device's thread.
fn disown(device: &Arc<Device>, starts: Vec<u64>) {
    if starts.is_empty() {
        return;
    }
    if device.on_service_thread() {
        // It must not wait for a place in its own queue.
        for start in starts {
            release_one(device, start);
        }
        return;
    }
    let on_thread = Arc::clone(device);
    device.run_later(move || {
        for start in starts {
            release_one(&on_thread, start);
        }
    });
}

fn release_one(device: &Device, start: u64) {
    let memory = device.memory();
    let last = memory.set.lock().release(start);
    if let Some((_, held)) = last {
        if let Err(error) = deregister(device, held.region.handle) {
            log::warn!("{}", error.device(device.id()));
        }
        memory.epoch.fetch_add(1, Ordering::AcqRel);
        // Under the lock, so that a waiter that has just looked does not miss it.
        let set = memory.set.lock();
        memory.gone.notify_all();
        drop(set);
    }
}

fn deregister(device: &Device, handle: Option<RegionHandle>) -> Result<()> {
    handle.map_or(Ok(()), |handle| device.runtime().deregister_region(handle))
}

/// Runs on the device's thread.
fn acquire(device: &Device, range: ByteRange, links: Links) -> Result<Vec<u64>> {
    let runtime = device.runtime();
    let (host, page_size_bytes) = match runtime.pointer_kind(range.start())? {
        PointerKind::Host { .. } => (true, 1),
        PointerKind::Device { page_size_bytes, .. } => (false, page_size_bytes.max(1)),
    };
    let memory = device.memory();
    let existing = memory.set.lock().ranges();
    let aligned = Rules {
        alignment_bytes: HCCS_ALIGNMENT_BYTES,
        page_bytes: page_size_bytes.checked_next_power_of_two().unwrap_or(1),
        chunk_limit_bytes: REGION_LIMIT_BYTES,
        granule_bytes: 0,
    };
    let mut pieces = Vec::new();
    let mut hccs = !host && links.hccs;
    if hccs {
        let plan = planner::plan(&[range], &existing, &aligned)?;
        match plan.misaligned.first() {
            None => pieces = plan.registrations,
            Some(misaligned) if !links.roce && !links.relay => {
                return Err(misaligned.error(HCCS_ALIGNMENT_BYTES));
            }
            Some(_) => hccs = false,
        }
    }
    if !hccs {
        let free = Rules { chunk_limit_bytes: REGION_LIMIT_BYTES, ..Rules::FREE };
        pieces = planner::plan(&[range], &existing, &free)?.registrations;
    }
    if existing.len().saturating_add(pieces.len()) > REGION_COUNT_LIMIT {
        return Err(Error::new(
            Code::TooManyRequests,
            Stage::Register,
            format!("more than {REGION_COUNT_LIMIT} regions on one device"),
        )
        .advice("register fewer, larger ranges"));
    }
    let mut starts = Vec::with_capacity(pieces.len().saturating_add(1));
    match hold_existing(device, range, &mut starts)
        .and_then(|()| register_pieces(device, &pieces, host, hccs, &mut starts))
    {
        Ok(()) => Ok(starts),
        Err(error) => {
            let set = memory.set.lock();
            for start in &starts {
                if let Some((_, held)) = set.iter().find(|(range, _)| range.start() == *start) {
                    held.holdings.fetch_sub(1, Ordering::AcqRel);
                }
            }
            drop(set);
            for start in starts {
                release_one(device, start);
            }
            Err(error)
        }
    }
}

/// One more holding for each region that `range` meets; also for a withdrawn one, which lives on then.
fn hold_existing(device: &Device, range: ByteRange, starts: &mut Vec<u64>) -> Result<()> {
    let mut set = device.memory().set.lock();
    for existing in set.cover(range).existing {
        let held = set.hold(existing)?;
        for (_, region) in set.iter().filter(|(region, _)| held.contains(&region.start())) {
            region.holdings.fetch_add(1, Ordering::AcqRel);
        }
        starts.extend(held);
    }
    Ok(())
}

fn register_pieces(
    device: &Device,
    pieces: &[ByteRange],
    host: bool,
    hccs: bool,
    starts: &mut Vec<u64>,
) -> Result<()> {
    let memory = device.memory();
    for piece in pieces {
        let handle = Family::PerDevice
            .is_in(device.runtime())
            .then(|| device.runtime().register_region(piece.start(), piece.length_bytes(), host))
            .transpose()?;
        let region = VendorRegion { range: *piece, host, hccs, handle };
        let held = Held { region, holdings: AtomicU32::new(1) };
        memory.epoch.fetch_add(1, Ordering::AcqRel);
        if let Err((error, held)) = memory.set.lock().insert(*piece, held) {
            if let Err(second) = deregister(device, held.region.handle) {
                log::warn!("{second}");
            }
            return Err(error);
        }
        starts.push(piece.start());
    }
    Ok(())
}

//! The ranges of one engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};

use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, Location, MemoryKind};
use crate::registry::{Pin, Region};

/// Most registered ranges of one engine; a descriptor of so many would not fit a handshake message anyway.
pub const MAX_REGIONS: u32 = 1 << 20;

#[derive(Debug, Default)]
struct Table {
    /// By start.
    regions: BTreeMap<u64, Arc<Region>>,
    places: Places,
    sequence: u64,
    /// Nothing can be added or opened any more.
    closed: bool,
}

/// Small numbers that are given out and taken back.
#[derive(Debug, Default)]
struct Places {
    free: Vec<u32>,
    used: u32,
}

/// What one engine has registered; see the module.
#[derive(Debug, Default)]
pub struct Registry {
    table: RwLock<Table>,
    epoch: AtomicU64,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range: [`Registry::reserve`] and [`Registration::commit`] in one.
    ///
    /// # Errors
    /// As [`Registry::reserve`].
    pub fn insert(&self, range: ByteRange, location: Location, kind: MemoryKind) -> Result<Arc<Region>> {
        let region = self.reserve(&[(range, location, kind)])?.commit().pop();
        region.ok_or_else(|| Error::new(Code::Internal, Stage::Register, "a reservation without a region"))
    }

    /// Reserves ranges, all or none: nobody else can register over them, and nobody can use them yet.
    /// The caller does with the vendor what has to be done, and then commits; dropping takes them back.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for an empty range, [`Code::AddressOverlapped`] for one that overlaps
    /// another of the list, a registered or a reserved one, [`Code::TooManyRequests`] above [`MAX_REGIONS`],
    /// [`Code::StaleHandle`] after [`Registry::close`].
    pub fn reserve(&self, ranges: &[(ByteRange, Location, MemoryKind)]) -> Result<Registration<'_>> {
        let mut registration = Registration { registry: self, regions: Vec::with_capacity(ranges.len()) };
        for &(range, ..) in ranges {
            if range.is_empty() {
                return Err(Error::new(Code::InvalidArgument, Stage::Register, "an empty range")
                    .range(range.start(), 0));
            }
        }
        let mut table = self.table.write();
        if table.closed {
            return Err(Error::new(Code::StaleHandle, Stage::Register, "the engine is closed"));
        }
        for &(range, location, kind) in ranges {
            match table.add(range, location, kind) {
                Ok(region) => registration.regions.push(region),
                Err(error) => {
                    drop(table); // taking back locks again
                    return Err(error);
                }
            }
        }
        Ok(registration)
    }

    /// Removes the range that starts at `start`: [`Registry::begin_remove`] and [`Removal::commit`] in one.
    ///
    /// # Errors
    /// As [`Registry::begin_remove`].
    pub fn remove(&self, start: u64) -> Result<Arc<Region>> {
        Ok(self.begin_remove(start)?.commit())
    }

    /// Begins to remove the range that starts at `start`: from now on nobody can find or pin it. The caller
    /// tells peers and the vendor, and then commits; dropping opens the range again.
    ///
    /// # Errors
    /// [`Code::AddressNotRegistered`] when no range starts there, [`Code::Busy`] while it is pinned.
    pub fn begin_remove(&self, start: u64) -> Result<Removal<'_>> {
        let found = self.table.read().regions.get(&start).cloned();
        let region = found.ok_or_else(|| {
            Error::new(
                Code::AddressNotRegistered,
                Stage::Register,
                format!("no registered range starts at {start:#x}"),
            )
            .range(start, 0)
        })?;
        region.shut_idle()?;
        Ok(Removal { registry: self, region, committed: false })
    }

    /// From now on no range can be added, found or pinned. Pins that there are stay; gives the regions, so that their
    /// end can be waited for.
    pub fn close(&self) -> Vec<Arc<Region>> {
        let mut table = self.table.write();
        table.closed = true;
        self.epoch.fetch_add(1, Ordering::AcqRel);
        table.regions.values().inspect(|region| region.shut_in_use()).cloned().collect()
    }

    /// The region that `range` lies in, if there is one and it is open.
    #[must_use]
    pub fn find_containing(&self, range: ByteRange) -> Option<Arc<Region>> {
        self.table.read().find_containing(range).cloned()
    }

    /// For looking up many ranges at once; holds the registry's read lock, so drop it before any I/O.
    #[must_use]
    pub fn resolver(&self) -> Resolver<'_> {
        Resolver { table: self.table.read(), last: 0, pins: Vec::new(), pin_of_place: Vec::new() }
    }

    /// Grows with every change, and when a removal is given up. Peers that were told an older one may miss ranges, or know too many.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The epoch and the regions that are open, in the order of their registration.
    #[must_use]
    pub fn snapshot(&self) -> (u64, Vec<Arc<Region>>) {
        let table = self.table.read();
        let epoch = self.epoch();
        let mut regions: Vec<_> = table.regions.values().filter(|region| region.is_open()).cloned().collect();
        drop(table);
        regions.sort_unstable_by_key(|region| region.sequence());
        (epoch, regions)
    }

    /// Number of ranges, reserved ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.read().regions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&self, regions: &[Arc<Region>], were_open: bool) {
        let mut table = self.table.write();
        if were_open {
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        for region in regions {
            if table.regions.remove(&region.range().start()).is_some() {
                table.places.give_back(region.place());
            }
        }
    }
}

impl Table {
    fn add(&mut self, range: ByteRange, location: Location, kind: MemoryKind) -> Result<Arc<Region>> {
        if let Some(other) = self.overlapping(range) {
            return Err(Error::new(
                Code::AddressOverlapped,
                Stage::Register,
                format!("the range overlaps {}, which is registered", other.range()),
            )
            .range(range.start(), range.length_bytes()));
        }
        let place = self.places.take().ok_or_else(|| {
            Error::new(
                Code::TooManyRequests,
                Stage::Register,
                format!("{MAX_REGIONS} ranges are registered already"),
            )
        })?;
        self.sequence += 1;
        let region = Arc::new(Region::shut(range, location, kind, place, self.sequence));
        self.regions.insert(range.start(), Arc::clone(&region));
        Ok(region)
    }

    fn overlapping(&self, range: ByteRange) -> Option<&Arc<Region>> {
        let (_, before) = self.regions.range(..range.end()).next_back()?;
        before.range().overlaps(range).then_some(before)
    }

    fn find_containing(&self, range: ByteRange) -> Option<&Arc<Region>> {
        let (_, region) = self.regions.range(..=range.start()).next_back()?;
        (region.range().contains(range) && region.is_open()).then_some(region)
    }
}

impl Places {
    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            (self.used < MAX_REGIONS).then(|| {
                self.used += 1;
                self.used - 1
            })
        })
    }

    fn give_back(&mut self, place: u32) {
        self.free.push(place);
    }
}

/// Ranges that are reserved and not yet in use.
#[derive(Debug)]
#[must_use = "dropping it takes the ranges back"]
pub struct Registration<'a> {
    registry: &'a Registry,
    regions: Vec<Arc<Region>>,
}

impl Registration<'_> {
    /// The reserved regions, in the order of the list.
    #[must_use]
    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }

    /// Opens the regions, and returns them in the order of the list.
    pub fn commit(mut self) -> Vec<Arc<Region>> {
        let regions = std::mem::take(&mut self.regions);
        if !regions.is_empty() {
            // Under the lock, so that a snapshot sees all of the list or nothing, with the epoch that fits.
            let table = self.registry.table.write();
            for region in regions.iter().filter(|_| !table.closed) {
                region.open();
            }
            self.registry.epoch.fetch_add(1, Ordering::AcqRel);
        }
        regions
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        if !self.regions.is_empty() {
            self.registry.take(&self.regions, false);
        }
    }
}

/// A range that is being removed.
#[derive(Debug)]
#[must_use = "dropping it opens the range again"]
pub struct Removal<'a> {
    registry: &'a Registry,
    region: Arc<Region>,
    committed: bool,
}

impl Removal<'_> {
    /// The region; nobody can pin it.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Takes the range out for good.
    pub fn commit(mut self) -> Arc<Region> {
        self.committed = true;
        self.registry.take(std::slice::from_ref(&self.region), true);
        Arc::clone(&self.region)
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if !self.committed {
            let table = self.registry.table.write();
            if !table.closed {
                self.region.open();
            }
            // A peer that has given the range up must be able to tell a descriptor that has it again from an old one.
            self.registry.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Looks up the ranges of one call and pins each region once.
#[derive(Debug)]
pub struct Resolver<'a> {
    table: RwLockReadGuard<'a, Table>,
    /// Which of `pins` was the last answer.
    last: usize,
    /// The regions met so far, in the order in which they were met first.
    pins: Vec<Pin>,
    /// For each place of a region the number of its pin, counted from 1; 0 for none.
    pin_of_place: Vec<u32>,
}

impl Resolver<'_> {
    /// The region that `range` lies in, pinned; `None` when there is none that is open.
    ///
    /// Looks first at the region of the call before, then at the one that was met after it: blocks come tensor by
    /// tensor, or through all tensors in the same order again and again.
    pub fn resolve(&mut self, range: ByteRange) -> Option<&Arc<Region>> {
        let next = if self.last + 1 < self.pins.len() { self.last + 1 } else { 0 };
        let holds = |pin: &usize| self.pins.get(*pin).is_some_and(|pin| pin.region().range().contains(range));
        self.last = match [self.last, next].into_iter().find(holds) {
            Some(known) => known,
            None => {
                let region = Arc::clone(self.table.find_containing(range)?);
                self.pin(&region)?
            }
        };
        self.pins.get(self.last).map(Pin::region)
    }

    /// The pins, to be held until the transfer is over.
    #[must_use]
    pub fn into_pins(self) -> Vec<Pin> {
        self.pins
    }

    /// The number of the region's pin, which is made if there is none.
    fn pin(&mut self, region: &Arc<Region>) -> Option<usize> {
        let place = usize::try_from(region.place()).ok()?;
        if self.pin_of_place.len() <= place {
            self.pin_of_place.resize(place + 1, 0);
        }
        let known = self.pin_of_place.get_mut(place)?;
        if *known == 0 {
            self.pins.push(region.pin()?);
            *known = u32::try_from(self.pins.len()).ok()?;
        }
        usize::try_from(*known - 1).ok()
    }
}

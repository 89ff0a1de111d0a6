//! Physical memory under handles, mapped into reserved addresses and shared by handle (facts 1.2 and 1.6, VMM).
//!
//! A handle is exported once; the exporting process cannot import it. Memory lives as long as a handle or a mapping
//! needs it. Host memory made here is ordinary memory for host code; device memory faults.
//!
//! Locks: the table of reservations is held over one mapping call; handles are leaves.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use crate::abi::{MemoryAccess, PhysicalMemoryProperties};
use crate::arena::{Arena, HUGE_PAGE};
use crate::block::{self, Block, Owner, Place};
use crate::context;
use crate::device::{self, Device};
use crate::handle::Handles;
use crate::reservation::Reservation;
use crate::settings::settings;
use crate::share::{self, Offered};
use crate::status::{Fail, Outcome, acl};

const GIB: usize = 1 << 30;
/// The lowest address of ranges for fabric memory (facts 1.2).
const FABRIC_START: usize = 40 << 40;

/// Memory behind a handle.
pub struct Physical {
    arena: Arc<Arena>,
    length: usize,
    page_size: usize,
    place: Place,
    physical_id: Option<u32>,
    is_imported: bool,
    /// The number it was exported under.
    exported: Mutex<Option<u64>>,
    /// What it took of a device's memory.
    charged: Option<&'static Device>,
}

impl Drop for Physical {
    fn drop(&mut self) {
        if let Some(device) = self.charged {
            device.heap.discharge(self.length);
        }
        if let Some(id) = *self.exported.lock() {
            share::withdraw(id);
        }
    }
}

/// Live handles.
static PHYSICAL: Handles<Physical> = Handles::new(0x56);

/// A mapping with the devices that were given access beside the memory's own.
struct Mapped {
    length: usize,
    /// Keeps the memory charged while it is mapped.
    physical: Arc<Physical>,
    granted: HashSet<u32>,
}

struct Range {
    reservation: Reservation,
    mapped: BTreeMap<usize, Mapped>,
}

static RANGES: LazyLock<Mutex<BTreeMap<usize, Range>>> = LazyLock::new(Mutex::default);

fn wrong(text: impl Into<String>) -> Fail {
    Fail::new(acl::PARAM_INVALID, text)
}

/// The page that a memory attribute asks for, if it is an attribute of physical memory.
fn page_of(attribute: i32) -> Outcome<usize> {
    match attribute {
        0 | 1 | 2 | 4 | 6 | 8 | 13 | 16 => Ok(HUGE_PAGE),
        3 | 5 | 7 | 9 | 12 | 15 => Ok(4096),
        10 | 11 | 14 | 17 => Ok(GIB),
        other => Err(wrong(format!("{other} is no memory attribute"))),
    }
}

/// `aclrtReserveMemAddress`, and with `is_fabric` `aclrtReserveMemAddressNoUCMemory`.
pub fn reserve(length: usize, alignment: usize, expected: usize, is_fabric: bool) -> Outcome<usize> {
    context::current()?;
    if alignment != 0 || expected != 0 {
        return Err(wrong("alignment and expected address must be 0"));
    }
    if is_fabric && !settings().is_a3 {
        return Err(Fail::new(acl::FEATURE_NOT_SUPPORT, "ranges for fabric memory exist on A3 only"));
    }
    if is_fabric && !length.is_multiple_of(GIB) {
        return Err(wrong(format!("{length} bytes are no multiple of 1 GiB")));
    }
    let (alignment, lowest) = if is_fabric { (GIB, FABRIC_START) } else { (HUGE_PAGE, 0) };
    let refused = |error: std::io::Error| {
        Fail::new(acl::MEMORY_ALLOCATION, format!("cannot reserve {length} bytes of addresses: {error}"))
    };
    let rounded = length
        .checked_next_multiple_of(HUGE_PAGE)
        .ok_or_else(|| refused(std::io::ErrorKind::OutOfMemory.into()))?;
    let reservation = Reservation::new(rounded, alignment, lowest).map_err(refused)?;
    let base = reservation.base();
    RANGES.lock().insert(base, Range { reservation, mapped: BTreeMap::new() });
    Ok(base)
}

/// `aclrtReleaseMemAddress`: refused while something is mapped there.
pub fn release(base: usize) -> Outcome {
    let mut ranges = RANGES.lock();
    match ranges.get(&base) {
        None => Err(wrong(format!("{base:#x} is no reserved address"))),
        Some(range) if !range.mapped.is_empty() => Err(wrong("memory is still mapped in the reserved range")),
        Some(_) => {
            ranges.remove(&base);
            Ok(())
        }
    }
}

/// `aclrtMemGetAllocationGranularity`: the page of the wanted memory.
pub fn granularity(properties: &PhysicalMemoryProperties, option: i32) -> Outcome<usize> {
    if !matches!(option, 0 | 1) {
        return Err(wrong(format!("{option} is neither the minimum nor the recommended granularity")));
    }
    page_of(properties.attribute)
}

/// `aclrtMallocPhysical`.
pub fn allocate(length: usize, properties: &PhysicalMemoryProperties, flags: u64) -> Outcome<usize> {
    context::current()?;
    if flags != 0 || !matches!(properties.handle_kind, 0 | 2) || properties.allocation_kind != 0 {
        return Err(wrong("flags, handle type or allocation type are not the only ones that exist"));
    }
    let page_size = page_of(properties.attribute)?;
    if !length.is_multiple_of(page_size) {
        return Err(wrong(format!("{length} bytes are no multiple of the page of {page_size}")));
    }
    let (place, device) = match properties.location.kind {
        1 => {
            let device = device::by_user_id(i32::try_from(properties.location.id).unwrap_or(-1))?;
            (Place::Device(device.user_id), Some(device))
        }
        0 | 4 => (Place::Host, None),
        other => return Err(wrong(format!("{other} is no location of physical memory"))),
    };
    let refused =
        |why: String| Fail::new(acl::MEMORY_ALLOCATION, format!("out of memory for {length} bytes: {why}"));
    if device.is_some_and(|device| !device.heap.charge(length)) {
        return Err(refused("the device has less left".to_owned()));
    }
    // Until the handle exists, the charge has no owner that gives it back.
    let arena = Arena::host(length).inspect_err(|_| {
        if let Some(device) = device {
            device.heap.discharge(length);
        }
    });
    let arena = Arc::new(arena.map_err(|error| refused(error.to_string()))?);
    let handle = PHYSICAL.reserve();
    let physical = Physical {
        arena,
        length,
        page_size,
        place,
        physical_id: device.map(|device| device.physical_id),
        is_imported: false,
        exported: Mutex::new(None),
        charged: device,
    };
    PHYSICAL.insert(handle, Arc::new(physical));
    Ok(handle)
}

fn resolve(handle: usize) -> Outcome<Arc<Physical>> {
    PHYSICAL
        .get(handle)
        .ok_or_else(|| Fail::new(acl::INVALID_HANDLE, format!("{handle:#x} is no handle of physical memory")))
}

/// `aclrtFreePhysical`: the memory itself goes with its last mapping.
pub fn free(handle: usize) -> Outcome {
    PHYSICAL
        .remove(handle)
        .map(|_| ())
        .ok_or_else(|| Fail::new(acl::INVALID_HANDLE, format!("{handle:#x} is no handle of physical memory")))
}

/// `aclrtMapMem`.
pub fn map(address: usize, length: usize, offset: usize, handle: usize, flags: u64) -> Outcome {
    context::current()?;
    let physical = resolve(handle)?;
    if offset != 0 || flags != 0 || length != physical.length {
        return Err(wrong(format!(
            "offset and flags must be 0 and the length that of the handle, {} bytes",
            physical.length
        )));
    }
    if !address.is_multiple_of(physical.page_size) {
        return Err(wrong(format!("{address:#x} is no multiple of the page of {}", physical.page_size)));
    }
    let mut ranges = RANGES.lock();
    let range = ranges
        .range_mut(..=address)
        .next_back()
        .map(|(_, range)| range)
        .filter(|range| range.reservation.holds(address, length))
        .ok_or_else(|| wrong(format!("{length} bytes at {address:#x} are not in one reserved range")))?;
    if block::overlaps(address, length) {
        return Err(wrong(format!("something is mapped at {address:#x} already")));
    }
    let is_host = physical.place == Place::Host;
    range.reservation.map(address, physical.arena.fd(), length, is_host).map_err(|error| {
        Fail::new(acl::DRV_INTERNAL_ERROR, format!("cannot map {length} bytes at {address:#x}: {error}"))
    })?;
    block::insert(Block {
        start: address,
        length,
        size: length,
        place: physical.place,
        page_size: physical.page_size,
        alias: physical.arena.alias_base(),
        offset: 0,
        arena: Some(Arc::clone(&physical.arena)),
        owner: Owner::Mapped,
    });
    range.mapped.insert(address, Mapped { length, physical, granted: HashSet::new() });
    Ok(())
}

fn with_mapping<T>(address: usize, act: impl FnOnce(&mut Range) -> Option<T>) -> Outcome<T> {
    let mut ranges = RANGES.lock();
    ranges
        .range_mut(..=address)
        .next_back()
        .and_then(|(_, range)| act(range))
        .ok_or_else(|| wrong(format!("nothing is mapped at {address:#x}")))
}

/// `aclrtUnmapMem`.
pub fn unmap(address: usize) -> Outcome {
    with_mapping(address, |range| {
        let mapped = range.mapped.remove(&address)?;
        block::remove(address, |block| block.owner == Owner::Mapped);
        Some(range.reservation.unmap(address, mapped.length))
    })?
    .map_err(|error| Fail::new(acl::DRV_INTERNAL_ERROR, format!("cannot unmap {address:#x}: {error}")))
}

/// `aclrtMemSetAccess`: read and write for more devices than the memory's own.
pub fn set_access(address: usize, length: usize, accesses: &[MemoryAccess]) -> Outcome {
    for access in accesses {
        if !matches!(access.flags, 0 | 1 | 3) {
            return Err(wrong(format!("{} is no kind of access", access.flags)));
        }
        if access.location.kind == 1 {
            device::by_user_id(i32::try_from(access.location.id).unwrap_or(-1))?;
        }
    }
    with_mapping(address, |range| {
        let (start, mapped) = range.mapped.range_mut(..=address).next_back()?;
        if (address - *start).checked_add(length)? > mapped.length {
            return None;
        }
        for access in accesses.iter().filter(|access| access.location.kind == 1) {
            if access.flags == 0 {
                mapped.granted.remove(&access.location.id);
            } else {
                mapped.granted.insert(access.location.id);
            }
        }
        Some(())
    })
}

/// Whether a device was given access to a mapping.
pub fn has_access(address: usize, user_id: u32) -> bool {
    with_mapping(address, |range| {
        let (_, mapped) = range.mapped.range(..=address).next_back()?;
        Some(mapped.granted.contains(&user_id))
    })
    .unwrap_or(false)
}

/// `aclrtMemRetainAllocationHandle`: a further handle of what is mapped at an address.
pub fn retain(address: usize) -> Outcome<usize> {
    if !block::find(address).is_some_and(|block| block.owner == Owner::Mapped) {
        return Err(Fail::new(
            acl::FEATURE_NOT_SUPPORT,
            "the driver has no handle for memory that was not mapped by aclrtMapMem",
        ));
    }
    let physical = with_mapping(address, |range| {
        let (_, mapped) = range.mapped.range(..=address).next_back()?;
        Some(Arc::clone(&mapped.physical))
    })?;
    let handle = PHYSICAL.reserve();
    PHYSICAL.insert(handle, physical);
    Ok(handle)
}

/// Exports a handle under a number: once, and not an imported one.
pub fn export(handle: usize, flags: u64, crosses_servers: bool) -> Outcome<u64> {
    let physical = resolve(handle)?;
    if flags > 1 {
        return Err(wrong(format!("{flags:#x} has unknown export flags")));
    }
    let mut exported = physical.exported.lock();
    if exported.is_some() || physical.is_imported {
        return Err(wrong("the handle was exported before, or imported"));
    }
    let id = share::offer(Offered {
        secret: 0,
        arena: Arc::clone(&physical.arena),
        offset: 0,
        length: physical.length,
        page_size: physical.page_size,
        physical_id: physical.physical_id,
        is_restricted: flags == 0,
        crosses_servers,
        process_ids: Vec::new(),
    })?;
    *exported = Some(id);
    Ok(id)
}

/// `aclrtMemSetPidToShareableHandle`.
pub fn allow(id: u64, process_ids: &[i32]) -> Outcome {
    if share::change(id, |offered| offered.process_ids.extend_from_slice(process_ids)) {
        Ok(())
    } else {
        Err(wrong(format!("{id:#x} is no shareable handle of this process")))
    }
}

/// Imports a shared handle for a device.
pub fn import(id: u64, device: &'static Device) -> Outcome<usize> {
    if share::is_own(id) {
        return Err(wrong("a process cannot import what it exported itself"));
    }
    let received = share::import(id, 0)?;
    let arena = Arena::view(received.file, received.offset, received.length, false).map_err(|error| {
        Fail::new(acl::MEMORY_ALLOCATION, format!("cannot map the shared memory: {error}"))
    })?;
    let handle = PHYSICAL.reserve();
    let place = received.physical_id.map_or(Place::Host, |_| Place::Device(device.user_id));
    let physical = Physical {
        arena: Arc::new(arena),
        length: received.length,
        page_size: received.page_size,
        place,
        physical_id: received.physical_id,
        is_imported: true,
        exported: Mutex::new(None),
        charged: None,
    };
    PHYSICAL.insert(handle, Arc::new(physical));
    Ok(handle)
}

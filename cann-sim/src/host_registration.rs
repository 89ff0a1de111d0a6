//! Host memory of the program, registered with the runtime (facts 1.6): it counts as pinned, and the device gets an
//! address of its own for it, which only device code can use; here that address faults, and copies refuse it.

use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::Mutex;

use crate::arena;
use crate::block::{self, Block, Owner, Place};
use crate::context;
use crate::reservation::Reservation;
use crate::status::{Fail, Outcome, acl};

/// The device's addresses, by the host's.
static DEVICE_ADDRESSES: LazyLock<Mutex<HashMap<usize, Reservation>>> = LazyLock::new(Mutex::default);

/// Registers a range; with `is_mapped` the device gets an address, which is answered.
pub fn register(start: usize, length: u64, is_mapped: bool) -> Outcome<usize> {
    context::current()?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !start.is_multiple_of(4096) || start.checked_add(length).is_none() {
        return Err(Fail::new(acl::PARAM_INVALID, format!("{start:#x} is not aligned to 4096 bytes")));
    }
    let mut addresses = DEVICE_ADDRESSES.lock();
    if block::overlaps(start, length) {
        return Err(Fail::new(
            acl::HOST_MEMORY_ALREADY_REGISTERED,
            "the range is registered or allocated here already",
        ));
    }
    let mut device_address = 0;
    if is_mapped {
        let reservation = Reservation::new(length, arena::HUGE_PAGE, 0).map_err(|error| {
            Fail::new(acl::MEMORY_ALLOCATION, format!("no device addresses for {length} bytes: {error}"))
        })?;
        device_address = reservation.base();
        addresses.insert(start, reservation);
    }
    block::insert(Block {
        start,
        length,
        size: length,
        place: Place::Host,
        page_size: arena::page_size(),
        alias: start,
        offset: 0,
        arena: None,
        owner: Owner::Program,
    });
    Ok(device_address)
}

/// `aclrtHostUnregister`.
pub fn unregister(start: usize) -> Outcome {
    context::current()?;
    let mut addresses = DEVICE_ADDRESSES.lock();
    block::remove(start, |block| block.owner == Owner::Program).ok_or_else(|| {
        Fail::new(acl::HOST_MEMORY_NOT_REGISTERED, "no range is registered at this address")
    })?;
    addresses.remove(&start);
    Ok(())
}

/// `aclrtHostGetDevicePointer`.
pub fn device_address(address: usize) -> Outcome<usize> {
    let start = block::find(address)
        .filter(|block| block.owner == Owner::Program)
        .map(|block| block.start)
        .ok_or_else(|| Fail::new(acl::HOST_MEMORY_NOT_REGISTERED, "the memory is not registered"))?;
    DEVICE_ADDRESSES
        .lock()
        .get(&start)
        .map(|reservation| reservation.base() + (address - start))
        .ok_or_else(|| Fail::new(acl::PARAM_INVALID, "the memory was registered without a device address"))
}

//! Device ids: the user's (after `ASCEND_RT_VISIBLE_DEVICES`), logical (in the container) and physical (on the
//! host), facts 1.6; per-device accounts of memory, streams and events; peer access.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::board::Npu;
use crate::heap::DeviceHeap;
use crate::settings::settings;
use crate::status::{Fail, Outcome, acl};

/// Streams one device can hold at a time (facts 1.6).
pub const STREAM_LIMIT: usize = 1984;
/// Events one device can hold at a time (facts 1.6).
pub const EVENT_LIMIT: usize = 65_536;

/// One NPU as this process sees it.
pub struct Device {
    /// Index given to `aclrtSetDevice`.
    pub user_id: u32,
    /// Index in the container.
    pub logical_id: u32,
    /// Index on the host.
    pub physical_id: u32,
    /// Which one it is among all servers.
    pub npu: Npu,
    /// Device memory of this process.
    pub heap: DeviceHeap,
    /// Live streams.
    pub streams: AtomicUsize,
    /// Live events.
    pub events: AtomicUsize,
    /// User ids of the devices that this one may access.
    pub peers: Mutex<HashSet<u32>>,
}

/// The visible devices, by user id.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let settings = settings();
        let mut devices = Vec::new();
        for logical_id in &settings.visible {
            let physical_id =
                usize::try_from(*logical_id).ok().and_then(|index| settings.physical_ids.get(index));
            if let (Some(physical_id), Ok(user_id)) = (physical_id, u32::try_from(devices.len())) {
                let npu = Npu {
                    server: (u64::from(settings.super_pod_id) << 32) | u64::from(settings.server_index),
                    physical_id: *physical_id,
                };
                devices.push(Device {
                    user_id,
                    logical_id: *logical_id,
                    physical_id: *physical_id,
                    npu,
                    heap: DeviceHeap::new(user_id, npu, settings.hbm_size_bytes),
                    streams: AtomicUsize::new(0),
                    events: AtomicUsize::new(0),
                    peers: Mutex::new(HashSet::new()),
                });
            }
        }
        devices
    })
}

/// The device with a user id as C passes it.
pub fn by_user_id(user_id: i32) -> Outcome<&'static Device> {
    usize::try_from(user_id).ok().and_then(|index| devices().get(index)).ok_or_else(|| {
        Fail::new(
            acl::INVALID_DEVICE_ID,
            format!("device {user_id} does not exist; {} devices are visible", devices().len()),
        )
    })
}

/// The device that `matches`, or the vendor's invalid-device error naming the id.
pub fn find(id: i32, matches: impl Fn(&Device) -> bool) -> Outcome<&'static Device> {
    devices()
        .iter()
        .find(|device| matches(device))
        .ok_or_else(|| Fail::new(acl::INVALID_DEVICE_ID, format!("no visible device has the id {id}")))
}

/// Takes one unit of a bounded per-device account, or answers `code`.
pub fn take(account: &AtomicUsize, limit: usize, code: i32, what: &str) -> Outcome {
    account
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| (used < limit).then_some(used + 1))
        .map(|_| ())
        .map_err(|_| Fail::new(code, format!("the device holds its limit of {limit} {what}")))
}

/// Gives one unit back.
pub fn give_back(account: &AtomicUsize) {
    // An account never goes below zero; the failed update of an empty one is no error.
    let _ = account.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| used.checked_sub(1));
}

/// Super pod device id of a physical device: server, chip and device in one number.
pub fn super_device_id(physical_id: u32) -> u32 {
    (settings().server_index << 22) | ((physical_id & 0x3f) << 16) | (physical_id & 0xffff)
}

//! IPC memory keys (facts 1.6, sharing): device memory of one process, named by a key of 64 characters, mapped by
//! another for copies between devices.
//!
//! By default the exporter lists the importing processes. An importer's mapping can be copied from and to on a stream
//! and by other devices, but not to or from the host, and not by a synchronous copy on the device that holds it. An
//! importing device that is not the holder needs peer access, which the import can give itself from 8.3 on.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use crate::arena::{self, Arena};
use crate::block::{self, Block, Owner, Place};
use crate::context;
use crate::device;
use crate::settings::settings;
use crate::share::{self, Offered};
use crate::status::{Fail, Outcome, acl};

/// Bytes of a key with its NUL.
pub const KEY_BYTES: usize = 65;

/// Keys of this process with the number under which the memory is shared.
static EXPORTED: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);
/// Imported keys with the first address of the mapping.
static IMPORTED: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

fn unknown(key: &str) -> Fail {
    Fail::new(acl::PARAM_INVALID, format!("no memory is shared here under the key {key}"))
}

fn text(id: u64, secret: u64) -> String {
    format!("cann-sim-ipc-{id:016x}-{secret:016x}-{:017}", 0)
}

fn numbers(key: &str) -> Option<(u64, u64)> {
    let (id, rest) = key.strip_prefix("cann-sim-ipc-")?.split_once('-')?;
    let (secret, _) = rest.split_once('-')?;
    Some((u64::from_str_radix(id, 16).ok()?, u64::from_str_radix(secret, 16).ok()?))
}

/// `aclrtIpcMemGetExportKey`.
pub fn export(address: usize, length: usize, flags: u64) -> Outcome<String> {
    context::current()?;
    if flags > 1 {
        return Err(Fail::new(acl::PARAM_INVALID, format!("{flags:#x} has unknown export flags")));
    }
    let block = block::find(address)
        .filter(|block| {
            matches!(block.place, Place::Device(_)) && !matches!(block.owner, Owner::Foreign { .. })
        })
        .ok_or_else(|| Fail::new(acl::PARAM_INVALID, format!("{address:#x} is no device memory of ours")))?;
    if !address.is_multiple_of(block.page_size) || block.reach(address, length).is_none() {
        return Err(Fail::new(
            acl::PARAM_INVALID,
            format!(
                "a shared range must begin with a page of {} bytes and stay inside one allocation",
                block.page_size
            ),
        ));
    }
    let (Some(arena), Place::Device(user_id)) = (&block.arena, block.place) else {
        return Err(Fail::new(acl::PARAM_INVALID, "the memory has no pages of its own"));
    };
    let secret = share::random();
    let id = share::offer(Offered {
        secret,
        arena: Arc::clone(arena),
        offset: block.offset + (address - block.start),
        length,
        page_size: block.page_size,
        physical_id: Some(device::by_user_id(i32::try_from(user_id).unwrap_or(-1))?.physical_id),
        is_restricted: flags == 0,
        crosses_servers: false,
        process_ids: Vec::new(),
    })?;
    let key = text(id, secret);
    EXPORTED.lock().insert(key.clone(), id);
    Ok(key)
}

/// `aclrtIpcMemSetImportPid`, and with `crosses_servers` `aclrtIpcMemImportPidInterServer`.
pub fn allow(key: &str, process_ids: &[i32], crosses_servers: bool) -> Outcome {
    if crosses_servers && !settings().is_a3 {
        return Err(Fail::new(
            acl::FEATURE_NOT_SUPPORT,
            "memory crosses servers only inside an A3 super pod",
        ));
    }
    let id = EXPORTED.lock().get(key).copied().ok_or_else(|| unknown(key))?;
    let changed = share::change(id, |offered| {
        offered.process_ids.extend_from_slice(process_ids);
        offered.crosses_servers |= crosses_servers;
    });
    if changed { Ok(()) } else { Err(unknown(key)) }
}

/// `aclrtIpcMemSetAttr`: the attributes choose a path of the hardware and have no effect here.
pub fn set_attribute(key: &str) -> Outcome {
    if EXPORTED.lock().contains_key(key) { Ok(()) } else { Err(unknown(key)) }
}

/// `aclrtIpcMemImportByKey`: the address in this process; importing a key again answers the same one.
pub fn import(key: &str, flags: u64) -> Outcome<usize> {
    let device = context::current()?.device;
    let most = u64::from(settings().release >= 803);
    if flags > most {
        return Err(Fail::new(acl::PARAM_INVALID, format!("{flags:#x} has import flags this release lacks")));
    }
    let (id, secret) = numbers(key)
        .ok_or_else(|| Fail::new(acl::PARAM_INVALID, format!("\"{key}\" is no key of shared memory")))?;
    let mut imported = IMPORTED.lock();
    if let Some(start) = imported.get(key) {
        return Ok(*start);
    }
    let received = share::import(id, secret)?;
    // The system's page may be larger than the device's.
    let lead = received.offset % arena::page_size();
    let arena = Arena::view(received.file, received.offset - lead, received.length + lead, true).map_err(
        |error| Fail::new(acl::MEMORY_ALLOCATION, format!("cannot map the shared memory: {error}")),
    )?;
    let block = block::insert(Block {
        start: arena.user_base() + lead,
        length: received.length,
        size: received.length,
        place: Place::Device(device.user_id),
        page_size: received.page_size,
        alias: arena.alias_base() + lead,
        offset: received.offset,
        arena: Some(Arc::new(arena)),
        owner: Owner::Foreign {
            physical_id: received.physical_id.unwrap_or(device.physical_id),
            is_granted: flags == 1,
        },
    });
    imported.insert(key.to_owned(), block.start);
    Ok(block.start)
}

/// `aclrtIpcMemClose`: in an importer the mapping ends, in the exporter the key.
pub fn close(key: &str) -> Outcome {
    if let Some(start) = IMPORTED.lock().remove(key) {
        block::remove(start, |block| matches!(block.owner, Owner::Foreign { .. }));
        return Ok(());
    }
    let id = EXPORTED.lock().remove(key).ok_or_else(|| unknown(key))?;
    share::withdraw(id);
    Ok(())
}

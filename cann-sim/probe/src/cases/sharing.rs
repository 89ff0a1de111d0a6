//! Memory that another process or a mapping brought in.

use std::ffi::{CStr, c_char};
use std::ptr;

use cann_sys::{
    ACL_HBM_MEM_HUGE, ACL_MEM_ALLOCATION_TYPE_PINNED, ACL_MEM_HANDLE_TYPE_NONE, ACL_MEM_LOCATION_TYPE_DEVICE,
    ACL_RT_IPC_MEM_EXPORT_FLAG_DEFAULT, ACL_RT_IPC_MEM_EXPORT_FLAG_DISABLE_PID_VALIDATION,
    CANN_IPC_KEY_LENGTH_BYTES, CANN_RESERVE_FLAG, aclrtMemLocation, aclrtPhysicalMemProp, aclrtPtrAttributes,
};

use super::cases;
use crate::case::{Answer, Stop};
use crate::pair::Peer;
use crate::probe::{Probe, SIZE, acl, at, step};

cases! {
    imported_memory, "8.6", "What is memory imported by key, and can it be copied from?";
    import_needs_permission, "8.14",
        "Is an import refused until the exporter has named the importer's process?";
    process_ids, "8.14", "Is the process id that sharing wants the one that the process itself sees?";
    mapped_memory, "8.6", "What is physical memory mapped into a reserved range?";
}

/// The byte the shared memory has.
const CONTENTS: u8 = 77;

fn export(probe: &Probe, flags: u64) -> Answer<String> {
    probe.on_device(0)?;
    let memory = probe.device_memory(SIZE)?;
    probe.write(memory, &vec![CONTENTS; SIZE])?;
    let mut key: [c_char; CANN_IPC_KEY_LENGTH_BYTES] = [0; CANN_IPC_KEY_LENGTH_BYTES];
    let code = acl!(
        probe,
        aclrtIpcMemGetExportKey(at(memory), SIZE, key.as_mut_ptr(), CANN_IPC_KEY_LENGTH_BYTES, flags)
    );
    if code == 207_000 {
        return Err(Stop::Cannot("this driver has no memory keys (207000)".to_owned()));
    }
    crate::probe::need("aclrtIpcMemGetExportKey", code)?;
    // SAFETY: the array has 65 bytes, of which the last was zero and the key has at most 64.
    Ok(unsafe { CStr::from_ptr(key.as_ptr()) }.to_string_lossy().into_owned())
}

/// Starts the importer; answers it and the id that sharing wants.
fn importer(probe: &Probe) -> Answer<(Peer, i32)> {
    probe.device(1)?;
    let mut peer = Peer::start(probe, "importer", &[&CONTENTS.to_string()], &[])?;
    let text = peer.answer()?;
    let mut words = text.split(' ').map(|word| word.parse::<i32>().unwrap_or(-1));
    crate::probe::need("aclrtDeviceGetBareTgid", words.next().unwrap_or(-1))?;
    Ok((peer, words.next().unwrap_or(-1)))
}

fn imported_memory(probe: &mut Probe) -> Answer {
    let key = export(probe, ACL_RT_IPC_MEM_EXPORT_FLAG_DISABLE_PID_VALIDATION)?;
    let (mut peer, _) = importer(probe)?;
    probe.value("import", "0".to_owned(), peer.ask(&key)?);
    let text = peer.answer()?;
    let words: Vec<&str> = text.split(' ').collect();
    if let [code, kind, distance, page] = words.as_slice() {
        probe.value("aclrtPointerGetAttributes", "0", *code);
        probe.value("location type (1: device)", "1", *kind);
        probe.value("device id minus the importer's", "0", *distance);
        probe.measured("page size", page);
    }
    probe.value("copy to own memory: call, wait, bytes", "0 0 true".to_owned(), peer.answer()?);
    probe.value("close at the importer", "0".to_owned(), peer.answer()?);
    let key = std::ffi::CString::new(key).unwrap_or_default();
    probe.acl("close at the exporter", 0, acl!(probe, aclrtIpcMemClose(key.as_ptr())));
    Ok(())
}

fn import_needs_permission(probe: &mut Probe) -> Answer {
    let key = export(probe, ACL_RT_IPC_MEM_EXPORT_FLAG_DEFAULT)?;
    let (mut stranger, _) = importer(probe)?;
    let code = stranger.ask(&key)?;
    probe.holds("an import without permission is refused", code != "0");
    probe.measured("its code", code);
    let (mut friend, mut id) = importer(probe)?;
    let text = std::ffi::CString::new(key.clone()).unwrap_or_default();
    let code = acl!(probe, aclrtIpcMemSetImportPid(text.as_ptr(), &raw mut id, 1));
    probe.acl("aclrtIpcMemSetImportPid", 0, code);
    probe.value("an import with permission", "0".to_owned(), friend.ask(&key)?);
    Ok(())
}

fn process_ids(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let mut bare = 0;
    probe.acl("aclrtDeviceGetBareTgid", 0, acl!(probe, aclrtDeviceGetBareTgid(&raw mut bare)));
    let own = i32::try_from(std::process::id()).unwrap_or(-1);
    if bare == own {
        probe.value("outside containers it is our own", own, bare);
    } else {
        probe.measured("in a container the ids differ", format!("{bare} for the driver, {own} for us"));
    }
    Ok(())
}

fn mapped_memory(probe: &mut Probe) -> Answer {
    let device = probe.on_device(0)?;
    let id = u32::try_from(device).unwrap_or(0);
    let property = aclrtPhysicalMemProp {
        handleType: ACL_MEM_HANDLE_TYPE_NONE,
        allocationType: ACL_MEM_ALLOCATION_TYPE_PINNED,
        memAttr: ACL_HBM_MEM_HUGE,
        location: aclrtMemLocation { id, type_: ACL_MEM_LOCATION_TYPE_DEVICE },
        reserve: 0,
    };
    let mut handle = ptr::null_mut();
    let code = acl!(probe, aclrtMallocPhysical(&raw mut handle, SIZE, &raw const property, 0));
    if code == 207_000 {
        return Err(Stop::Cannot("this driver has no physical memory handles (207000)".to_owned()));
    }
    probe.acl("aclrtMallocPhysical", 0, code);
    let mut address = ptr::null_mut();
    step!(probe, acl aclrtReserveMemAddress(&raw mut address, SIZE, 0, ptr::null_mut(), CANN_RESERVE_FLAG));
    probe.acl("aclrtMapMem", 0, acl!(probe, aclrtMapMem(address, SIZE, 0, handle, 0)));
    let mut seen = aclrtPtrAttributes::default();
    probe.acl("aclrtPointerGetAttributes", 0, acl!(probe, aclrtPointerGetAttributes(address, &raw mut seen)));
    probe.value("location type (1: device)", ACL_MEM_LOCATION_TYPE_DEVICE, seen.location.type_);
    probe.value("device id", id, seen.location.id);
    probe.measured("page size", seen.pageSize);
    probe.write(address as usize, &[5; 64])?;
    probe.holds("bytes can be copied there and back", probe.read(address as usize, 64)? == [5; 64]);
    probe.acl("aclrtUnmapMem", 0, acl!(probe, aclrtUnmapMem(address)));
    probe.acl("aclrtReleaseMemAddress", 0, acl!(probe, aclrtReleaseMemAddress(address)));
    probe.acl("aclrtFreePhysical", 0, acl!(probe, aclrtFreePhysical(handle)));
    Ok(())
}

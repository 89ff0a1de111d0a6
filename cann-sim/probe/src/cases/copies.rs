//! Which copies are allowed, and when they are done.

use std::ffi::c_void;

use cann_sys::{
    ACL_MEMCPY_DEVICE_TO_DEVICE, ACL_MEMCPY_DEVICE_TO_HOST, ACL_MEMCPY_HOST_TO_DEVICE,
    ACL_MEMCPY_HOST_TO_HOST, aclrtMemLocation, aclrtMemcpyBatchAttr,
};

use super::cases;
use crate::case::Answer;
use crate::gate;
use crate::probe::{Probe, SIZE, acl, at, step};

cases! {
    synchronous_copies, "1.6", "How are length, limit and addresses of a copy checked?";
    host_to_host_is_refused, "1.6, 7.1", "Does an asynchronous copy between host memories answer 207000?";
    ordinary_memory_is_copied_at_once, "8.11",
        "Is an asynchronous copy from memory of malloc done when the call returns?";
    unmapped_host_memory, "10",
        "Does a copy from an address that is not mapped answer an error and spare the process?";
    batch_copies, "1.6, 7.1", "How does aclrtMemcpyBatch check its attributes, and is 4096 its limit?";
    copies_between_devices, "1.6", "Does a copy between two NPUs need aclrtDeviceEnablePeerAccess?";
    async_copies_by_event, "1.6", "Does a copy from pinned memory return at once?";
}

fn synchronous_copies(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let memory = at(probe.device_memory(4096)?);
    let bytes = [1_u8; 64];
    let source: *const c_void = bytes.as_ptr().cast();
    let kind = ACL_MEMCPY_HOST_TO_DEVICE;
    let null = std::ptr::null_mut();
    probe.acl("0 bytes between NULLs", 0, acl!(probe, aclrtMemcpy(null, 0, null, 0, kind)));
    probe.acl("to NULL", 100_000, acl!(probe, aclrtMemcpy(null, 64, source, 64, kind)));
    probe.acl("from NULL", 100_000, acl!(probe, aclrtMemcpy(memory, 64, null, 64, kind)));
    probe.acl("more than the limit", 107_000, acl!(probe, aclrtMemcpy(memory, 63, source, 64, kind)));
    probe.acl("host to device", 0, acl!(probe, aclrtMemcpy(memory, 64, source, 64, kind)));
    let code = acl!(probe, aclrtMemcpy(memory, 64, source, 64, ACL_MEMCPY_DEVICE_TO_HOST));
    probe.acl("the same with the wrong kind (addresses decide)", 0, code);
    probe.acl(
        "memory onto itself",
        0,
        acl!(probe, aclrtMemcpy(memory, 64, memory, 64, ACL_MEMCPY_DEVICE_TO_DEVICE)),
    );
    Ok(())
}

fn host_to_host_is_refused(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let stream = probe.stream()?;
    let host = probe.pinned_memory(4096)?;
    let code =
        acl!(probe, aclrtMemcpyAsync(at(host), 64, at(host + 64), 64, ACL_MEMCPY_HOST_TO_HOST, stream));
    probe.acl("pinned to pinned", 207_000, code);
    Ok(())
}

fn ordinary_memory_is_copied_at_once(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let stream = probe.stream()?;
    let memory = probe.device_memory(SIZE)?;
    let mut bytes = vec![9_u8; SIZE];
    let source = bytes.as_ptr().cast();
    let code =
        acl!(probe, aclrtMemcpyAsync(at(memory), SIZE, source, SIZE, ACL_MEMCPY_HOST_TO_DEVICE, stream));
    bytes.fill(1); // must not be seen
    let mut status = 9;
    step!(probe, acl aclrtStreamQuery(stream, &raw mut status));
    probe.acl("the call", 0, code);
    probe.value("stream status when it returns (0: complete)", 0, status);
    probe.acl("wait", 0, crate::pair::wait(probe, stream)?);
    let seen = probe.read(memory, SIZE)?;
    probe.value("bytes of before the return", SIZE, seen.iter().filter(|byte| **byte == 9).count());
    Ok(())
}

fn unmapped_host_memory(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let memory = at(probe.device_memory(4096)?);
    let code = acl!(probe, aclrtMemcpy(memory, 4096, at(4096), 4096, ACL_MEMCPY_HOST_TO_DEVICE));
    probe.holds("from address 4096: an error", code != 0);
    probe.measured("its code", crate::code::acl(code));
    Ok(())
}

fn batch_copies(probe: &mut Probe) -> Answer {
    const LIMIT: usize = cann_sys::CANN_MEMCPY_BATCH_ITEM_LIMIT;
    let device = probe.on_device(0)?;
    let memory = probe.device_memory(SIZE)?;
    let host = probe.pinned_memory(SIZE)?;
    let id = u32::try_from(device).unwrap_or(0);
    let place = |id: u32, kind: u32| aclrtMemLocation { id, type_: kind };
    let mut attribute = aclrtMemcpyBatchAttr {
        dstLoc: place(id, cann_sys::ACL_MEM_LOCATION_TYPE_DEVICE),
        srcLoc: place(0, cann_sys::ACL_MEM_LOCATION_TYPE_HOST),
        rsv: [0; 16],
    };
    let mut targets: Vec<*mut c_void> = (0..=LIMIT).map(|item| at(memory + item * 64)).collect();
    let mut sources: Vec<*mut c_void> = (0..=LIMIT).map(|item| at(host + item * 64)).collect();
    let mut sizes = vec![64_usize; LIMIT + 1];
    let mut limits = sizes.clone();
    let mut batch = |count: usize, attribute: &mut aclrtMemcpyBatchAttr| -> Answer<(i32, usize)> {
        let (mut start, mut fail) = (0_usize, 12_345_usize);
        let code = acl!(
            probe,
            aclrtMemcpyBatch(
                targets.as_mut_ptr(),
                limits.as_mut_ptr(),
                sources.as_mut_ptr(),
                sizes.as_mut_ptr(),
                count,
                attribute,
                &raw mut start,
                1,
                &raw mut fail,
            )
        );
        Ok((code, fail))
    };
    let (code, fail) = batch(LIMIT, &mut attribute)?;
    if code == 207_000 {
        return Err(crate::case::Stop::Cannot("this driver has no batch copies (207000)".to_owned()));
    }
    probe.acl("4096 items", 0, code);
    probe.value("index of the failed item when none failed", usize::MAX, fail);
    probe.acl("4097 items", 107_000, batch(LIMIT + 1, &mut attribute)?.0);
    probe.acl("no items", 100_000, batch(0, &mut attribute)?.0);
    attribute.dstLoc.id = id + 1;
    let (code, fail) = batch(8, &mut attribute)?;
    probe.acl("an attribute with another device", 107_000, code);
    probe.value("index of the failed item", 0, fail);
    attribute.dstLoc.id = id;
    attribute.rsv = [1; 16];
    probe.acl("reserved bytes that are not zero", 100_000, batch(8, &mut attribute)?.0);
    Ok(())
}

fn copies_between_devices(probe: &mut Probe) -> Answer {
    probe.device(1)?;
    let first = probe.on_device(0)?;
    let here = probe.device_memory(4096)?;
    probe.write(here, &[4; 4096])?;
    let second = probe.on_device(1)?;
    let there = probe.device_memory(4096)?;
    let mut can = 9;
    step!(probe, acl aclrtDeviceCanAccessPeer(&raw mut can, second, first));
    probe.value("aclrtDeviceCanAccessPeer", 1, can);
    if can != 1 {
        return Ok(());
    }
    let copy = || -> Answer<i32> {
        Ok(acl!(probe, aclrtMemcpy(at(there), 4096, at(here), 4096, ACL_MEMCPY_DEVICE_TO_DEVICE)))
    };
    probe.acl("without peer access", 107_000, copy()?);
    probe.acl("aclrtDeviceEnablePeerAccess", 0, acl!(probe, aclrtDeviceEnablePeerAccess(first, 0)));
    probe.acl("with peer access", 0, copy()?);
    probe.holds("the bytes came over", probe.read(there, 4096)?.iter().all(|byte| *byte == 4));
    Ok(())
}

fn async_copies_by_event(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let stream = probe.stream()?;
    let (memory, host) = (probe.device_memory(SIZE)?, probe.pinned_memory(SIZE)?);
    gate::close(probe, stream)?;
    let event = probe.event()?;
    let code =
        acl!(probe, aclrtMemcpyAsync(at(memory), SIZE, at(host), SIZE, ACL_MEMCPY_HOST_TO_DEVICE, stream));
    probe.acl("a copy behind held work returns", 0, code);
    step!(probe, acl aclrtRecordEvent(event, stream));
    let mut status = 9;
    step!(probe, acl aclrtQueryEventStatus(event, &raw mut status));
    probe.value("its event (0: not ready)", 0, status);
    gate::open();
    step!(probe, acl aclrtSynchronizeEvent(event));
    step!(probe, acl aclrtQueryEventStatus(event, &raw mut status));
    probe.value("its event afterwards", 1, status);
    Ok(())
}

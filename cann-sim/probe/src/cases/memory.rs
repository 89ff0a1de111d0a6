//! Allocation and what addresses are.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::ptr;

use cann_sys::{ACL_MEM_LOCATION_TYPE_DEVICE, ACL_MEM_LOCATION_TYPE_UNREGISTERED, aclrtPtrAttributes};

use super::cases;
use crate::case::{Answer, Stop};
use crate::probe::{HUGE_PAGE, Probe, SIZE, acl, at, step};

cases! {
    allocation, "1.6", "How are sizes and addresses of device memory checked and aligned?";
    host_code_faults, "7.1", "Does host code that reads device memory die of a fault?";
    attributes_of_known_memory, "1.6", "What are device and pinned memory by aclrtPointerGetAttributes?";
    attributes_of_ordinary_memory, "8.11", "What is memory of malloc by aclrtPointerGetAttributes?";
    host_registration, "1.6", "Is a second registration of host memory refused with 507910?";
}

fn allocation(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let mut address = ptr::null_mut();
    probe.acl("aclrtMalloc of 0 bytes", 100_000, acl!(probe, aclrtMalloc(&raw mut address, 0, 0)));
    probe.acl("aclrtMalloc to NULL", 100_000, acl!(probe, aclrtMalloc(ptr::null_mut(), 64, 0)));
    probe.acl("aclrtFree(NULL)", 100_000, acl!(probe, aclrtFree(ptr::null_mut())));
    let small = probe.device_memory(1000)?;
    let large = probe.device_memory((1 << 20) + 1)?;
    probe.value("1000 bytes: address modulo 64", 0, small % 64);
    probe.value("more than 1 MiB: address modulo 2 MiB", 0, large % HUGE_PAGE);
    let too_much = usize::MAX / 2;
    probe.acl("8 EiB", 207_001, acl!(probe, aclrtMalloc(&raw mut address, too_much, 0)));
    probe.acl("aclrtFree", 0, acl!(probe, aclrtFree(at(small))));
    Ok(())
}

fn host_code_faults(probe: &mut Probe) -> Answer {
    probe.device(0)?;
    let failed = |error: std::io::Error| Stop::Cannot(format!("cannot start a process: {error}"));
    let output = Command::new(std::env::current_exe().map_err(failed)?)
        .args(probe.choice.arguments())
        .args(["--role", "touch", "--case", probe.case])
        .output()
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("@peer allocated") {
        return Err(Stop::Cannot("the process that was to die had no device memory".to_owned()));
    }
    let end = match output.status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => "it lived".to_owned(),
    };
    probe.value("the process that reads device memory", format!("signal {}", libc::SIGSEGV), end);
    Ok(())
}

fn attributes(probe: &Probe, address: usize) -> Answer<(i32, aclrtPtrAttributes)> {
    let mut attributes = aclrtPtrAttributes::default();
    let code = acl!(probe, aclrtPointerGetAttributes(at(address), &raw mut attributes));
    Ok((code, attributes))
}

fn attributes_of_known_memory(probe: &mut Probe) -> Answer {
    let device = probe.on_device(0)?;
    let (memory, host) = (probe.device_memory(SIZE)?, probe.pinned_memory(4096)?);
    let (code, seen) = attributes(probe, memory + HUGE_PAGE + 5)?;
    probe.acl("device memory", 0, code);
    probe.value("location type (1: device)", ACL_MEM_LOCATION_TYPE_DEVICE, seen.location.type_);
    probe.value("device id", i64::from(device), i64::from(seen.location.id));
    probe.value("page size", HUGE_PAGE.to_string(), seen.pageSize.to_string());
    let (code, seen) = attributes(probe, host + 100)?;
    probe.acl("pinned memory", 0, code);
    probe.value("location type (0: host)", 0, seen.location.type_);
    probe.acl("NULL", 100_000, attributes(probe, 0)?.0);
    Ok(())
}

fn attributes_of_ordinary_memory(probe: &mut Probe) -> Answer {
    let device = probe.on_device(0)?;
    let ordinary = vec![3_u8; 4096];
    let (code, seen) = attributes(probe, ordinary.as_ptr() as usize)?;
    probe.acl("ordinary memory", 0, code);
    probe.value("location type (2: unregistered)", ACL_MEM_LOCATION_TYPE_UNREGISTERED, seen.location.type_);
    probe.measured("device the case ran on", device);
    Ok(())
}

fn host_registration(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let length = 8192_u64;
    // SAFETY: an anonymous private mapping of our own.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            8192,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(Stop::Cannot("no memory".to_owned()));
    }
    let mut device = ptr::null_mut();
    let unaligned = at(memory as usize + 1);
    let code = acl!(probe, aclrtHostRegister(unaligned, 4096, 0, &raw mut device));
    probe.acl("an unaligned address", 107_000, code);
    step!(probe, acl aclrtHostRegister(memory, length, 0, &raw mut device));
    probe.acl("once more", 507_910, acl!(probe, aclrtHostRegister(memory, length, 0, &raw mut device)));
    probe.acl("aclrtHostUnregister", 0, acl!(probe, aclrtHostUnregister(memory)));
    probe.acl("once more", 507_911, acl!(probe, aclrtHostUnregister(memory)));
    Ok(())
}

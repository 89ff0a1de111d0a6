//! Initialisation, errors, devices.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{acl_out, export};
use crate::clock::deadline_ms;
use crate::copy_rules;
use crate::device::{by_user_id, devices, find};
use crate::settings::{self, settings};
use crate::status::{self, Fail, Outcome, acl};
use crate::{context, copy, device};

/// `aclInit` calls that no `aclFinalize` has answered: 0 or 1.
static INITIALIZED: AtomicU64 = AtomicU64::new(0);

/// `aclrtGetVersion` of the posed release: 1.13 is 8.1, one minor more per release up to 1.17 for all of 9.x.
fn acl_version() -> (i32, i32, i32) {
    match settings().release {
        ..=801 => (1, 13, 0),
        802 => (1, 14, 0),
        803..=804 => (1, 15, 0),
        805..=899 => (1, 16, 0),
        _ => (1, 17, 0),
    }
}

fn device_attribute(user_id: i32, attribute: i32) -> Outcome<i64> {
    let device = by_user_id(user_id)?;
    Ok(match attribute {
        301 => i64::try_from(settings().hbm_size_bytes).unwrap_or(i64::MAX),
        401 | 501 => 0,
        402 => i64::from(device.physical_id),
        403 => i64::from(device::super_device_id(device.physical_id)),
        404 => i64::from(settings().server_index),
        405 => i64::from(settings().super_pod_id),
        408 => i64::from(settings().is_a3),
        other => {
            return Err(Fail::new(acl::PARAM_INVALID, format!("{other} is no device attribute known here")));
        }
    })
}

/// The id in an input pointer of the id getters.
fn logical(device: &crate::device::Device) -> i32 {
    i32::try_from(device.logical_id).unwrap_or(i32::MAX)
}

fn physical(device: &crate::device::Device) -> i32 {
    i32::try_from(device.physical_id).unwrap_or(i32::MAX)
}

fn user(device: &crate::device::Device) -> i32 {
    i32::try_from(device.user_id).unwrap_or(i32::MAX)
}

export! {
    /// `aclInit`: again answers 100002.
    fn cann_sim_aclInit(_configuration: *const c_char) {
        match INITIALIZED.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fail::new(acl::REPEAT_INITIALIZE, "aclInit was called before")),
        }
    }

    /// `aclFinalize`.
    fn cann_sim_aclFinalize() {
        match INITIALIZED.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fail::new(acl::REPEAT_FINALIZE, "aclFinalize without aclInit")),
        }
    }

    /// `aclFinalizeReference`.
    fn cann_sim_aclFinalizeReference(count: *mut u64) {
        if INITIALIZED.swap(0, Ordering::AcqRel) == 0 {
            return Err(Fail::new(acl::UNINITIALIZE, "aclFinalizeReference without aclInit"));
        }
        if !count.is_null() {
            // SAFETY: not NULL, so good for one value by the prototype.
            unsafe { acl_out(count)? }.set(0);
        }
        Ok(())
    }

    /// `aclrtGetVersion`.
    fn cann_sim_aclrtGetVersion(major: *mut i32, minor: *mut i32, patch: *mut i32) {
        // SAFETY: the prototype names three outputs.
        let (out_major, out_minor, out_patch) = unsafe { (acl_out(major)?, acl_out(minor)?, acl_out(patch)?) };
        let (major, minor, patch) = acl_version();
        out_major.set(major);
        out_minor.set(minor);
        out_patch.set(patch);
        Ok(())
    }

    /// `aclrtSetDevice`.
    fn cann_sim_aclrtSetDevice(device: i32) {
        context::set_device(by_user_id(device)?)
    }

    /// `aclrtResetDevice`.
    fn cann_sim_aclrtResetDevice(device: i32) {
        context::reset_device(by_user_id(device)?, false)
    }

    /// `aclrtResetDeviceForce`.
    fn cann_sim_aclrtResetDeviceForce(device: i32) {
        context::reset_device(by_user_id(device)?, true)
    }

    /// `aclrtGetDevice`.
    fn cann_sim_aclrtGetDevice(device: *mut i32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(device)? };
        out.set(user(context::current()?.device));
        Ok(())
    }

    /// `aclrtGetDeviceCount`.
    fn cann_sim_aclrtGetDeviceCount(count: *mut u32) {
        // SAFETY: one output.
        unsafe { acl_out(count)? }.set(u32::try_from(devices().len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// `aclrtGetRunMode`: a host program, 1.
    fn cann_sim_aclrtGetRunMode(mode: *mut i32) {
        // SAFETY: one output.
        unsafe { acl_out(mode)? }.set(1);
        Ok(())
    }

    /// `aclrtSynchronizeDevice`.
    fn cann_sim_aclrtSynchronizeDevice() {
        context::synchronize_device(None)
    }

    /// `aclrtSynchronizeDeviceWithTimeout`.
    fn cann_sim_aclrtSynchronizeDeviceWithTimeout(timeout_ms: i32) {
        context::synchronize_device(deadline_ms(timeout_ms)?)
    }

    /// `aclrtDeviceTaskAbort`: nothing here takes longer than the timeout.
    fn cann_sim_aclrtDeviceTaskAbort(device: i32, _timeout_ms: u32) {
        context::abort_device(by_user_id(device)?);
        Ok(())
    }

    /// `aclrtGetDevicesTopo`: HCCS between A2 devices unless PCIe joins them, on A3 the two dies of a package by SIO and others by switch.
    fn cann_sim_aclrtGetDevicesTopo(device: u32, other: u32, topology: *mut u64) {
        // SAFETY: one output.
        let out = unsafe { acl_out(topology)? };
        let (one, other) = (by_user_id(i32::try_from(device).unwrap_or(-1))?, by_user_id(i32::try_from(other).unwrap_or(-1))?);
        if one.physical_id == other.physical_id {
            return Err(Fail::new(acl::PARAM_INVALID, "both are the same device"));
        }
        let pair = (one.physical_id.min(other.physical_id), one.physical_id.max(other.physical_id));
        out.set(match settings().is_a3 {
            false if settings().pcie_pairs.contains(&pair) => 2,
            false => 1,
            true if one.physical_id / 2 == other.physical_id / 2 => 0x20,
            true => 0x40,
        });
        Ok(())
    }

    /// `aclrtQueryDeviceStatus`: always normal, 0.
    fn cann_sim_aclrtQueryDeviceStatus(device: i32, status: *mut i32) {
        by_user_id(device)?;
        // SAFETY: one output.
        unsafe { acl_out(status)? }.set(0);
        Ok(())
    }

    /// `aclrtDeviceCanAccessPeer`: every pair of different devices can.
    fn cann_sim_aclrtDeviceCanAccessPeer(can: *mut i32, device: i32, peer: i32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(can)? };
        let (device, peer) = (by_user_id(device)?, by_user_id(peer)?);
        out.set(i32::from(device.user_id != peer.user_id));
        Ok(())
    }

    /// `aclrtDeviceEnablePeerAccess`.
    fn cann_sim_aclrtDeviceEnablePeerAccess(peer: i32, flags: u32) {
        if flags != 0 {
            return Err(Fail::new(acl::PARAM_INVALID, format!("flags must be 0, not {flags}")));
        }
        copy_rules::enable_peer_access(peer, true)
    }

    /// `aclrtDeviceDisablePeerAccess`.
    fn cann_sim_aclrtDeviceDisablePeerAccess(peer: i32) {
        copy_rules::enable_peer_access(peer, false)
    }

    /// `aclrtDeviceGetBareTgid`.
    fn cann_sim_aclrtDeviceGetBareTgid(pid: *mut i32) {
        // SAFETY: one output.
        unsafe { acl_out(pid)? }.set(copy::own_pid());
        Ok(())
    }

    /// `aclrtGetDeviceInfo`.
    fn cann_sim_aclrtGetDeviceInfo(device: u32, attribute: i32, value: *mut i64) {
        // SAFETY: one output.
        let out = unsafe { acl_out(value)? };
        out.set(device_attribute(i32::try_from(device).unwrap_or(-1), attribute)?);
        Ok(())
    }

    /// `aclrtGetPhyDevIdByLogicDevId`; its argument is documented to be really the user's id.
    fn cann_sim_aclrtGetPhyDevIdByLogicDevId(id: i32, result: *mut i32) {
        // SAFETY: one output.
        unsafe { acl_out(result)? }.set(physical(by_user_id(id)?));
        Ok(())
    }

    /// `aclrtGetLogicDevIdByPhyDevId`.
    fn cann_sim_aclrtGetLogicDevIdByPhyDevId(id: i32, result: *mut i32) {
        // SAFETY: one output.
        unsafe { acl_out(result)? }.set(user(find(id, |device| physical(device) == id)?));
        Ok(())
    }

    /// `aclrtGetLogicDevIdByUserDevId`.
    fn cann_sim_aclrtGetLogicDevIdByUserDevId(id: i32, result: *mut i32) {
        // SAFETY: one output.
        unsafe { acl_out(result)? }.set(logical(by_user_id(id)?));
        Ok(())
    }

    /// `aclrtGetUserDevIdByLogicDevId`.
    fn cann_sim_aclrtGetUserDevIdByLogicDevId(id: i32, result: *mut i32) {
        // SAFETY: one output.
        unsafe { acl_out(result)? }.set(user(find(id, |device| logical(device) == id)?));
        Ok(())
    }

    /// `aclrtGetPhyDevIdByUserDevId`.
    fn cann_sim_aclrtGetPhyDevIdByUserDevId(id: i32, result: *mut i32) {
        // SAFETY: one output.
        unsafe { acl_out(result)? }.set(physical(by_user_id(id)?));
        Ok(())
    }

    /// `aclrtGetUserDevIdByPhyDevId`.
    fn cann_sim_aclrtGetUserDevIdByPhyDevId(id: i32, result: *mut i32) {
        // SAFETY: one output.
        unsafe { acl_out(result)? }.set(user(find(id, |device| physical(device) == id)?));
        Ok(())
    }

    /// `rtGetDevicePhyIdByIndex`.
    fn cann_sim_rtGetDevicePhyIdByIndex(index: u32, result: *mut u32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(result)? };
        out.set(by_user_id(i32::try_from(index).unwrap_or(-1))?.physical_id);
        Ok(())
    }

    /// `rtGetDeviceIndexByPhyId`.
    fn cann_sim_rtGetDeviceIndexByPhyId(id: u32, result: *mut u32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(result)? };
        out.set(find(i32::try_from(id).unwrap_or(-1), |device| device.physical_id == id)?.user_id);
        Ok(())
    }

    /// `rtGetDeviceInfo`: of module 0, the system, the two attributes that a rank table needs.
    fn cann_sim_rtGetDeviceInfo(index: u32, module: i32, attribute: i32, value: *mut i64) {
        // SAFETY: one output.
        let out = unsafe { acl_out(value)? };
        let attribute = match (module, attribute) {
            (0, 26) => 403,
            (0, 29) => 405,
            _ => return Err(Fail::new(acl::PARAM_INVALID, "the software NPU does not have this attribute")),
        };
        out.set(device_attribute(i32::try_from(index).unwrap_or(-1), attribute)?);
        Ok(())
    }

    /// Functions that exist and are out of scope.
    fn cann_sim_unsupported_acl(_first: *mut c_void) {
        Err(Fail::new(acl::FEATURE_NOT_SUPPORT, "the software NPU does not have this feature"))
    }
}

/// `aclGetRecentErrMsg`: reads and clears the thread's text.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the private name is the vendor's with a prefix")]
pub extern "C" fn cann_sim_aclGetRecentErrMsg() -> *const c_char {
    status::take_text()
}

/// `aclrtGetSocName`.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the private name is the vendor's with a prefix")]
pub extern "C" fn cann_sim_aclrtGetSocName() -> *const c_char {
    settings().soc_name.as_ptr()
}

/// `aclrtPeekAtLastError`.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the private name is the vendor's with a prefix")]
pub extern "C" fn cann_sim_aclrtPeekAtLastError(_level: i32) -> i32 {
    status::last_code(false)
}

/// `aclrtGetLastError`.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the private name is the vendor's with a prefix")]
pub extern "C" fn cann_sim_aclrtGetLastError(_level: i32) -> i32 {
    status::last_code(true)
}

/// For the libraries under the vendor's names: the posed release as major * 100 + minor.
#[unsafe(no_mangle)]
pub extern "C" fn cann_sim_posed_release() -> u32 {
    settings::visibility().release
}

/// For the libraries under the vendor's names: the functions they shall not have, comma separated.
#[unsafe(no_mangle)]
pub extern "C" fn cann_sim_hidden_names() -> *const c_char {
    settings::visibility().hidden.as_ptr()
}

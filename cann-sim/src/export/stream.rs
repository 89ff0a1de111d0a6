//! Streams and functions of the program in them.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{acl_out, acl_require, export};
use crate::clock::deadline_ms;
use crate::context::{create_stream, destroy_stream, resolve_stream};
use crate::event;
use crate::handle::to_pointer;
use crate::settings::settings;
use crate::status::{Fail, Outcome, acl};
use crate::task::{HostFunction, Task};

/// Only device code submits to the stream.
const DEVICE_USE_ONLY: u32 = 0x20;

fn wait_event(stream: *mut c_void, handle: *mut c_void, timeout_ms: i32) -> Outcome {
    acl_require(!handle.is_null(), "the event is NULL")?;
    let stream = resolve_stream(stream as usize)?;
    let event = event::resolve(handle as usize)?;
    // 0 and -1 both mean for ever here; a timeout counts from the submission.
    let deadline = match u64::try_from(timeout_ms) {
        Ok(0) | Err(_) => None,
        Ok(timeout_ms) => Instant::now().checked_add(Duration::from_millis(timeout_ms)),
    };
    let generation = event.begin_wait();
    stream.submit(Task::Wait { event: Arc::clone(&event), generation, deadline })
}

export! {
    /// `aclrtCreateStream`.
    fn cann_sim_aclrtCreateStream(handle: *mut *mut c_void) {
        // SAFETY: one output.
        let out = unsafe { acl_out(handle)? };
        out.set(to_pointer(create_stream(0)?));
        Ok(())
    }

    /// `aclrtCreateStreamWithConfig`; priorities are accepted and have no effect.
    fn cann_sim_aclrtCreateStreamWithConfig(handle: *mut *mut c_void, _priority: u32, flag: u32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(handle)? };
        if flag & !0x3f != 0 {
            return Err(Fail::new(acl::PARAM_INVALID, format!("{flag:#x} has unknown stream flags")));
        }
        out.set(to_pointer(create_stream(flag)?));
        Ok(())
    }

    /// `aclrtDestroyStream`.
    fn cann_sim_aclrtDestroyStream(handle: *mut c_void) {
        acl_require(!handle.is_null(), "the stream is NULL")?;
        destroy_stream(handle as usize, false)
    }

    /// `aclrtDestroyStreamForce`.
    fn cann_sim_aclrtDestroyStreamForce(handle: *mut c_void) {
        acl_require(!handle.is_null(), "the stream is NULL")?;
        destroy_stream(handle as usize, true)
    }

    /// `aclrtSynchronizeStream`.
    fn cann_sim_aclrtSynchronizeStream(handle: *mut c_void) {
        resolve_stream(handle as usize)?.synchronize(None)
    }

    /// `aclrtSynchronizeStreamWithTimeout`: expiry leaves the work going.
    fn cann_sim_aclrtSynchronizeStreamWithTimeout(handle: *mut c_void, timeout_ms: i32) {
        let deadline = deadline_ms(timeout_ms)?;
        resolve_stream(handle as usize)?.synchronize(deadline)
    }

    /// `aclrtStreamQuery`: 0 complete, 1 not ready.
    fn cann_sim_aclrtStreamQuery(handle: *mut c_void, status: *mut i32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(status)? };
        out.set(i32::from(!resolve_stream(handle as usize)?.is_idle()?));
        Ok(())
    }

    /// `aclrtStreamAbort`: A2, A3 and 950 have it (facts 1.6).
    fn cann_sim_aclrtStreamAbort(handle: *mut c_void) {
        acl_require(!handle.is_null(), "the stream is NULL")?;
        if !settings().aborts_streams {
            return Err(Fail::new(acl::FEATURE_NOT_SUPPORT, "this chip cannot abort a stream"));
        }
        resolve_stream(handle as usize)?.abort();
        Ok(())
    }

    /// `aclrtStreamStop`: these chips stop only streams that nothing but the device uses, never the default one.
    fn cann_sim_aclrtStreamStop(handle: *mut c_void) {
        if handle.is_null() {
            return Err(Fail::new(acl::PARAM_INVALID, "the default stream cannot be stopped"));
        }
        if resolve_stream(handle as usize)?.flags & DEVICE_USE_ONLY == 0 {
            return Err(Fail::new(acl::FEATURE_NOT_SUPPORT, "only streams with the flag DEVICE_USE_ONLY can be stopped"));
        }
        Ok(())
    }

    /// `aclrtStreamGetId`: a number that is the stream's own as long as it lives.
    fn cann_sim_aclrtStreamGetId(handle: *mut c_void, id: *mut i32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(id)? };
        let handle = resolve_stream(handle as usize)?.handle;
        out.set(i32::try_from((handle >> 4) & 0x7fff_ffff).unwrap_or(0));
        Ok(())
    }

    /// `aclrtSetStreamFailureMode`: 0 continue, 1 stop.
    fn cann_sim_aclrtSetStreamFailureMode(handle: *mut c_void, mode: u64) {
        if mode > 1 {
            return Err(Fail::new(acl::PARAM_INVALID, format!("{mode} is no failure mode")));
        }
        resolve_stream(handle as usize)?.set_failure_mode(mode == 1)
    }

    /// `aclrtStreamWaitEvent`.
    fn cann_sim_aclrtStreamWaitEvent(stream: *mut c_void, handle: *mut c_void) {
        wait_event(stream, handle, 0)
    }

    /// `aclrtStreamWaitEventWithTimeout`.
    fn cann_sim_aclrtStreamWaitEventWithTimeout(stream: *mut c_void, handle: *mut c_void, timeout_ms: i32) {
        wait_event(stream, handle, timeout_ms)
    }

    /// `aclrtLaunchHostFunc`: blocks the stream while it runs.
    fn cann_sim_aclrtLaunchHostFunc(
        stream: *mut c_void,
        function: Option<unsafe extern "C" fn(*mut c_void)>,
        argument: *mut c_void,
    ) {
        let Some(function) = function else {
            return Err(Fail::new(acl::INVALID_PARAM, "the function is NULL"));
        };
        resolve_stream(stream as usize)?.submit(Task::Call(HostFunction { function, argument }))
    }
}

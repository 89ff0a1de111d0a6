//! Events. The recorded status is inverted: 0 not ready, 1 complete.

use std::ffi::c_void;
use std::sync::Arc;

use super::{acl_out, acl_require, export};
use crate::clock::deadline_ms;
use crate::context::{self, resolve_stream};
use crate::event::{self, EVENTS, Event};
use crate::handle::to_pointer;
use crate::status::{Fail, Outcome, acl};
use crate::task::Task;

fn resolve(handle: *mut c_void) -> Outcome<Arc<Event>> {
    acl_require(!handle.is_null(), "the event is NULL")?;
    event::resolve(handle as usize)
}

fn create(handle: *mut *mut c_void, flags: u32) -> Outcome {
    // SAFETY: one output.
    let out = unsafe { acl_out(handle)? };
    if flags & !0x7b != 0 {
        return Err(Fail::new(acl::PARAM_INVALID, format!("{flags:#x} has unknown event flags")));
    }
    out.set(to_pointer(event::create(context::current()?.device, flags)?));
    Ok(())
}

export! {
    /// `aclrtCreateEvent`: with time line, as the legacy kind has it.
    fn cann_sim_aclrtCreateEvent(handle: *mut *mut c_void) {
        create(handle, event::TIME_LINE)
    }

    /// `aclrtCreateEventWithFlag`.
    fn cann_sim_aclrtCreateEventWithFlag(handle: *mut *mut c_void, flags: u32) {
        create(handle, flags)
    }

    /// `aclrtCreateEventExWithFlag`.
    fn cann_sim_aclrtCreateEventExWithFlag(handle: *mut *mut c_void, flags: u32) {
        create(handle, flags)
    }

    /// `aclrtDestroyEvent`.
    fn cann_sim_aclrtDestroyEvent(handle: *mut c_void) {
        resolve(handle)?;
        EVENTS.remove(handle as usize);
        Ok(())
    }

    /// `aclrtRecordEvent`.
    fn cann_sim_aclrtRecordEvent(handle: *mut c_void, stream: *mut c_void) {
        let event = resolve(handle)?;
        let stream = resolve_stream(stream as usize)?;
        let generation = event.begin_record();
        stream.submit(Task::Record { event, generation })
    }

    /// `aclrtResetEvent`.
    fn cann_sim_aclrtResetEvent(handle: *mut c_void, stream: *mut c_void) {
        let event = resolve(handle)?;
        resolve_stream(stream as usize)?;
        event.reset();
        Ok(())
    }

    /// `aclrtQueryEvent` (deprecated): 0 complete, 1 not ready.
    fn cann_sim_aclrtQueryEvent(handle: *mut c_void, status: *mut i32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(status)? };
        out.set(i32::from(!resolve(handle)?.is_complete()));
        Ok(())
    }

    /// `aclrtQueryEventStatus`: 0 not ready, 1 complete.
    fn cann_sim_aclrtQueryEventStatus(handle: *mut c_void, status: *mut i32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(status)? };
        out.set(i32::from(resolve(handle)?.is_complete()));
        Ok(())
    }

    /// `aclrtQueryEventWaitStatus`: 0 complete, 1 not ready.
    fn cann_sim_aclrtQueryEventWaitStatus(handle: *mut c_void, status: *mut i32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(status)? };
        out.set(i32::from(!resolve(handle)?.waits_are_complete()));
        Ok(())
    }

    /// `aclrtSynchronizeEvent`.
    fn cann_sim_aclrtSynchronizeEvent(handle: *mut c_void) {
        resolve(handle)?.synchronize(None)
    }

    /// `aclrtSynchronizeEventWithTimeout`.
    fn cann_sim_aclrtSynchronizeEventWithTimeout(handle: *mut c_void, timeout_ms: i32) {
        let deadline = deadline_ms(timeout_ms)?;
        resolve(handle)?.synchronize(deadline)
    }

    /// `aclrtEventElapsedTime`, in milliseconds.
    fn cann_sim_aclrtEventElapsedTime(milliseconds: *mut f32, start: *mut c_void, end: *mut c_void) {
        // SAFETY: one output.
        let out = unsafe { acl_out(milliseconds)? };
        let (start_us, end_us) = (resolve(start)?.timestamp_us()?, resolve(end)?.timestamp_us()?);
        let elapsed = std::time::Duration::from_micros(end_us.saturating_sub(start_us));
        out.set(elapsed.as_secs_f32() * 1000.0);
        Ok(())
    }

    /// `aclrtEventGetTimestamp`, in microseconds.
    fn cann_sim_aclrtEventGetTimestamp(handle: *mut c_void, microseconds: *mut u64) {
        // SAFETY: one output.
        let out = unsafe { acl_out(microseconds)? };
        out.set(resolve(handle)?.timestamp_us()?);
        Ok(())
    }
}

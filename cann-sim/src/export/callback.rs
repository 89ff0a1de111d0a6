//! Callbacks on a thread of the program.

use std::ffi::c_void;

use super::{acl_require, export};
use crate::callback;
use crate::clock::deadline_ms;
use crate::status::{Fail, acl};
use crate::task::HostFunction;

export! {
    /// `aclrtSubscribeReport`.
    fn cann_sim_aclrtSubscribeReport(thread_id: u64, stream: *mut c_void) {
        callback::subscribe(thread_id, stream as usize)
    }

    /// `aclrtUnSubscribeReport`.
    fn cann_sim_aclrtUnSubscribeReport(thread_id: u64, stream: *mut c_void) {
        callback::unsubscribe(thread_id, stream as usize)
    }

    /// `aclrtProcessReport`: -1 for ever, else above 0.
    fn cann_sim_aclrtProcessReport(timeout_ms: i32) {
        if timeout_ms == 0 {
            return Err(Fail::new(acl::PARAM_INVALID, "the timeout is 0; it is -1 or above 0"));
        }
        callback::process(deadline_ms(timeout_ms)?)
    }

    /// `aclrtLaunchCallback`: 0 does not block the stream, 1 does.
    fn cann_sim_aclrtLaunchCallback(
        function: Option<unsafe extern "C" fn(*mut c_void)>,
        argument: *mut c_void,
        block: i32,
        stream: *mut c_void,
    ) {
        let Some(function) = function else {
            return Err(Fail::new(acl::INVALID_PARAM, "the function is NULL"));
        };
        acl_require(matches!(block, 0 | 1), "the callback is neither blocking nor not")?;
        callback::launch(HostFunction { function, argument }, block == 1, stream as usize)
    }
}

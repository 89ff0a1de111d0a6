//! Contexts.

use std::ffi::c_void;

use super::{acl_out, acl_require, export};
use crate::context;
use crate::device::by_user_id;
use crate::handle::to_pointer;

export! {
    /// `aclrtCreateContext`.
    fn cann_sim_aclrtCreateContext(handle: *mut *mut c_void, device: i32) {
        // SAFETY: one output.
        let out = unsafe { acl_out(handle)? };
        out.set(to_pointer(context::create(by_user_id(device)?)?));
        Ok(())
    }

    /// `aclrtDestroyContext`.
    fn cann_sim_aclrtDestroyContext(handle: *mut c_void) {
        acl_require(!handle.is_null(), "the context is NULL")?;
        context::destroy(handle as usize)
    }

    /// `aclrtSetCurrentContext`.
    fn cann_sim_aclrtSetCurrentContext(handle: *mut c_void) {
        acl_require(!handle.is_null(), "the context is NULL")?;
        context::set_current(handle as usize)
    }

    /// `aclrtGetCurrentContext`.
    fn cann_sim_aclrtGetCurrentContext(handle: *mut *mut c_void) {
        // SAFETY: one output.
        let out = unsafe { acl_out(handle)? };
        out.set(to_pointer(context::current()?.handle));
        Ok(())
    }

    /// `aclrtCtxGetCurrentDefaultStream`.
    fn cann_sim_aclrtCtxGetCurrentDefaultStream(handle: *mut *mut c_void) {
        // SAFETY: one output.
        let out = unsafe { acl_out(handle)? };
        out.set(to_pointer(context::current()?.default_stream()?.handle));
        Ok(())
    }
}

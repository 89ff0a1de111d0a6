//! Copies and fills.

use std::ffi::c_void;
use std::sync::Arc;

use super::{Out, acl_out, acl_require, array, export};
use crate::abi::MemcpyBatchAttribute;
use crate::batch_copy::{Batch, BatchFail};
use crate::context::resolve_stream;
use crate::copy::End;
use crate::copy_rules::{self, Request};
use crate::pitched_copy::PitchedRequest;
use crate::status::{Fail, Outcome, acl};
use crate::stream::Stream;

/// The arguments of the four batch calls.
struct BatchArguments {
    targets: *mut *mut c_void,
    target_limits: *mut usize,
    sources: *mut *mut c_void,
    lengths: *mut usize,
    count: usize,
    attributes: *mut MemcpyBatchAttribute,
    attribute_starts: *mut usize,
    attribute_count: usize,
}

impl BatchArguments {
    /// Runs on a stream or at once, and answers where it failed.
    ///
    /// # Safety
    ///
    /// The arrays are NULL or as long as the counts say.
    unsafe fn run(&self, stream: Option<&Arc<Stream>>, fail_index: Option<&Out<usize>>) -> Outcome {
        let code = acl::INVALID_PARAM;
        // SAFETY: the caller's promise; pointers and sizes have the same layout in C and here.
        let batch = unsafe {
            Batch {
                targets: array(self.targets.cast_const().cast::<usize>(), self.count, code)?,
                target_limits: array(self.target_limits.cast_const(), self.count, code)?,
                sources: array(self.sources.cast_const().cast::<usize>(), self.count, code)?,
                lengths: array(self.lengths.cast_const(), self.count, code)?,
                attributes: array(self.attributes.cast_const(), self.attribute_count, code)?,
                attribute_starts: array(self.attribute_starts.cast_const(), self.attribute_count, code)?,
            }
        };
        let result: Result<(), BatchFail> = match stream {
            Some(stream) => batch.submit(stream),
            None => batch.run_now(),
        };
        result.map_err(|(fail, index)| {
            if let (Some(out), Some(index)) = (fail_index, index) {
                out.set(index);
            }
            fail
        })
    }
}

fn pitched(
    target: *mut c_void,
    target_pitch: usize,
    source: *const c_void,
    source_pitch: usize,
    width: usize,
    height: usize,
    kind: i32,
) -> Outcome<PitchedRequest> {
    acl_require(!target.is_null() && !source.is_null(), "an address is NULL")?;
    acl_require(width > 0 && height > 0, "the width or the height is 0")?;
    let (target, source) = (target as usize, source as usize);
    Ok(PitchedRequest { target, target_pitch, source, source_pitch, width, height, kind })
}

export! {
    /// `aclrtMemset`.
    fn cann_sim_aclrtMemset(target: *mut c_void, limit: usize, value: i32, length: usize) {
        if length == 0 {
            return Ok(());
        }
        acl_require(!target.is_null(), "the target is NULL")?;
        copy_rules::fill(target as usize, limit, value, length, None)
    }

    /// `aclrtMemsetAsync`.
    fn cann_sim_aclrtMemsetAsync(target: *mut c_void, limit: usize, value: i32, length: usize, stream: *mut c_void) {
        if length == 0 {
            return Ok(());
        }
        acl_require(!target.is_null(), "the target is NULL")?;
        let stream = resolve_stream(stream as usize)?;
        copy_rules::fill(target as usize, limit, value, length, Some(&stream))
    }

    /// `aclrtMemcpy`.
    fn cann_sim_aclrtMemcpy(
        target: *mut c_void,
        target_limit: usize,
        source: *const c_void,
        length: usize,
        kind: i32,
    ) {
        if length == 0 {
            return Ok(());
        }
        acl_require(!target.is_null() && !source.is_null(), "an address is NULL")?;
        Request { target: target as usize, target_limit, source: source as usize, length, kind }.run_now()
    }

    /// `aclrtMemcpyAsync`.
    fn cann_sim_aclrtMemcpyAsync(
        target: *mut c_void,
        target_limit: usize,
        source: *const c_void,
        length: usize,
        kind: i32,
        stream: *mut c_void,
    ) {
        if length == 0 {
            return Ok(());
        }
        acl_require(!target.is_null() && !source.is_null(), "an address is NULL")?;
        let stream = resolve_stream(stream as usize)?;
        Request { target: target as usize, target_limit, source: source as usize, length, kind }.submit(&stream)
    }

    /// `aclrtMemcpyAsyncWithCondition` (deprecated): host memory must be pinned.
    fn cann_sim_aclrtMemcpyAsyncWithCondition(
        target: *mut c_void,
        target_limit: usize,
        source: *const c_void,
        length: usize,
        kind: i32,
        stream: *mut c_void,
    ) {
        if length == 0 {
            return Ok(());
        }
        acl_require(!target.is_null() && !source.is_null(), "an address is NULL")?;
        for address in [target as usize, source as usize] {
            if !End::locate(address, length)?.is_known() {
                return Err(Fail::new(acl::PARAM_INVALID, format!("{address:#x} is host memory that is not pinned")));
            }
        }
        let stream = resolve_stream(stream as usize)?;
        Request { target: target as usize, target_limit, source: source as usize, length, kind }.submit(&stream)
    }

    /// `aclrtMemcpy2d`.
    fn cann_sim_aclrtMemcpy2d(
        target: *mut c_void,
        target_pitch: usize,
        source: *const c_void,
        source_pitch: usize,
        width: usize,
        height: usize,
        kind: i32,
    ) {
        pitched(target, target_pitch, source, source_pitch, width, height, kind)?.run_now()
    }

    /// `aclrtMemcpy2dAsync`.
    fn cann_sim_aclrtMemcpy2dAsync(
        target: *mut c_void,
        target_pitch: usize,
        source: *const c_void,
        source_pitch: usize,
        width: usize,
        height: usize,
        kind: i32,
        stream: *mut c_void,
    ) {
        let request = pitched(target, target_pitch, source, source_pitch, width, height, kind)?;
        request.submit(&resolve_stream(stream as usize)?)
    }

    /// `aclrtMemcpyBatch`.
    fn cann_sim_aclrtMemcpyBatch(
        targets: *mut *mut c_void,
        target_limits: *mut usize,
        sources: *mut *mut c_void,
        lengths: *mut usize,
        count: usize,
        attributes: *mut MemcpyBatchAttribute,
        attribute_starts: *mut usize,
        attribute_count: usize,
        fail_index: *mut usize,
    ) {
        // SAFETY: one output.
        let out = unsafe { acl_out(fail_index)? };
        out.set(usize::MAX);
        let arguments = BatchArguments {
            targets, target_limits, sources, lengths, count, attributes, attribute_starts, attribute_count,
        };
        // SAFETY: array lengths by the prototype.
        unsafe { arguments.run(None, Some(&out)) }
    }

    /// `aclrtMemcpyBatchAsync`.
    fn cann_sim_aclrtMemcpyBatchAsync(
        targets: *mut *mut c_void,
        target_limits: *mut usize,
        sources: *mut *mut c_void,
        lengths: *mut usize,
        count: usize,
        attributes: *mut MemcpyBatchAttribute,
        attribute_starts: *mut usize,
        attribute_count: usize,
        fail_index: *mut usize,
        stream: *mut c_void,
    ) {
        // SAFETY: one output.
        let out = unsafe { acl_out(fail_index)? };
        out.set(usize::MAX);
        let stream = resolve_stream(stream as usize)?;
        let arguments = BatchArguments {
            targets, target_limits, sources, lengths, count, attributes, attribute_starts, attribute_count,
        };
        // SAFETY: array lengths by the prototype.
        unsafe { arguments.run(Some(&stream), Some(&out)) }
    }

    /// `aclrtMemcpyBatchV2`: without the failed index.
    fn cann_sim_aclrtMemcpyBatchV2(
        targets: *mut *mut c_void,
        target_limits: *mut usize,
        sources: *mut *mut c_void,
        lengths: *mut usize,
        count: usize,
        attributes: *mut MemcpyBatchAttribute,
        attribute_starts: *mut usize,
        attribute_count: usize,
    ) {
        let arguments = BatchArguments {
            targets, target_limits, sources, lengths, count, attributes, attribute_starts, attribute_count,
        };
        // SAFETY: array lengths by the prototype.
        unsafe { arguments.run(None, None) }
    }

    /// `aclrtMemcpyBatchAsyncV2`.
    fn cann_sim_aclrtMemcpyBatchAsyncV2(
        targets: *mut *mut c_void,
        target_limits: *mut usize,
        sources: *mut *mut c_void,
        lengths: *mut usize,
        count: usize,
        attributes: *mut MemcpyBatchAttribute,
        attribute_starts: *mut usize,
        attribute_count: usize,
        stream: *mut c_void,
    ) {
        let stream = resolve_stream(stream as usize)?;
        let arguments = BatchArguments {
            targets, target_limits, sources, lengths, count, attributes, attribute_starts, attribute_count,
        };
        // SAFETY: array lengths by the prototype.
        unsafe { arguments.run(Some(&stream), None) }
    }
}

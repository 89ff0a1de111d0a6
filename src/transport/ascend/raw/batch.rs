//! Many copies between host and device in one call, for CANN that has it (8.2 and later).

use std::ffi::c_void;

use cann_sys::Capability;
use cann_sys::bindings::{aclrtMemLocation, aclrtMemcpyBatchAttr};

use super::runtime::{pointer, size};
use super::{CopyKind, Runtime, vendor};
use crate::error::{Code, Error, Result, Stage};

/// Copies that one call takes; one more is refused.
pub const MAX_BATCH_COPIES: usize = 4096;

/// One copy: target, source and length.
pub type BatchCopy = (u64, u64, u64);

impl Runtime {
    /// Whether [`copy_batch`](Self::copy_batch) may be tried; drivers and virtual machines can still refuse it.
    #[must_use]
    pub fn has_batched_copies(&self) -> bool {
        self.cann.has(Capability::MemcpyBatch)
    }

    /// Makes all copies, between memory of the host and of `device`, all one way; returns when they are done. On failure
    /// any of them may have been made.
    ///
    /// # Errors
    /// [`Code::Unsupported`] where driver or machine do not have it, [`Code::InvalidArgument`] for copies inside a
    /// device or more than [`MAX_BATCH_COPIES`], else what the vendor says.
    pub fn copy_batch(&self, copies: &[BatchCopy], kind: CopyKind, device: i32) -> Result<()> {
        let refused = |what: &str| Err(Error::new(Code::InvalidArgument, Stage::Execute, what.to_owned()));
        let host = aclrtMemLocation { id: 0, type_: 0 };
        let npu = aclrtMemLocation { id: u32::try_from(device).unwrap_or(u32::MAX), type_: 1 };
        let (target, source) = match kind {
            CopyKind::HostToDevice => (npu, host),
            CopyKind::DeviceToHost => (host, npu),
            CopyKind::DeviceToDevice => return refused("a batch copies between host and device only"),
        };
        if copies.len() > MAX_BATCH_COPIES {
            return refused("more copies than one call takes");
        }
        if copies.is_empty() {
            return Ok(());
        }
        let mut targets = Vec::with_capacity(copies.len());
        let mut sources = Vec::with_capacity(copies.len());
        let mut sizes = Vec::with_capacity(copies.len());
        for (target, source, length_bytes) in copies {
            targets.push(pointer(*target)?);
            sources.push(pointer(*source)?);
            sizes.push(size(*length_bytes)?);
        }
        let mut limits = sizes.clone();
        // One attribute, from the first copy on.
        let mut attribute = aclrtMemcpyBatchAttr { dstLoc: target, srcLoc: source, rsv: [0; 16] };
        let mut first = 0_usize;
        let mut failed = usize::MAX;
        let done = vendor!(
            self,
            acl.aclrtMemcpyBatch,
            Stage::Execute,
            (
                targets.as_mut_ptr().cast::<*mut c_void>(),
                limits.as_mut_ptr(),
                sources.as_mut_ptr().cast::<*mut c_void>(),
                sizes.as_mut_ptr(),
                copies.len(),
                &raw mut attribute,
                &raw mut first,
                1,
                &raw mut failed
            )
        );
        done.map_err(|error| match copies.get(failed) {
            Some((target, _, length_bytes)) => error.range(*target, *length_bytes),
            None => error,
        })
    }
}

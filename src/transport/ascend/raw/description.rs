//! The older family of one-sided HCCL: memory is registered with a communicator, described, exchanged, enabled.

use std::ffi::c_void;

use cann_sys::bindings::{CommMem, HcclMemDesc, HcclMemDescs};

use super::hccl::address;
use super::{Communicator, Runtime, vendor};
use crate::error::{Code, Error, Result, Stage};

/// What the vendor says about one region of a communicator, for the peer to read; its content is the vendor's.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Description(HcclMemDesc);

impl Description {
    /// Room for one.
    #[must_use]
    pub const fn empty() -> Self {
        Self(HcclMemDesc { desc: [0; 512] })
    }
}

/// A region of the peer's that was enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnabledRegion {
    /// Where it begins in the peer.
    pub start: u64,
    /// How long it is.
    pub length_bytes: u64,
}

/// A list in the vendor's form; it points into `descriptions`.
fn list(descriptions: &mut [Description]) -> Result<HcclMemDescs> {
    let count = u32::try_from(descriptions.len())
        .map_err(|_| Error::new(Code::Internal, Stage::Connect, "too many regions on one channel"))?;
    Ok(HcclMemDescs { array: descriptions.as_mut_ptr().cast::<HcclMemDesc>(), arrayLength: count })
}

impl Runtime {
    /// Registers a region with a communicator, for one peer, and describes it.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn describe_region(
        &self,
        communicator: Communicator,
        remote_rank: u32,
        start: u64,
        length_bytes: u64,
        host: bool,
    ) -> Result<Description> {
        let mut description = Description::empty();
        vendor!(
            self,
            hccl.HcclRegisterMem,
            Stage::Connect,
            (
                communicator.0 as *mut c_void,
                remote_rank,
                i32::from(host),
                address(start),
                length_bytes,
                &raw mut description.0
            )
        )
        .map_err(|error| error.range(start, length_bytes))?;
        Ok(description)
    }

    /// Takes a region of this side back.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn forget_region(&self, communicator: Communicator, description: &mut Description) -> Result<()> {
        vendor!(
            self,
            hccl.HcclDeregisterMem,
            Stage::Drain,
            (communicator.0 as *mut c_void, &raw mut description.0)
        )
    }

    /// Gives the peer this side's descriptions and answers its own, at most `room`; blocks until the peer is in the
    /// same call, at most `timeout_seconds`.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn exchange_descriptions(
        &self,
        communicator: Communicator,
        remote_rank: u32,
        own: &mut [Description],
        room: usize,
        timeout_seconds: i32,
    ) -> Result<Vec<Description>> {
        // Never a list without an address, whatever the vendor makes of a length of 0.
        let mut spare = [Description::empty()];
        let count = own.len();
        let mut local = list(if own.is_empty() { &mut spare } else { own })?;
        if count == 0 {
            local.arrayLength = 0;
        }
        let mut theirs = vec![Description::empty(); room.max(1)];
        let mut remote = list(&mut theirs)?;
        let mut actual = 0_u32;
        vendor!(
            self,
            hccl.HcclExchangeMemDesc,
            Stage::Connect,
            (
                communicator.0 as *mut c_void,
                remote_rank,
                &raw mut local,
                timeout_seconds.max(1),
                &raw mut remote,
                &raw mut actual
            )
        )?;
        theirs.truncate(usize::try_from(actual).unwrap_or(usize::MAX));
        Ok(theirs)
    }

    /// Makes a region of the peer's usable, and tells where it is.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn enable_region(
        &self,
        communicator: Communicator,
        description: &mut Description,
    ) -> Result<EnabledRegion> {
        let mut memory = CommMem { type_: 0, addr: std::ptr::null_mut(), size: 0 };
        vendor!(
            self,
            hccl.HcclEnableMemAccess,
            Stage::Connect,
            (communicator.0 as *mut c_void, &raw mut description.0, &raw mut memory)
        )?;
        let start = u64::try_from(memory.addr.addr()).unwrap_or(u64::MAX);
        Ok(EnabledRegion { start, length_bytes: memory.size })
    }

    /// Makes a region of the peer's unusable again.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn disable_region(&self, communicator: Communicator, description: &mut Description) -> Result<()> {
        vendor!(
            self,
            hccl.HcclDisableMemAccess,
            Stage::Drain,
            (communicator.0 as *mut c_void, &raw mut description.0)
        )
    }
}

//! One-sided HCCL: regions, communicators, puts and gets.

use std::ffi::{CString, c_void};

use cann_sys::bindings::{CommMem, HcclCommConfig, HcclOneSideOpDesc, HcclPrepareConfig};

use super::{Runtime, Stream, text, vendor};
use crate::error::{Code, Error, Result, Stage};

/// A communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Communicator(pub(super) usize);

/// A registered region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionHandle(usize);

/// One put or get, in the vendor's layout.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Descriptor(HcclOneSideOpDesc);

// SAFETY: the pointers inside are addresses for the device, never dereferenced by this process.
unsafe impl Send for Descriptor {}

impl Descriptor {
    /// A put or get of bytes; both addresses are those of the processes that own the memory.
    #[must_use]
    pub fn new(local: u64, remote: u64, length_bytes: u64) -> Self {
        const UINT8: u32 = 7;
        Self(HcclOneSideOpDesc {
            localAddr: address(local),
            remoteAddr: address(remote),
            count: length_bytes,
            dataType: UINT8,
        })
    }
}

/// An address as the vendor's structures hold it; 64-bit machines only, as CANN itself.
#[expect(clippy::cast_possible_truncation, reason = "CANN exists for 64-bit machines only")]
pub(super) fn address(value: u64) -> *mut c_void {
    const { assert!(size_of::<usize>() == 8) };
    value as usize as *mut c_void
}

impl Runtime {
    /// Registers a region of the current device (or of the host, for it); bookkeeping only. The same region again
    /// gives the same handle, and one [`deregister_region`](Self::deregister_region) ends it.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn register_region(&self, start: u64, length_bytes: u64, host: bool) -> Result<RegionHandle> {
        let memory = CommMem { type_: i32::from(host), addr: address(start), size: length_bytes };
        let mut handle = std::ptr::null_mut();
        vendor!(self, hccl.HcclRegisterGlobalMem, Stage::Register, (&raw const memory, &raw mut handle))
            .map_err(|error| error.range(start, length_bytes))?;
        Ok(RegionHandle(handle as usize))
    }

    /// Ends a region that is bound nowhere; its device must be current.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn deregister_region(&self, region: RegionHandle) -> Result<()> {
        vendor!(self, hccl.HcclDeregisterGlobalMem, Stage::Register, (region.0 as *mut c_void))
    }

    /// Makes one rank of a communicator on the current device; talks to nobody. Two inits of one process must not
    /// run at once; the caller sees to that.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn create_communicator(
        &self,
        name: &str,
        rank_table: &str,
        rank: u32,
        traffic_class: Option<u32>,
        service_level: Option<u32>,
    ) -> Result<Communicator> {
        let table = CString::new(rank_table)
            .map_err(|_| Error::new(Code::Internal, Stage::Connect, "a rank table with a NUL in it"))?;
        let mut config = HcclCommConfig::named(name).map_err(|error| {
            Error::new(Code::Internal, Stage::Connect, format!("communicator name {name:?}: {error}"))
        })?;
        if let Some(class) = traffic_class {
            config.rdmaTrafficClass = class;
        }
        if let Some(level) = service_level {
            config.rdmaServiceLevel = level;
        }
        let mut communicator = std::ptr::null_mut();
        vendor!(
            self,
            hccl.HcclCommInitClusterInfoMemConfig,
            Stage::Connect,
            (table.as_ptr(), rank, &raw mut config, &raw mut communicator)
        )?;
        Ok(Communicator(communicator as usize))
    }

    /// Ends a communicator that nothing is bound to; the peer is not told.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn destroy_communicator(&self, communicator: Communicator) -> Result<()> {
        vendor!(self, hccl.HcclCommDestroy, Stage::Drain, (communicator.0 as *mut c_void))
    }

    /// Binds a region, so that the next prepare shows it to the peer.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn bind_region(&self, communicator: Communicator, region: RegionHandle) -> Result<()> {
        vendor!(
            self,
            hccl.HcclCommBindMem,
            Stage::Connect,
            (communicator.0 as *mut c_void, region.0 as *mut c_void)
        )
    }

    /// Takes a bound region back.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn unbind_region(&self, communicator: Communicator, region: RegionHandle) -> Result<()> {
        vendor!(
            self,
            hccl.HcclCommUnbindMem,
            Stage::Drain,
            (communicator.0 as *mut c_void, region.0 as *mut c_void)
        )
    }

    /// Connects to the other rank; blocks until it is in the same call, at most `timeout_seconds`.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn prepare(&self, communicator: Communicator, timeout_seconds: i32) -> Result<()> {
        let config = HcclPrepareConfig::full_mesh();
        vendor!(
            self,
            hccl.HcclCommPrepare,
            Stage::Connect,
            (communicator.0 as *mut c_void, &raw const config, timeout_seconds.max(1))
        )
    }

    /// Queues writes to (`put`) or reads from the other rank. On failure any number of leading descriptors may be
    /// on the stream already.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn batch(
        &self,
        put: bool,
        communicator: Communicator,
        remote_rank: u32,
        descriptors: &mut [Descriptor],
        stream: Stream,
    ) -> Result<()> {
        let count = u32::try_from(descriptors.len())
            .map_err(|_| Error::new(Code::Internal, Stage::Submit, "too many descriptors in one call"))?;
        if count == 0 {
            // The vendor reads the first descriptor even then.
            return Ok(());
        }
        let first = descriptors.as_mut_ptr().cast::<HcclOneSideOpDesc>();
        let (communicator, stream) = (communicator.0 as *mut c_void, stream.0 as *mut c_void);
        if put {
            vendor!(self, hccl.HcclBatchPut, Stage::Submit, (communicator, remote_rank, first, count, stream))
        } else {
            vendor!(self, hccl.HcclBatchGet, Stage::Submit, (communicator, remote_rank, first, count, stream))
        }
    }

    /// The vendor's own words for an HCCL status; empty when it has none.
    #[must_use]
    pub fn hccl_text(&self, code: i32) -> String {
        let Some(function) = self.cann.hccl.HcclGetErrorString else { return String::new() };
        // SAFETY: takes a number, answers NULL or a constant text.
        unsafe { text(function(code)) }
    }
}

//! The ACL runtime: devices, contexts, streams, events and copies.

use std::ffi::c_void;

use super::{Runtime, text, vendor};
use crate::error::{Code, Error, Result, Stage};

/// A device context; current for a thread or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context(usize);

/// A queue of work of one context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub(super) usize);

/// A marker that can be put behind work on a stream, any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(usize);

/// Between which kinds of memory a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    /// Host to device.
    HostToDevice,
    /// Device to host.
    DeviceToHost,
    /// Device to device, the same or another.
    DeviceToDevice,
}

/// What memory an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointerKind {
    /// Memory of the host, known to the vendor or not.
    Host {
        /// Bytes per page, when the vendor knows the memory.
        page_size_bytes: Option<u64>,
    },
    /// Memory of a device.
    Device {
        /// The id `aclrtSetDevice` takes.
        device: i32,
        /// Bytes per page: 4096, 2 MiB or 1 GiB.
        page_size_bytes: u64,
    },
}

/// How a bounded wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// What was waited for has happened.
    Done,
    /// The time was up; the work goes on.
    Pending,
}

const STREAM_SYNC_TIMEOUT: i32 = 507_046;
const EVENT_SYNC_TIMEOUT: i32 = 507_047;
const WAIT_TIMEOUT: i32 = 107_019;
const CONTEXT_NULL: i32 = 107_002;
const LOCATION_DEVICE: u32 = 1;
const LOCATION_UNREGISTERED: u32 = 2;
const FAST_LAUNCH_AND_SYNC: u32 = 3;
/// The inner runtime's module for attributes of the whole device, and its names for ours: the number in the super pod,
/// and the super pod.
const INNER_MODULE_SYSTEM: i32 = 0;
const INNER_ATTRIBUTES: [(u32, i32); 2] = [(403, 26), (405, 29)];

/// The pointer the vendor's prototypes want for an address of user memory, which this crate keeps as a number.
pub(super) fn pointer(address: u64) -> Result<*mut c_void> {
    usize::try_from(address).map(|address| address as *mut c_void).map_err(|_| {
        Error::new(Code::InvalidArgument, Stage::Submit, "the address does not fit this machine")
            .range(address, 0)
    })
}

/// The length the vendor's prototypes want.
pub(super) fn size(length_bytes: u64) -> Result<usize> {
    usize::try_from(length_bytes)
        .map_err(|_| Error::new(Code::InvalidArgument, Stage::Submit, "the length does not fit this machine"))
}

impl Runtime {
    /// The name of the chip, for example `Ascend910B3`; empty when the vendor does not say.
    ///
    /// # Errors
    /// [`Code::LibraryUnavailable`] when the function is missing.
    pub fn soc_name(&self) -> Result<String> {
        let function = self.cann.acl.aclrtGetSocName.ok_or_else(|| self.missing("aclrtGetSocName"))?;
        // SAFETY: takes nothing, answers NULL or a text of the library's own.
        Ok(unsafe { text(function()) })
    }

    /// How many devices this process sees.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn device_count(&self) -> Result<u32> {
        let mut count = 0;
        vendor!(self, acl.aclrtGetDeviceCount, Stage::Load, (&raw mut count))?;
        Ok(count)
    }

    /// The device the calling thread has bound, if any.
    ///
    /// # Errors
    /// What the vendor says, other than that nothing is bound.
    pub fn current_device(&self) -> Result<Option<i32>> {
        let mut device = 0;
        match vendor!(self, acl.aclrtGetDevice, Stage::Configure, (&raw mut device)) {
            Ok(()) => Ok(Some(device)),
            Err(error) if error.code() == Code::LibraryUnavailable => Err(error),
            // Which code a thread without a device gets differs between releases; having none is no failure.
            Err(_) => Ok(None),
        }
    }

    /// The number the host gives to a device that this process calls `device`.
    ///
    /// # Errors
    /// What the vendor says; [`Code::LibraryUnavailable`] when neither way of asking is there.
    pub fn physical_device(&self, device: i32) -> Result<u32> {
        let negative =
            || Error::new(Code::DeviceNotFound, Stage::Configure, "negative device id").device(device);
        if self.cann.acl.aclrtGetPhyDevIdByLogicDevId.is_some() {
            let mut physical = 0;
            vendor!(self, acl.aclrtGetPhyDevIdByLogicDevId, Stage::Configure, (device, &raw mut physical))?;
            return u32::try_from(physical).map_err(|_| negative());
        }
        let index = u32::try_from(device).map_err(|_| negative())?;
        let mut physical = 0;
        vendor!(self, runtime.rtGetDevicePhyIdByIndex, Stage::Configure, (index, &raw mut physical))?;
        Ok(physical)
    }

    /// An attribute of a device (`aclrtDevAttr`).
    ///
    /// # Errors
    /// What the vendor says; [`Code::LibraryUnavailable`] when neither way of asking is there.
    pub fn device_attribute(&self, device: i32, attribute: u32) -> Result<i64> {
        let device = u32::try_from(device).map_err(|_| {
            Error::new(Code::DeviceNotFound, Stage::Configure, "negative device id").device(device)
        })?;
        let mut value = 0;
        let inner = INNER_ATTRIBUTES.iter().find(|(public, _)| *public == attribute);
        if let Some((_, inner)) = inner.filter(|_| self.cann.acl.aclrtGetDeviceInfo.is_none()) {
            // Before CANN 8.5 only the inner runtime tells; the numbers are those the vendor's own products of that
            // time used.
            vendor!(
                self,
                runtime.rtGetDeviceInfo,
                Stage::Configure,
                (device, INNER_MODULE_SYSTEM, *inner, &raw mut value)
            )?;
            return Ok(value);
        }
        vendor!(self, acl.aclrtGetDeviceInfo, Stage::Configure, (device, attribute, &raw mut value))?;
        Ok(value)
    }

    /// What memory `address` belongs to. Memory the vendor does not know counts as the host's.
    ///
    /// # Errors
    /// [`Code::LibraryUnavailable`] when the function is missing.
    pub fn pointer_kind(&self, address: u64) -> Result<PointerKind> {
        let mut attributes = cann_sys::bindings::aclrtPtrAttributes::default();
        let asked = vendor!(
            self,
            acl.aclrtPointerGetAttributes,
            Stage::Register,
            (pointer(address)?.cast_const(), &raw mut attributes)
        );
        match asked {
            Err(error) if error.code() == Code::LibraryUnavailable => return Err(error),
            // Old drivers fail for memory that only malloc knows.
            Err(_) => return Ok(PointerKind::Host { page_size_bytes: None }),
            Ok(()) => {}
        }
        let page_size_bytes = u64::from(attributes.pageSize);
        Ok(match attributes.location.type_ {
            LOCATION_DEVICE => PointerKind::Device {
                device: i32::try_from(attributes.location.id).unwrap_or(i32::MAX),
                page_size_bytes,
            },
            LOCATION_UNREGISTERED => PointerKind::Host { page_size_bytes: None },
            _ => PointerKind::Host { page_size_bytes: Some(page_size_bytes) },
        })
    }

    /// Makes a context on `device`; it becomes the calling thread's current one.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn create_context(&self, device: i32) -> Result<Context> {
        let mut context = std::ptr::null_mut();
        vendor!(self, acl.aclrtCreateContext, Stage::Connect, (&raw mut context, device))
            .map_err(|error| error.device(device))?;
        Ok(Context(context as usize))
    }

    /// Ends a context that no thread uses any more.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn destroy_context(&self, context: Context) -> Result<()> {
        vendor!(self, acl.aclrtDestroyContext, Stage::Drain, (context.0 as *mut c_void))
    }

    /// Makes `context` the calling thread's current one.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn set_current_context(&self, context: Context) -> Result<()> {
        vendor!(self, acl.aclrtSetCurrentContext, Stage::Connect, (context.0 as *mut c_void))
    }

    /// The calling thread's current context, if it has one.
    ///
    /// # Errors
    /// What the vendor says, other than that there is none.
    pub fn current_context(&self) -> Result<Option<Context>> {
        let mut context = std::ptr::null_mut();
        match vendor!(self, acl.aclrtGetCurrentContext, Stage::Connect, (&raw mut context)) {
            Ok(()) if context.is_null() => Ok(None),
            Ok(()) => Ok(Some(Context(context as usize))),
            Err(error)
                if error.record().vendor.as_ref().is_some_and(|vendor| vendor.code == CONTEXT_NULL) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a stream in the current context.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn create_stream(&self) -> Result<Stream> {
        let mut stream = std::ptr::null_mut();
        if self.cann.acl.aclrtCreateStreamWithConfig.is_some() {
            vendor!(
                self,
                acl.aclrtCreateStreamWithConfig,
                Stage::Connect,
                (&raw mut stream, 0, FAST_LAUNCH_AND_SYNC)
            )?;
        } else {
            vendor!(self, acl.aclrtCreateStream, Stage::Connect, (&raw mut stream))?;
        }
        Ok(Stream(stream as usize))
    }

    /// Ends a stream; waits for what is on it.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn destroy_stream(&self, stream: Stream) -> Result<()> {
        vendor!(self, acl.aclrtDestroyStream, Stage::Drain, (stream.0 as *mut c_void))
    }

    /// Ends a stream and drops what is on it; without that function, waits for it.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn destroy_stream_force(&self, stream: Stream) -> Result<()> {
        if self.cann.acl.aclrtDestroyStreamForce.is_none() {
            return self.destroy_stream(stream);
        }
        vendor!(self, acl.aclrtDestroyStreamForce, Stage::Drain, (stream.0 as *mut c_void))
    }

    /// From now on a failing task stops the stream, instead of being skipped.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn stop_stream_on_failure(&self, stream: Stream) -> Result<()> {
        vendor!(self, acl.aclrtSetStreamFailureMode, Stage::Connect, (stream.0 as *mut c_void, 1))
    }

    /// Whether everything on the stream is over.
    ///
    /// # Errors
    /// The failure of the stream.
    pub fn query_stream(&self, stream: Stream) -> Result<Wait> {
        let mut status = cann_sys::bindings::aclrtStreamStatus::default();
        vendor!(self, acl.aclrtStreamQuery, Stage::Execute, (stream.0 as *mut c_void, &raw mut status))?;
        Ok(if status == 0 { Wait::Done } else { Wait::Pending })
    }

    /// Waits for everything on the stream, at most `timeout_ms`.
    ///
    /// # Errors
    /// The failure of the stream.
    pub fn synchronize_stream(&self, stream: Stream, timeout_ms: i32) -> Result<Wait> {
        waited(vendor!(
            self,
            acl.aclrtSynchronizeStreamWithTimeout,
            Stage::Execute,
            (stream.0 as *mut c_void, timeout_ms.max(1))
        ))
    }

    /// Stops the running task of the stream and drops the queued ones.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn abort_stream(&self, stream: Stream) -> Result<()> {
        vendor!(self, acl.aclrtStreamAbort, Stage::Drain, (stream.0 as *mut c_void))
    }

    /// Makes an event that may be recorded many times.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn create_event(&self) -> Result<Event> {
        let mut event = std::ptr::null_mut();
        if self.cann.acl.aclrtCreateEventExWithFlag.is_some() {
            const SYNC: u32 = 1;
            vendor!(self, acl.aclrtCreateEventExWithFlag, Stage::Connect, (&raw mut event, SYNC))?;
        } else {
            vendor!(self, acl.aclrtCreateEvent, Stage::Connect, (&raw mut event))?;
        }
        Ok(Event(event as usize))
    }

    /// Ends an event.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn destroy_event(&self, event: Event) -> Result<()> {
        vendor!(self, acl.aclrtDestroyEvent, Stage::Drain, (event.0 as *mut c_void))
    }

    /// Puts the event behind what is on the stream now.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn record_event(&self, event: Event, stream: Stream) -> Result<()> {
        vendor!(self, acl.aclrtRecordEvent, Stage::Submit, (event.0 as *mut c_void, stream.0 as *mut c_void))
    }

    /// Whether the stream has passed the event.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn query_event(&self, event: Event) -> Result<Wait> {
        let mut status = cann_sys::bindings::aclrtEventRecordedStatus::default();
        vendor!(self, acl.aclrtQueryEventStatus, Stage::Execute, (event.0 as *mut c_void, &raw mut status))?;
        // Unlike every other status of the interface, complete is 1 here.
        Ok(if status == 1 { Wait::Done } else { Wait::Pending })
    }

    /// Waits until the stream has passed the event, at most `timeout_ms`.
    ///
    /// # Errors
    /// The failure of the stream.
    pub fn synchronize_event(&self, event: Event, timeout_ms: i32) -> Result<Wait> {
        waited(vendor!(
            self,
            acl.aclrtSynchronizeEventWithTimeout,
            Stage::Execute,
            (event.0 as *mut c_void, timeout_ms.max(1))
        ))
    }

    /// Queues a copy on a stream. Host memory that is not pinned makes the call itself do the copy.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn copy_async(
        &self,
        target: u64,
        source: u64,
        length_bytes: u64,
        kind: CopyKind,
        stream: Stream,
    ) -> Result<()> {
        let length = size(length_bytes)?;
        let kind = match kind {
            CopyKind::HostToDevice => 1,
            CopyKind::DeviceToHost => 2,
            CopyKind::DeviceToDevice => 3,
        };
        vendor!(
            self,
            acl.aclrtMemcpyAsync,
            Stage::Execute,
            (pointer(target)?, length, pointer(source)?.cast_const(), length, kind, stream.0 as *mut c_void)
        )
    }

    /// Lets the current device read and write the memory of `peer`, if the machine can; asking twice is fine.
    ///
    /// # Errors
    /// [`Code::Unsupported`] when the devices cannot reach each other, else what the vendor says.
    pub fn enable_peer_access(&self, device: i32, peer: i32) -> Result<()> {
        let mut possible = 0;
        vendor!(self, acl.aclrtDeviceCanAccessPeer, Stage::Connect, (&raw mut possible, device, peer))?;
        if possible == 0 {
            return Err(Error::new(
                Code::Unsupported,
                Stage::Connect,
                format!("device {device} cannot reach the memory of device {peer}"),
            )
            .device(device));
        }
        vendor!(self, acl.aclrtDeviceEnablePeerAccess, Stage::Connect, (peer, 0))
    }

    /// Reserves memory on the current device, 2 MiB aligned when it is larger than 1 MiB.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn allocate_device(&self, length_bytes: u64) -> Result<u64> {
        let mut address = std::ptr::null_mut();
        vendor!(self, acl.aclrtMalloc, Stage::Register, (&raw mut address, size(length_bytes)?, 0))?;
        Ok(address as u64)
    }

    /// Gives back memory of [`allocate_device`](Self::allocate_device).
    ///
    /// # Errors
    /// What the vendor says.
    pub fn free_device(&self, address: u64) -> Result<()> {
        vendor!(self, acl.aclrtFree, Stage::Drain, (pointer(address)?))
    }

    /// Reserves pinned host memory, which a device copies from and to without help. Needs a current context.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn allocate_host(&self, length_bytes: u64) -> Result<u64> {
        let mut address = std::ptr::null_mut();
        vendor!(self, acl.aclrtMallocHost, Stage::Register, (&raw mut address, size(length_bytes)?))?;
        Ok(address as u64)
    }

    /// Gives back memory of [`allocate_host`](Self::allocate_host).
    ///
    /// # Errors
    /// What the vendor says.
    pub fn free_host(&self, address: u64) -> Result<()> {
        vendor!(self, acl.aclrtFreeHost, Stage::Drain, (pointer(address)?))
    }

    /// Copies and waits.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn copy(&self, target: u64, source: u64, length_bytes: u64, kind: CopyKind) -> Result<()> {
        let length = size(length_bytes)?;
        let kind = match kind {
            CopyKind::HostToDevice => 1,
            CopyKind::DeviceToHost => 2,
            CopyKind::DeviceToDevice => 3,
        };
        vendor!(
            self,
            acl.aclrtMemcpy,
            Stage::Execute,
            (pointer(target)?, length, pointer(source)?.cast_const(), length, kind)
        )
    }
}

/// Tells a wait that ran out from one that failed.
fn waited(result: Result<()>) -> Result<Wait> {
    match result {
        Ok(()) => Ok(Wait::Done),
        Err(error) => match error.record().vendor.as_ref().map(|vendor| vendor.code) {
            Some(STREAM_SYNC_TIMEOUT | EVENT_SYNC_TIMEOUT | WAIT_TIMEOUT) => Ok(Wait::Pending),
            _ => Err(error),
        },
    }
}

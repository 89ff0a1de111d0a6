//! What a CANN can do, derived from the functions it has.

use crate::functions::{self, Symbol};
use core::fmt;

/// A group of functions that is of use only as a whole.
///
/// A capability is there if every function that [`functions`] assigns to it was found. It says that the
/// functions exist, not that the driver or the chip supports them: those answer
/// [`ACL_ERROR_RT_FEATURE_NOT_SUPPORT`](crate::bindings::ACL_ERROR_RT_FEATURE_NOT_SUPPORT) when called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum Capability {
    /// Devices, contexts, streams, events, memory and copies: without it nothing works. Required.
    Runtime,
    /// Puts and gets between regions registered once per process and device.
    OneSided,
    /// Puts and gets between regions registered per communicator, as releases before `OneSided` have it.
    OneSidedPerCommunicator,
    /// Registering regions with the network card again after a memory fault.
    RemapMemory,
    /// A name for each HCCL code.
    HcclErrorText,
    /// Name, rank and size of a communicator.
    CommunicatorInfo,
    /// Device attributes such as the SuperPoD id.
    DeviceInfo,
    /// The same by the inner runtime, for releases whose public interface lacks it.
    DeviceInfoInner,
    /// Physical, logic and user ids of devices, by the public interface.
    DeviceIdTranslation,
    /// The same by the inner runtime, for releases whose public interface lacks it.
    DeviceIdTranslationInner,
    /// The default stream of a context as a handle (HCCL takes no NULL stream).
    DefaultStream,
    /// Many host-device copies in one blocking call.
    MemcpyBatch,
    /// The same on a stream.
    MemcpyBatchAsync,
    /// Copies between devices of one process.
    PeerAccess,
    /// A host function in stream order, on a thread of the runtime.
    LaunchHostFunc,
    /// A host function in stream order, on a thread that the caller provides.
    LaunchCallback,
    /// Continue or stop a stream after a failed task.
    StreamFailureMode,
    /// Destroying a stream without waiting for its work.
    DestroyStreamForce,
    /// Stopping a stream without dropping it.
    StreamStop,
    /// A bounded wait of a stream for an event.
    StreamWaitEventWithTimeout,
    /// Time between two events.
    EventElapsedTime,
    /// Aborting all tasks of a device.
    DeviceTaskAbort,
    /// Waiting for a whole device.
    SynchronizeDevice,
    /// Base and size of the allocation an address lies in.
    AddressRange,
    /// Registering host memory for access by device code.
    HostRegister,
    /// The same with pinning and the device-side address as a call of its own.
    HostRegisterV2,
    /// Physical memory, address ranges and mappings.
    VirtualMemory,
    /// Address ranges in the window that fabric memory needs.
    ReserveFabricRange,
    /// Handles of physical memory for other processes.
    ShareableHandle,
    /// The same with handles that reach other servers of a SuperPoD, and access rights.
    ShareableHandleV2,
    /// The handle of an allocation that was made elsewhere.
    RetainAllocation,
    /// Device memory of another process on the same server, by key.
    IpcMemory,
    /// This process' id as the kernel of the host knows it.
    BareProcessId,
    /// The last error of a thread, kept by the runtime.
    LastError,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 34] = [
        Self::Runtime,
        Self::OneSided,
        Self::OneSidedPerCommunicator,
        Self::RemapMemory,
        Self::HcclErrorText,
        Self::CommunicatorInfo,
        Self::DeviceInfo,
        Self::DeviceInfoInner,
        Self::DeviceIdTranslation,
        Self::DeviceIdTranslationInner,
        Self::DefaultStream,
        Self::MemcpyBatch,
        Self::MemcpyBatchAsync,
        Self::PeerAccess,
        Self::LaunchHostFunc,
        Self::LaunchCallback,
        Self::StreamFailureMode,
        Self::DestroyStreamForce,
        Self::StreamStop,
        Self::StreamWaitEventWithTimeout,
        Self::EventElapsedTime,
        Self::DeviceTaskAbort,
        Self::SynchronizeDevice,
        Self::AddressRange,
        Self::HostRegister,
        Self::HostRegisterV2,
        Self::VirtualMemory,
        Self::ReserveFabricRange,
        Self::ShareableHandle,
        Self::ShareableHandleV2,
        Self::RetainAllocation,
        Self::IpcMemory,
        Self::BareProcessId,
        Self::LastError,
    ];

    /// The capabilities without which nothing works.
    pub const REQUIRED: [Self; 1] = [Self::Runtime];

    /// The families of one-sided HCCL, newest first: a transfer between two processes' NPUs needs one of them.
    pub const ONE_SIDED_FAMILIES: [Self; 2] = [Self::OneSided, Self::OneSidedPerCommunicator];

    /// The functions that make up this capability.
    pub fn symbols(self) -> impl Iterator<Item = &'static Symbol> {
        functions::symbols().filter(move |symbol| symbol.capabilities.contains(&self))
    }

    const fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Runtime => "the ACL runtime",
            Self::OneSided => "one-sided HCCL",
            Self::OneSidedPerCommunicator => "one-sided HCCL with memory per communicator",
            Self::RemapMemory => "renewed registration",
            Self::HcclErrorText => "HCCL error texts",
            Self::CommunicatorInfo => "communicator queries",
            Self::DeviceInfo => "device attributes",
            Self::DeviceInfoInner => "device attributes by the inner runtime",
            Self::DeviceIdTranslation => "device id translation",
            Self::DeviceIdTranslationInner => "device id translation by the inner runtime",
            Self::DefaultStream => "default stream handles",
            Self::MemcpyBatch => "batched copies",
            Self::MemcpyBatchAsync => "batched copies on a stream",
            Self::PeerAccess => "peer access",
            Self::LaunchHostFunc => "host functions on a stream",
            Self::LaunchCallback => "callbacks on a stream",
            Self::StreamFailureMode => "stream failure mode",
            Self::DestroyStreamForce => "forced stream destruction",
            Self::StreamStop => "stream stop",
            Self::StreamWaitEventWithTimeout => "bounded waits between streams",
            Self::EventElapsedTime => "event timing",
            Self::DeviceTaskAbort => "device task abort",
            Self::SynchronizeDevice => "device synchronisation",
            Self::AddressRange => "allocation lookup",
            Self::HostRegister => "host memory registration",
            Self::HostRegisterV2 => "host memory registration with pinning",
            Self::VirtualMemory => "virtual memory management",
            Self::ReserveFabricRange => "fabric address ranges",
            Self::ShareableHandle => "shareable memory handles",
            Self::ShareableHandleV2 => "fabric memory handles",
            Self::RetainAllocation => "allocation handles",
            Self::IpcMemory => "IPC memory",
            Self::BareProcessId => "process ids of the host",
            Self::LastError => "last-error queries",
        })
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Whether the set has `capability`.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// The capabilities in the set, in order of declaration.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |capability| self.contains(*capability))
    }

    /// The set as bits, one per capability in order of declaration: for logs and metrics.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self(capabilities.into_iter().fold(0, |bits, capability| bits | capability.bit()))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_a_bit_of_its_own_and_at_least_one_function() {
        let all: Capabilities = Capability::ALL.into_iter().collect();
        assert_eq!(usize::try_from(all.bits().count_ones()).unwrap(), Capability::ALL.len());
        for (index, capability) in Capability::ALL.into_iter().enumerate() {
            assert_eq!(capability.bit(), 1 << index, "{capability:?} stands out of order in ALL");
            assert!(capability.symbols().next().is_some(), "{capability:?} has no function");
            let single: Capabilities = [capability].into_iter().collect();
            assert_eq!(single.iter().collect::<Vec<_>>(), vec![capability]);
        }
    }

    #[test]
    fn every_function_serves_a_capability() {
        for symbol in functions::symbols() {
            assert!(!symbol.capabilities.is_empty(), "{} serves nothing", symbol.name);
        }
    }
}

//! The one list of functions: which library has each, what it serves, since which release.
//!
//! The signatures stand in `include/cann.h` and nowhere else; the tables take them from the bindings by
//! name, so a function that is in the list but not in the header does not compile.

use crate::bindings;
use crate::capability::Capability;
use crate::release::{Release, Since};
use core::ffi::c_void;
use core::fmt;

/// Which library of CANN exports a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Library {
    /// The ACL runtime: libascendcl.so, from 8.5 on implemented in libacl_rt.so.
    Acl,
    /// Communicators and one-sided transfers: libhcomm.so from 8.5 on, libhccl.so before.
    Hccl,
    /// The inner runtime: libruntime.so, which ACL itself stands on.
    Runtime,
}

impl Library {
    /// The file names, in the order in which they are tried.
    #[must_use]
    pub const fn file_names(self) -> &'static [&'static str] {
        match self {
            Self::Acl => &["libascendcl.so", "libacl_rt.so"],
            Self::Hccl => &["libhcomm.so", "libhccl.so"],
            Self::Runtime => &["libruntime.so"],
        }
    }

    /// Every library.
    pub const ALL: [Self; 3] = [Self::Acl, Self::Hccl, Self::Runtime];
}

impl fmt::Display for Library {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Acl => "ACL runtime",
            Self::Hccl => "HCCL",
            Self::Runtime => "inner runtime",
        })
    }
}

/// One line of the list.
#[derive(Debug, Clone, Copy)]
pub struct Symbol {
    /// The name of the function in the library.
    pub name: &'static str,
    /// The library that has it.
    pub library: Library,
    /// The capabilities that need it.
    pub capabilities: &'static [Capability],
    /// The first release that has it.
    pub since: Since,
}

impl Symbol {
    /// Whether a transfer between two processes' NPUs needs it, by whichever family of one-sided HCCL.
    #[must_use]
    pub fn is_required(&self) -> bool {
        let serves = |capability: &Capability| self.capabilities.contains(capability);
        Capability::REQUIRED.iter().any(serves) || Capability::ONE_SIDED_FAMILIES.iter().all(serves)
    }
}

/// Every function of every table.
pub fn symbols() -> impl Iterator<Item = &'static Symbol> {
    Acl::SYMBOLS.iter().chain(Hccl::SYMBOLS).chain(Runtime::SYMBOLS)
}

/// The line of one function.
#[must_use]
pub fn find(name: &str) -> Option<&'static Symbol> {
    symbols().find(|symbol| symbol.name == name)
}

macro_rules! perhaps {
    () => {
        None
    };
    ($release:ident) => {
        Some(Release::$release)
    };
}

/// Makes a struct with one optional function pointer per line, and the lines as data.
macro_rules! function_tables {
    ($(
        $(#[$documentation:meta])*
        $table:ident from $library:ident {
            $($function:ident: $($capability:ident)|+, since $release:ident $(perhaps $earlier:ident)?;)+
        }
    )+) => {$(
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy)]
        #[allow(non_snake_case, reason = "the vendor's names, as in its manuals")]
        #[non_exhaustive]
        pub struct $table {$(
            #[doc = concat!("`", stringify!($function), "`, since ", stringify!($release), "; explained in `include/cann.h`.")]
            pub $function: bindings::$function,
        )+}

        impl $table {
            /// What the fields of this table stand for, in their order.
            pub const SYMBOLS: &'static [Symbol] = &[$(
                Symbol {
                    name: stringify!($function),
                    library: Library::$library,
                    capabilities: &[$(Capability::$capability),+],
                    since: Since { certain: Release::$release, perhaps: perhaps!($($earlier)?) },
                },
            )+];

            /// Asks `address_of` for each function; null becomes `None`.
            ///
            /// # Safety
            /// What `address_of` answers for a name must be null or the function of that name of a CANN
            /// library that stays loaded for the rest of the process.
            pub(crate) unsafe fn resolve(mut address_of: impl FnMut(&'static str) -> *mut c_void) -> Self {
                Self {$(
                    // SAFETY: an optional function pointer has the layout of a pointer, null being `None`;
                    // by this function's contract anything else is the function of that name, whose
                    // signature is the header's, and it is never unloaded.
                    $function: unsafe {
                        core::mem::transmute::<*mut c_void, bindings::$function>(
                            address_of(stringify!($function)),
                        )
                    },
                )+}
            }
        }
    )+};
}

function_tables! {
    /// Functions of the ACL runtime. A field is `None` if the loaded CANN lacks the function.
    Acl from Acl {
        aclInit: Runtime, since V8_1;
        aclFinalize: Runtime, since V8_1;
        aclrtGetVersion: Runtime, since V8_1;
        aclGetRecentErrMsg: Runtime, since V8_1;
        aclrtGetSocName: Runtime, since V8_1;
        aclrtSetDevice: Runtime, since V8_1;
        aclrtResetDevice: Runtime, since V8_1;
        aclrtGetDevice: Runtime, since V8_1;
        aclrtGetDeviceCount: Runtime, since V8_1;
        aclrtGetRunMode: Runtime, since V8_1;
        aclrtCreateContext: Runtime, since V8_1;
        aclrtDestroyContext: Runtime, since V8_1;
        aclrtSetCurrentContext: Runtime, since V8_1;
        aclrtGetCurrentContext: Runtime, since V8_1;
        aclrtCreateStream: Runtime, since V8_1;
        aclrtCreateStreamWithConfig: Runtime, since V8_1;
        aclrtDestroyStream: Runtime, since V8_1;
        aclrtSynchronizeStream: Runtime, since V8_1;
        aclrtSynchronizeStreamWithTimeout: Runtime, since V8_1;
        aclrtStreamQuery: Runtime, since V8_1;
        aclrtStreamAbort: Runtime, since V8_1;
        aclrtStreamWaitEvent: Runtime, since V8_1;
        aclrtCreateEvent: Runtime, since V8_1;
        aclrtCreateEventExWithFlag: Runtime, since V8_1;
        aclrtDestroyEvent: Runtime, since V8_1;
        aclrtRecordEvent: Runtime, since V8_1;
        aclrtQueryEventStatus: Runtime, since V8_1;
        aclrtSynchronizeEvent: Runtime, since V8_1;
        aclrtSynchronizeEventWithTimeout: Runtime, since V8_1;
        aclrtMalloc: Runtime, since V8_1;
        aclrtMallocAlign32: Runtime, since V8_1;
        aclrtFree: Runtime, since V8_1;
        aclrtMallocHost: Runtime, since V8_1;
        aclrtFreeHost: Runtime, since V8_1;
        aclrtMemset: Runtime, since V8_1;
        aclrtMemcpy: Runtime, since V8_1;
        aclrtMemcpyAsync: Runtime, since V8_1;
        aclrtPointerGetAttributes: Runtime, since V8_1;
        aclrtGetMemInfo: Runtime, since V8_1;

        aclrtPeekAtLastError: LastError, since V8_1;
        aclrtGetLastError: LastError, since V8_1;
        aclrtSynchronizeDevice: SynchronizeDevice, since V8_1;
        aclrtSynchronizeDeviceWithTimeout: SynchronizeDevice, since V8_1;
        aclrtDeviceTaskAbort: DeviceTaskAbort, since V8_1;
        aclrtDeviceCanAccessPeer: PeerAccess, since V8_1;
        aclrtDeviceEnablePeerAccess: PeerAccess, since V8_1;
        aclrtDeviceDisablePeerAccess: PeerAccess, since V8_1;
        aclrtDeviceGetBareTgid: BareProcessId, since V8_1;
        aclrtSetStreamFailureMode: StreamFailureMode, since V8_1;
        aclrtDestroyStreamForce: DestroyStreamForce, since V8_1;
        aclrtEventElapsedTime: EventElapsedTime, since V8_1;
        aclrtLaunchCallback: LaunchCallback, since V8_1;
        aclrtSubscribeReport: LaunchCallback, since V8_1;
        aclrtProcessReport: LaunchCallback, since V8_1;
        aclrtUnSubscribeReport: LaunchCallback, since V8_1;
        aclrtHostRegister: HostRegister, since V8_1;
        aclrtHostUnregister: HostRegister | HostRegisterV2, since V8_1;
        aclrtReserveMemAddress: VirtualMemory, since V8_1;
        aclrtReleaseMemAddress: VirtualMemory | ReserveFabricRange, since V8_1;
        aclrtMallocPhysical: VirtualMemory, since V8_1;
        aclrtFreePhysical: VirtualMemory | ShareableHandle | ShareableHandleV2, since V8_1;
        aclrtMapMem: VirtualMemory | ShareableHandle | ShareableHandleV2, since V8_1;
        aclrtUnmapMem: VirtualMemory | ShareableHandle | ShareableHandleV2, since V8_1;
        aclrtMemGetAllocationGranularity: VirtualMemory, since V8_1;
        aclrtMemExportToShareableHandle: ShareableHandle, since V8_1;
        aclrtMemImportFromShareableHandle: ShareableHandle, since V8_1;
        aclrtMemSetPidToShareableHandle: ShareableHandle, since V8_1;

        aclrtMemcpyBatch: MemcpyBatch, since V8_2;
        aclrtIpcMemGetExportKey: IpcMemory, since V8_2;
        aclrtIpcMemSetImportPid: IpcMemory, since V8_2;
        aclrtIpcMemImportByKey: IpcMemory, since V8_2;
        aclrtIpcMemClose: IpcMemory, since V8_2;

        aclrtMemcpyBatchAsync: MemcpyBatchAsync, since V8_3;
        aclrtLaunchHostFunc: LaunchHostFunc, since V8_3;

        aclrtGetDeviceInfo: DeviceInfo, since V8_5 perhaps V8_2;
        aclrtGetPhyDevIdByLogicDevId: DeviceIdTranslation, since V8_5 perhaps V8_2;
        aclrtGetLogicDevIdByPhyDevId: DeviceIdTranslation, since V8_5 perhaps V8_2;
        aclrtGetLogicDevIdByUserDevId: DeviceIdTranslation, since V8_5 perhaps V8_2;
        aclrtGetUserDevIdByLogicDevId: DeviceIdTranslation, since V8_5 perhaps V8_2;
        aclrtCtxGetCurrentDefaultStream: DefaultStream, since V8_5;
        aclrtStreamStop: StreamStop, since V8_5;
        aclrtStreamWaitEventWithTimeout: StreamWaitEventWithTimeout, since V8_5;
        aclrtHostRegisterV2: HostRegisterV2, since V8_5;
        aclrtHostGetDevicePointer: HostRegisterV2, since V8_5;
        aclrtMemSetAccess: ShareableHandleV2, since V8_5;
        aclrtMemExportToShareableHandleV2: ShareableHandleV2, since V8_5;
        aclrtMemImportFromShareableHandleV2: ShareableHandleV2, since V8_5;
        aclrtMemSetPidToShareableHandleV2: ShareableHandleV2, since V8_5;
        aclrtMemRetainAllocationHandle: RetainAllocation, since V8_5;

        aclrtMemGetAddressRange: AddressRange, since V9_0;
        aclrtReserveMemAddressNoUCMemory: ReserveFabricRange, since V9_0;
    }

    /// Functions of HCCL. A field is `None` if the loaded CANN lacks the function.
    Hccl from Hccl {
        HcclCommInitClusterInfoMemConfig: OneSided | OneSidedPerCommunicator, since V8_5 perhaps V8_1;
        HcclCommDestroy: OneSided | OneSidedPerCommunicator, since V8_1;
        HcclBatchPut: OneSided | OneSidedPerCommunicator, since V8_5 perhaps V8_1;
        HcclBatchGet: OneSided | OneSidedPerCommunicator, since V8_5 perhaps V8_1;

        HcclRegisterGlobalMem: OneSided, since V8_5 perhaps V8_3;
        HcclDeregisterGlobalMem: OneSided, since V8_5 perhaps V8_3;
        HcclCommBindMem: OneSided, since V8_5 perhaps V8_3;
        HcclCommUnbindMem: OneSided, since V8_5 perhaps V8_3;
        HcclCommPrepare: OneSided, since V8_5 perhaps V8_3;

        HcclRegisterMem: OneSidedPerCommunicator, since V8_5 perhaps V8_1;
        HcclDeregisterMem: OneSidedPerCommunicator, since V8_5 perhaps V8_1;
        HcclExchangeMemDesc: OneSidedPerCommunicator, since V8_5 perhaps V8_1;
        HcclEnableMemAccess: OneSidedPerCommunicator, since V8_5 perhaps V8_1;
        HcclDisableMemAccess: OneSidedPerCommunicator, since V8_5 perhaps V8_1;

        HcclRemapRegistedMemory: RemapMemory, since V8_5 perhaps V8_1;
        HcclGetErrorString: HcclErrorText, since V8_1;
        HcclGetCommName: CommunicatorInfo, since V8_1;
        HcclGetRankId: CommunicatorInfo, since V8_1;
        HcclGetRankSize: CommunicatorInfo, since V8_1;
    }

    /// Functions of the inner runtime. A field is `None` if the loaded CANN lacks the function.
    Runtime from Runtime {
        rtGetDevicePhyIdByIndex: DeviceIdTranslationInner, since V8_1;
        rtGetDeviceIndexByPhyId: DeviceIdTranslationInner, since V8_1;
        rtGetDeviceInfo: DeviceInfoInner, since V8_1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every function type of the header is in the list, so that none is forgotten.
    #[test]
    fn header_and_list_name_the_same_functions() {
        let header = include_str!("../include/cann.h");
        let in_header: BTreeSet<&str> = header
            .lines()
            .filter(|line| line.starts_with("CANN_FUNCTION("))
            .map(|line| line.split(',').nth(1).unwrap().trim())
            .collect();
        let in_list: BTreeSet<&str> = symbols().map(|symbol| symbol.name).collect();
        assert_eq!(symbols().count(), in_list.len(), "a function is listed twice");
        let only_in_header: Vec<_> = in_header.difference(&in_list).collect();
        let only_in_list: Vec<_> = in_list.difference(&in_header).collect();
        assert!(only_in_header.is_empty(), "{only_in_header:?}");
        assert!(only_in_list.is_empty(), "{only_in_list:?}");
    }

    #[test]
    fn a_function_appeared_perhaps_earlier_but_never_later() {
        for symbol in symbols() {
            if let Some(perhaps) = symbol.since.perhaps {
                assert!(perhaps < symbol.since.certain, "{}", symbol.name);
            }
        }
    }
}

// Made by bindgen from include/cann.h; tests/bindings.rs makes it again and compares.


/// Status of every ACL call; 0 is success.
pub type aclError = i32;
pub const ACL_SUCCESS: aclError = 0;
pub const ACL_ERROR_INVALID_PARAM: aclError = 100000;
pub const ACL_ERROR_UNINITIALIZE: aclError = 100001;
pub const ACL_ERROR_REPEAT_INITIALIZE: aclError = 100002;
pub const ACL_ERROR_REPEAT_FINALIZE: aclError = 100037;
pub const ACL_ERROR_BAD_ALLOC: aclError = 200000;
pub const ACL_ERROR_API_NOT_SUPPORT: aclError = 200001;
pub const ACL_ERROR_INVALID_DEVICE: aclError = 200002;
pub const ACL_ERROR_FEATURE_UNSUPPORTED: aclError = 200006;
pub const ACL_ERROR_INTERNAL_ERROR: aclError = 500000;
pub const ACL_ERROR_FAILURE: aclError = 500001;
pub const ACL_ERROR_RT_FAILURE: aclError = 500003;
pub const ACL_ERROR_DRV_FAILURE: aclError = 500004;
pub const ACL_ERROR_RT_PARAM_INVALID: aclError = 107000;
pub const ACL_ERROR_RT_INVALID_DEVICEID: aclError = 107001;
/// The calling thread has no current context: it never set a device.
pub const ACL_ERROR_RT_CONTEXT_NULL: aclError = 107002;
pub const ACL_ERROR_RT_STREAM_CONTEXT: aclError = 107003;
pub const ACL_ERROR_RT_ADDR_UNALIGNED: aclError = 107008;
pub const ACL_ERROR_RT_STREAM_SUBSCRIBE: aclError = 107011;
pub const ACL_ERROR_RT_STREAM_NO_CB_REG: aclError = 107015;
pub const ACL_ERROR_RT_INVALID_MEMORY_TYPE: aclError = 107016;
pub const ACL_ERROR_RT_INVALID_HANDLE: aclError = 107017;
pub const ACL_ERROR_RT_INVALID_MALLOC_TYPE: aclError = 107018;
pub const ACL_ERROR_RT_WAIT_TIMEOUT: aclError = 107019;
pub const ACL_ERROR_RT_TASK_TIMEOUT: aclError = 107020;
pub const ACL_ERROR_RT_DEVICE_TASK_ABORT: aclError = 107022;
/// What concurrent waiters get when the stream they wait on is aborted.
pub const ACL_ERROR_RT_STREAM_ABORT: aclError = 107023;
pub const ACL_ERROR_RT_TASK_ABORT_STOP: aclError = 107035;
/// The chip, the driver or this combination of arguments does not have it; callers fall back on it.
pub const ACL_ERROR_RT_FEATURE_NOT_SUPPORT: aclError = 207000;
pub const ACL_ERROR_RT_MEMORY_ALLOCATION: aclError = 207001;
pub const ACL_ERROR_RT_MEMORY_FREE: aclError = 207002;
pub const ACL_ERROR_RT_NO_DEVICE: aclError = 207004;
pub const ACL_ERROR_RT_RESOURCE_ALLOC_FAIL: aclError = 207005;
pub const ACL_ERROR_RT_NO_PERMISSION: aclError = 207006;
pub const ACL_ERROR_RT_NO_EVENT_RESOURCE: aclError = 207007;
pub const ACL_ERROR_RT_NO_STREAM_RESOURCE: aclError = 207008;
pub const ACL_ERROR_RT_OVER_LIMIT: aclError = 207012;
pub const ACL_ERROR_RT_DEVICE_OOM: aclError = 207018;
pub const ACL_ERROR_RT_RUNTIME_TIMEOUT: aclError = 207020;
pub const ACL_ERROR_RT_LINK_TYPE_NOT_SUPPORTED: aclError = 207021;
pub const ACL_ERROR_RT_INTERNAL_ERROR: aclError = 507000;
pub const ACL_ERROR_RT_STREAM_TASK_FULL: aclError = 507002;
pub const ACL_ERROR_RT_STREAM_NOT_COMPLETE: aclError = 507004;
pub const ACL_ERROR_RT_EVENT_NOT_COMPLETE: aclError = 507006;
pub const ACL_ERROR_RT_LOST_HEARTBEAT: aclError = 507010;
pub const ACL_ERROR_RT_REPORT_TIMEOUT: aclError = 507012;
pub const ACL_ERROR_RT_SYS_DMA_ERROR: aclError = 507013;
pub const ACL_ERROR_RT_IPC_ERROR: aclError = 507022;
/// A bounded wait on a stream ran out; the work goes on.
pub const ACL_ERROR_RT_STREAM_SYNC_TIMEOUT: aclError = 507046;
/// A bounded wait on an event ran out; the work goes on.
pub const ACL_ERROR_RT_EVENT_SYNC_TIMEOUT: aclError = 507047;
pub const ACL_ERROR_RT_COPY_DATA_FAIL: aclError = 507052;
pub const ACL_ERROR_RT_DEVICE_MEM_ERROR: aclError = 507053;
pub const ACL_ERROR_RT_HBM_MULTI_BIT_ECC_ERROR: aclError = 507054;
pub const ACL_ERROR_RT_SUSPECT_DEVICE_MEM_ERROR: aclError = 507055;
pub const ACL_ERROR_RT_LINK_ERROR: aclError = 507056;
pub const ACL_ERROR_RT_SUSPECT_REMOTE_ERROR: aclError = 507057;
pub const ACL_ERROR_RT_DRV_INTERNAL_ERROR: aclError = 507899;
pub const ACL_ERROR_RT_SOCKET_CLOSE: aclError = 507901;
pub const ACL_ERROR_RT_COMMUNICATION_OP_RETRY_FAIL: aclError = 507904;
pub const ACL_ERROR_RT_HOST_MEMORY_ALREADY_REGISTERED: aclError = 507910;
pub const ACL_ERROR_RT_HOST_MEMORY_NOT_REGISTERED: aclError = 507911;
pub type aclrtContext = *mut core::ffi::c_void;
/// NULL means the default stream of the current context, except for HCCL, which refuses NULL.
pub type aclrtStream = *mut core::ffi::c_void;
pub type aclrtEvent = *mut core::ffi::c_void;
/// A piece of physical device or host memory that can be mapped and shared.
pub type aclrtDrvMemHandle = *mut core::ffi::c_void;
pub type aclrtCallback = ::core::option::Option<
    unsafe extern "C" fn(userData: *mut core::ffi::c_void),
>;
pub const ACL_DEVICE: aclrtRunMode = 0;
pub const ACL_HOST: aclrtRunMode = 1;
pub type aclrtRunMode = core::ffi::c_uint;
pub const ACL_RT_THREAD_LEVEL: aclrtLastErrLevel = 0;
pub type aclrtLastErrLevel = core::ffi::c_uint;
pub const ACL_MEMCPY_HOST_TO_HOST: aclrtMemcpyKind = 0;
pub const ACL_MEMCPY_HOST_TO_DEVICE: aclrtMemcpyKind = 1;
pub const ACL_MEMCPY_DEVICE_TO_HOST: aclrtMemcpyKind = 2;
pub const ACL_MEMCPY_DEVICE_TO_DEVICE: aclrtMemcpyKind = 3;
pub const ACL_MEMCPY_DEFAULT: aclrtMemcpyKind = 4;
pub const ACL_MEMCPY_HOST_TO_BUF_TO_DEVICE: aclrtMemcpyKind = 5;
pub const ACL_MEMCPY_INNER_DEVICE_TO_DEVICE: aclrtMemcpyKind = 6;
pub const ACL_MEMCPY_INTER_DEVICE_TO_DEVICE: aclrtMemcpyKind = 7;
pub type aclrtMemcpyKind = core::ffi::c_uint;
pub const ACL_MEM_MALLOC_HUGE_FIRST: aclrtMemMallocPolicy = 0;
pub const ACL_MEM_MALLOC_HUGE_ONLY: aclrtMemMallocPolicy = 1;
pub const ACL_MEM_MALLOC_NORMAL_ONLY: aclrtMemMallocPolicy = 2;
pub const ACL_MEM_MALLOC_HUGE_FIRST_P2P: aclrtMemMallocPolicy = 3;
pub const ACL_MEM_MALLOC_HUGE_ONLY_P2P: aclrtMemMallocPolicy = 4;
pub const ACL_MEM_MALLOC_NORMAL_ONLY_P2P: aclrtMemMallocPolicy = 5;
pub const ACL_MEM_MALLOC_HUGE1G_ONLY: aclrtMemMallocPolicy = 6;
pub const ACL_MEM_MALLOC_HUGE1G_ONLY_P2P: aclrtMemMallocPolicy = 7;
pub const ACL_MEM_TYPE_LOW_BAND_WIDTH: aclrtMemMallocPolicy = 256;
pub const ACL_MEM_TYPE_HIGH_BAND_WIDTH: aclrtMemMallocPolicy = 4096;
pub const ACL_MEM_ACCESS_USER_SPACE_READONLY: aclrtMemMallocPolicy = 1048576;
/// How an allocation is backed; the last three values are bits to add.
pub type aclrtMemMallocPolicy = core::ffi::c_uint;
pub const ACL_DDR_MEM: aclrtMemAttr = 0;
pub const ACL_HBM_MEM: aclrtMemAttr = 1;
pub const ACL_DDR_MEM_HUGE: aclrtMemAttr = 2;
pub const ACL_DDR_MEM_NORMAL: aclrtMemAttr = 3;
pub const ACL_HBM_MEM_HUGE: aclrtMemAttr = 4;
pub const ACL_HBM_MEM_NORMAL: aclrtMemAttr = 5;
pub const ACL_DDR_MEM_P2P_HUGE: aclrtMemAttr = 6;
pub const ACL_DDR_MEM_P2P_NORMAL: aclrtMemAttr = 7;
pub const ACL_HBM_MEM_P2P_HUGE: aclrtMemAttr = 8;
pub const ACL_HBM_MEM_P2P_NORMAL: aclrtMemAttr = 9;
pub const ACL_HBM_MEM_HUGE1G: aclrtMemAttr = 10;
pub const ACL_HBM_MEM_P2P_HUGE1G: aclrtMemAttr = 11;
pub const ACL_MEM_NORMAL: aclrtMemAttr = 12;
pub const ACL_MEM_HUGE: aclrtMemAttr = 13;
pub const ACL_MEM_HUGE1G: aclrtMemAttr = 14;
pub const ACL_MEM_P2P_NORMAL: aclrtMemAttr = 15;
pub const ACL_MEM_P2P_HUGE: aclrtMemAttr = 16;
pub const ACL_MEM_P2P_HUGE1G: aclrtMemAttr = 17;
pub type aclrtMemAttr = core::ffi::c_uint;
pub const ACL_MEM_LOCATION_TYPE_HOST: aclrtMemLocationType = 0;
pub const ACL_MEM_LOCATION_TYPE_DEVICE: aclrtMemLocationType = 1;
pub const ACL_MEM_LOCATION_TYPE_UNREGISTERED: aclrtMemLocationType = 2;
pub const ACL_MEM_LOCATION_TYPE_MANAGED: aclrtMemLocationType = 3;
pub const ACL_MEM_LOCATION_TYPE_HOST_NUMA: aclrtMemLocationType = 4;
/// CANN 8.1 knows the first two only.
pub type aclrtMemLocationType = core::ffi::c_uint;
pub const ACL_STREAM_STATUS_COMPLETE: aclrtStreamStatus = 0;
pub const ACL_STREAM_STATUS_NOT_READY: aclrtStreamStatus = 1;
pub const ACL_STREAM_STATUS_RESERVED: aclrtStreamStatus = 65535;
pub type aclrtStreamStatus = core::ffi::c_uint;
pub const ACL_EVENT_RECORDED_STATUS_NOT_READY: aclrtEventRecordedStatus = 0;
pub const ACL_EVENT_RECORDED_STATUS_COMPLETE: aclrtEventRecordedStatus = 1;
/// Unlike every other status of the interface, complete is 1 here.
pub type aclrtEventRecordedStatus = core::ffi::c_uint;
pub const ACL_CALLBACK_NO_BLOCK: aclrtCallbackBlockType = 0;
pub const ACL_CALLBACK_BLOCK: aclrtCallbackBlockType = 1;
pub type aclrtCallbackBlockType = core::ffi::c_uint;
pub const ACL_HOST_REGISTER_MAPPED: aclrtHostRegisterType = 0;
pub const ACL_HOST_REGISTER_IOMEMORY: aclrtHostRegisterType = 4;
pub const ACL_HOST_REGISTER_READONLY: aclrtHostRegisterType = 8;
pub type aclrtHostRegisterType = core::ffi::c_uint;
pub const ACL_MEM_HANDLE_TYPE_NONE: aclrtMemHandleType = 0;
pub const ACL_MEM_HANDLE_TYPE_POSIX: aclrtMemHandleType = 2;
pub type aclrtMemHandleType = core::ffi::c_uint;
pub const ACL_MEM_ALLOCATION_TYPE_PINNED: aclrtMemAllocationType = 0;
pub type aclrtMemAllocationType = core::ffi::c_uint;
pub const ACL_MEM_SHARE_HANDLE_TYPE_DEFAULT: aclrtMemSharedHandleType = 1;
pub const ACL_MEM_SHARE_HANDLE_TYPE_FABRIC: aclrtMemSharedHandleType = 2;
pub type aclrtMemSharedHandleType = core::ffi::c_uint;
pub const ACL_RT_MEM_ALLOC_GRANULARITY_MINIMUM: aclrtMemGranularityOptions = 0;
pub const ACL_RT_MEM_ALLOC_GRANULARITY_RECOMMENDED: aclrtMemGranularityOptions = 1;
pub type aclrtMemGranularityOptions = core::ffi::c_uint;
pub const ACL_RT_MEM_ACCESS_FLAGS_NONE: aclrtMemAccessFlags = 0;
pub const ACL_RT_MEM_ACCESS_FLAGS_READ: aclrtMemAccessFlags = 1;
pub const ACL_RT_MEM_ACCESS_FLAGS_READWRITE: aclrtMemAccessFlags = 3;
pub type aclrtMemAccessFlags = core::ffi::c_uint;
pub const ACL_DEV_ATTR_TOTAL_GLOBAL_MEM_SIZE: aclrtDevAttr = 301;
pub const ACL_DEV_ATTR_SMP_ID: aclrtDevAttr = 401;
pub const ACL_DEV_ATTR_PHY_CHIP_ID: aclrtDevAttr = 402;
pub const ACL_DEV_ATTR_SUPER_POD_DEVICE_ID: aclrtDevAttr = 403;
pub const ACL_DEV_ATTR_SUPER_POD_SERVER_ID: aclrtDevAttr = 404;
pub const ACL_DEV_ATTR_SUPER_POD_ID: aclrtDevAttr = 405;
pub const ACL_DEV_ATTR_HD_CONNECT_TYPE: aclrtDevAttr = 408;
pub const ACL_DEV_ATTR_IS_VIRTUAL: aclrtDevAttr = 501;
pub type aclrtDevAttr = core::ffi::c_uint;
pub const ACL_EVENT_SYNC: u32 = 1;
pub const ACL_EVENT_CAPTURE_STREAM_PROGRESS: u32 = 2;
pub const ACL_EVENT_TIME_LINE: u32 = 8;
pub const ACL_EVENT_DEVICE_USE_ONLY: u32 = 16;
pub const ACL_EVENT_EXTERNAL: u32 = 32;
pub const ACL_EVENT_IPC: u32 = 64;
pub const ACL_STREAM_FAST_LAUNCH: u32 = 1;
pub const ACL_STREAM_FAST_SYNC: u32 = 2;
pub const ACL_STREAM_PERSISTENT: u32 = 4;
pub const ACL_STREAM_HUGE: u32 = 8;
pub const ACL_STREAM_CPU_SCHEDULE: u32 = 16;
pub const ACL_STREAM_DEVICE_USE_ONLY: u32 = 32;
pub const ACL_CONTINUE_ON_FAILURE: u64 = 0;
pub const ACL_STOP_ON_FAILURE: u64 = 1;
pub const ACL_HOST_REG_MAPPED: u32 = 2;
pub const ACL_HOST_REG_IOMEMORY: u32 = 4;
pub const ACL_HOST_REG_READONLY: u32 = 8;
pub const ACL_HOST_REG_PINNED: u32 = 268435456;
pub const ACL_RT_VMM_EXPORT_FLAG_DEFAULT: u64 = 0;
pub const ACL_RT_VMM_EXPORT_FLAG_DISABLE_PID_VALIDATION: u64 = 1;
pub const ACL_RT_IPC_MEM_EXPORT_FLAG_DEFAULT: u64 = 0;
pub const ACL_RT_IPC_MEM_EXPORT_FLAG_DISABLE_PID_VALIDATION: u64 = 1;
pub const ACL_RT_IPC_MEM_IMPORT_FLAG_DEFAULT: u64 = 0;
/// Since CANN 8.3.RC1; before, the flag had to be 0.
pub const ACL_RT_IPC_MEM_IMPORT_FLAG_ENABLE_PEER_ACCESS: u64 = 1;
/// What aclrtReserveMemAddress is called with by everyone; only 0 and 1 are accepted.
pub const CANN_RESERVE_FLAG: u64 = 1;
/// Bytes of an IPC memory key with its NUL; aclrtIpcMemGetExportKey demands exactly this length.
pub const CANN_IPC_KEY_LENGTH_BYTES: usize = 65;
/// aclrtMemcpyBatch refuses more items in one call.
pub const CANN_MEMCPY_BATCH_ITEM_LIMIT: usize = 4096;
/// Where memory is. For devices the id is the *user* id, the one aclrtSetDevice takes.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct aclrtMemLocation {
    pub id: u32,
    /// Newer runtimes may answer values this header lacks.
    pub type_: aclrtMemLocationType,
}
impl Default for aclrtMemLocation {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct aclrtPtrAttributes {
    pub location: aclrtMemLocation,
    /// Bytes: 4096, 2 MiB or 1 GiB.
    pub pageSize: u32,
    pub rsv: [u32; 4usize],
}
impl Default for aclrtPtrAttributes {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
/// Source and target kinds of a run of aclrtMemcpyBatch items.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct aclrtMemcpyBatchAttr {
    pub dstLoc: aclrtMemLocation,
    pub srcLoc: aclrtMemLocation,
    /// Must be zero.
    pub rsv: [u8; 16usize],
}
impl Default for aclrtMemcpyBatchAttr {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct aclrtPhysicalMemProp {
    pub handleType: aclrtMemHandleType,
    pub allocationType: aclrtMemAllocationType,
    pub memAttr: aclrtMemAttr,
    pub location: aclrtMemLocation,
    pub reserve: u64,
}
impl Default for aclrtPhysicalMemProp {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct aclrtMemAccessDesc {
    pub flags: aclrtMemAccessFlags,
    pub location: aclrtMemLocation,
    pub rsv: [u8; 12usize],
}
impl Default for aclrtMemAccessDesc {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
/// A shareable handle that reaches other servers of a SuperPoD.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct aclrtMemFabricHandle {
    pub data: [u8; 128usize],
}
pub type aclInit = ::core::option::Option<
    unsafe extern "C" fn(configPath: *const core::ffi::c_char) -> aclError,
>;
pub type aclFinalize = ::core::option::Option<unsafe extern "C" fn() -> aclError>;
pub type aclrtGetVersion = ::core::option::Option<
    unsafe extern "C" fn(major: *mut i32, minor: *mut i32, patch: *mut i32) -> aclError,
>;
pub type aclGetRecentErrMsg = ::core::option::Option<
    unsafe extern "C" fn() -> *const core::ffi::c_char,
>;
pub type aclrtPeekAtLastError = ::core::option::Option<
    unsafe extern "C" fn(level: aclrtLastErrLevel) -> aclError,
>;
pub type aclrtGetLastError = ::core::option::Option<
    unsafe extern "C" fn(level: aclrtLastErrLevel) -> aclError,
>;
pub type aclrtGetSocName = ::core::option::Option<
    unsafe extern "C" fn() -> *const core::ffi::c_char,
>;
pub type aclrtSetDevice = ::core::option::Option<
    unsafe extern "C" fn(deviceId: i32) -> aclError,
>;
pub type aclrtResetDevice = ::core::option::Option<
    unsafe extern "C" fn(deviceId: i32) -> aclError,
>;
pub type aclrtGetDevice = ::core::option::Option<
    unsafe extern "C" fn(deviceId: *mut i32) -> aclError,
>;
pub type aclrtGetDeviceCount = ::core::option::Option<
    unsafe extern "C" fn(count: *mut u32) -> aclError,
>;
pub type aclrtGetRunMode = ::core::option::Option<
    unsafe extern "C" fn(runMode: *mut aclrtRunMode) -> aclError,
>;
pub type aclrtSynchronizeDevice = ::core::option::Option<
    unsafe extern "C" fn() -> aclError,
>;
pub type aclrtSynchronizeDeviceWithTimeout = ::core::option::Option<
    unsafe extern "C" fn(timeoutMs: i32) -> aclError,
>;
pub type aclrtDeviceTaskAbort = ::core::option::Option<
    unsafe extern "C" fn(deviceId: i32, timeoutMs: u32) -> aclError,
>;
pub type aclrtDeviceCanAccessPeer = ::core::option::Option<
    unsafe extern "C" fn(
        canAccess: *mut i32,
        deviceId: i32,
        peerDeviceId: i32,
    ) -> aclError,
>;
pub type aclrtDeviceEnablePeerAccess = ::core::option::Option<
    unsafe extern "C" fn(peerDeviceId: i32, flags: u32) -> aclError,
>;
pub type aclrtDeviceDisablePeerAccess = ::core::option::Option<
    unsafe extern "C" fn(peerDeviceId: i32) -> aclError,
>;
pub type aclrtDeviceGetBareTgid = ::core::option::Option<
    unsafe extern "C" fn(processId: *mut i32) -> aclError,
>;
pub type aclrtGetDeviceInfo = ::core::option::Option<
    unsafe extern "C" fn(
        deviceId: u32,
        attribute: aclrtDevAttr,
        value: *mut i64,
    ) -> aclError,
>;
pub type aclrtGetPhyDevIdByLogicDevId = ::core::option::Option<
    unsafe extern "C" fn(logicDevId: i32, phyDevId: *mut i32) -> aclError,
>;
pub type aclrtGetLogicDevIdByPhyDevId = ::core::option::Option<
    unsafe extern "C" fn(phyDevId: i32, logicDevId: *mut i32) -> aclError,
>;
pub type aclrtGetLogicDevIdByUserDevId = ::core::option::Option<
    unsafe extern "C" fn(userDevId: i32, logicDevId: *mut i32) -> aclError,
>;
pub type aclrtGetUserDevIdByLogicDevId = ::core::option::Option<
    unsafe extern "C" fn(logicDevId: i32, userDevId: *mut i32) -> aclError,
>;
pub type aclrtCreateContext = ::core::option::Option<
    unsafe extern "C" fn(context: *mut aclrtContext, deviceId: i32) -> aclError,
>;
pub type aclrtDestroyContext = ::core::option::Option<
    unsafe extern "C" fn(context: aclrtContext) -> aclError,
>;
pub type aclrtSetCurrentContext = ::core::option::Option<
    unsafe extern "C" fn(context: aclrtContext) -> aclError,
>;
pub type aclrtGetCurrentContext = ::core::option::Option<
    unsafe extern "C" fn(context: *mut aclrtContext) -> aclError,
>;
pub type aclrtCtxGetCurrentDefaultStream = ::core::option::Option<
    unsafe extern "C" fn(stream: *mut aclrtStream) -> aclError,
>;
pub type aclrtCreateStream = ::core::option::Option<
    unsafe extern "C" fn(stream: *mut aclrtStream) -> aclError,
>;
pub type aclrtCreateStreamWithConfig = ::core::option::Option<
    unsafe extern "C" fn(stream: *mut aclrtStream, priority: u32, flag: u32) -> aclError,
>;
pub type aclrtDestroyStream = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream) -> aclError,
>;
pub type aclrtDestroyStreamForce = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream) -> aclError,
>;
pub type aclrtSynchronizeStream = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream) -> aclError,
>;
pub type aclrtSynchronizeStreamWithTimeout = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream, timeoutMs: i32) -> aclError,
>;
pub type aclrtStreamQuery = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream, status: *mut aclrtStreamStatus) -> aclError,
>;
pub type aclrtStreamAbort = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream) -> aclError,
>;
pub type aclrtStreamStop = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream) -> aclError,
>;
pub type aclrtSetStreamFailureMode = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream, mode: u64) -> aclError,
>;
pub type aclrtStreamWaitEvent = ::core::option::Option<
    unsafe extern "C" fn(stream: aclrtStream, event: aclrtEvent) -> aclError,
>;
pub type aclrtStreamWaitEventWithTimeout = ::core::option::Option<
    unsafe extern "C" fn(
        stream: aclrtStream,
        event: aclrtEvent,
        timeoutMs: i32,
    ) -> aclError,
>;
pub type aclrtCreateEvent = ::core::option::Option<
    unsafe extern "C" fn(event: *mut aclrtEvent) -> aclError,
>;
pub type aclrtCreateEventExWithFlag = ::core::option::Option<
    unsafe extern "C" fn(event: *mut aclrtEvent, flag: u32) -> aclError,
>;
pub type aclrtDestroyEvent = ::core::option::Option<
    unsafe extern "C" fn(event: aclrtEvent) -> aclError,
>;
pub type aclrtRecordEvent = ::core::option::Option<
    unsafe extern "C" fn(event: aclrtEvent, stream: aclrtStream) -> aclError,
>;
pub type aclrtQueryEventStatus = ::core::option::Option<
    unsafe extern "C" fn(
        event: aclrtEvent,
        status: *mut aclrtEventRecordedStatus,
    ) -> aclError,
>;
pub type aclrtSynchronizeEvent = ::core::option::Option<
    unsafe extern "C" fn(event: aclrtEvent) -> aclError,
>;
pub type aclrtSynchronizeEventWithTimeout = ::core::option::Option<
    unsafe extern "C" fn(event: aclrtEvent, timeoutMs: i32) -> aclError,
>;
pub type aclrtEventElapsedTime = ::core::option::Option<
    unsafe extern "C" fn(
        milliseconds: *mut f32,
        start: aclrtEvent,
        end: aclrtEvent,
    ) -> aclError,
>;
pub type aclrtLaunchHostFunc = ::core::option::Option<
    unsafe extern "C" fn(
        stream: aclrtStream,
        function: aclrtCallback,
        userData: *mut core::ffi::c_void,
    ) -> aclError,
>;
pub type aclrtLaunchCallback = ::core::option::Option<
    unsafe extern "C" fn(
        function: aclrtCallback,
        userData: *mut core::ffi::c_void,
        blockType: aclrtCallbackBlockType,
        stream: aclrtStream,
    ) -> aclError,
>;
pub type aclrtSubscribeReport = ::core::option::Option<
    unsafe extern "C" fn(threadId: u64, stream: aclrtStream) -> aclError,
>;
pub type aclrtProcessReport = ::core::option::Option<
    unsafe extern "C" fn(timeoutMs: i32) -> aclError,
>;
pub type aclrtUnSubscribeReport = ::core::option::Option<
    unsafe extern "C" fn(threadId: u64, stream: aclrtStream) -> aclError,
>;
pub type aclrtMalloc = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut *mut core::ffi::c_void,
        size: usize,
        policy: aclrtMemMallocPolicy,
    ) -> aclError,
>;
pub type aclrtMallocAlign32 = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut *mut core::ffi::c_void,
        size: usize,
        policy: aclrtMemMallocPolicy,
    ) -> aclError,
>;
pub type aclrtFree = ::core::option::Option<
    unsafe extern "C" fn(address: *mut core::ffi::c_void) -> aclError,
>;
pub type aclrtMallocHost = ::core::option::Option<
    unsafe extern "C" fn(address: *mut *mut core::ffi::c_void, size: usize) -> aclError,
>;
pub type aclrtFreeHost = ::core::option::Option<
    unsafe extern "C" fn(address: *mut core::ffi::c_void) -> aclError,
>;
pub type aclrtHostRegister = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        size: u64,
        type_: aclrtHostRegisterType,
        deviceAddress: *mut *mut core::ffi::c_void,
    ) -> aclError,
>;
pub type aclrtHostUnregister = ::core::option::Option<
    unsafe extern "C" fn(address: *mut core::ffi::c_void) -> aclError,
>;
pub type aclrtHostRegisterV2 = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        size: u64,
        flag: u32,
    ) -> aclError,
>;
pub type aclrtHostGetDevicePointer = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        deviceAddress: *mut *mut core::ffi::c_void,
        flag: u32,
    ) -> aclError,
>;
pub type aclrtMemset = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        limit: usize,
        value: i32,
        count: usize,
    ) -> aclError,
>;
pub type aclrtMemcpy = ::core::option::Option<
    unsafe extern "C" fn(
        target: *mut core::ffi::c_void,
        targetLimit: usize,
        source: *const core::ffi::c_void,
        count: usize,
        kind: aclrtMemcpyKind,
    ) -> aclError,
>;
pub type aclrtMemcpyAsync = ::core::option::Option<
    unsafe extern "C" fn(
        target: *mut core::ffi::c_void,
        targetLimit: usize,
        source: *const core::ffi::c_void,
        count: usize,
        kind: aclrtMemcpyKind,
        stream: aclrtStream,
    ) -> aclError,
>;
pub type aclrtMemcpyBatch = ::core::option::Option<
    unsafe extern "C" fn(
        targets: *mut *mut core::ffi::c_void,
        targetLimits: *mut usize,
        sources: *mut *mut core::ffi::c_void,
        sizes: *mut usize,
        itemCount: usize,
        attributes: *mut aclrtMemcpyBatchAttr,
        attributeIndexes: *mut usize,
        attributeCount: usize,
        failIndex: *mut usize,
    ) -> aclError,
>;
pub type aclrtMemcpyBatchAsync = ::core::option::Option<
    unsafe extern "C" fn(
        targets: *mut *mut core::ffi::c_void,
        targetLimits: *mut usize,
        sources: *mut *mut core::ffi::c_void,
        sizes: *mut usize,
        itemCount: usize,
        attributes: *mut aclrtMemcpyBatchAttr,
        attributeIndexes: *mut usize,
        attributeCount: usize,
        failIndex: *mut usize,
        stream: aclrtStream,
    ) -> aclError,
>;
pub type aclrtPointerGetAttributes = ::core::option::Option<
    unsafe extern "C" fn(
        address: *const core::ffi::c_void,
        attributes: *mut aclrtPtrAttributes,
    ) -> aclError,
>;
pub type aclrtMemGetAddressRange = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        base: *mut *mut core::ffi::c_void,
        size: *mut usize,
    ) -> aclError,
>;
pub type aclrtGetMemInfo = ::core::option::Option<
    unsafe extern "C" fn(
        attribute: aclrtMemAttr,
        free: *mut usize,
        total: *mut usize,
    ) -> aclError,
>;
pub type aclrtReserveMemAddress = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut *mut core::ffi::c_void,
        size: usize,
        alignment: usize,
        expected: *mut core::ffi::c_void,
        flags: u64,
    ) -> aclError,
>;
pub type aclrtReserveMemAddressNoUCMemory = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut *mut core::ffi::c_void,
        size: usize,
        alignment: usize,
        expected: *mut core::ffi::c_void,
        flags: u64,
    ) -> aclError,
>;
pub type aclrtReleaseMemAddress = ::core::option::Option<
    unsafe extern "C" fn(address: *mut core::ffi::c_void) -> aclError,
>;
pub type aclrtMallocPhysical = ::core::option::Option<
    unsafe extern "C" fn(
        handle: *mut aclrtDrvMemHandle,
        size: usize,
        property: *const aclrtPhysicalMemProp,
        flags: u64,
    ) -> aclError,
>;
pub type aclrtFreePhysical = ::core::option::Option<
    unsafe extern "C" fn(handle: aclrtDrvMemHandle) -> aclError,
>;
pub type aclrtMapMem = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        size: usize,
        offset: usize,
        handle: aclrtDrvMemHandle,
        flags: u64,
    ) -> aclError,
>;
pub type aclrtUnmapMem = ::core::option::Option<
    unsafe extern "C" fn(address: *mut core::ffi::c_void) -> aclError,
>;
pub type aclrtMemGetAllocationGranularity = ::core::option::Option<
    unsafe extern "C" fn(
        property: *mut aclrtPhysicalMemProp,
        option: aclrtMemGranularityOptions,
        granularity: *mut usize,
    ) -> aclError,
>;
pub type aclrtMemSetAccess = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        size: usize,
        descriptors: *mut aclrtMemAccessDesc,
        count: usize,
    ) -> aclError,
>;
pub type aclrtMemExportToShareableHandle = ::core::option::Option<
    unsafe extern "C" fn(
        handle: aclrtDrvMemHandle,
        type_: aclrtMemHandleType,
        flags: u64,
        shareableHandle: *mut u64,
    ) -> aclError,
>;
pub type aclrtMemImportFromShareableHandle = ::core::option::Option<
    unsafe extern "C" fn(
        shareableHandle: u64,
        deviceId: i32,
        handle: *mut aclrtDrvMemHandle,
    ) -> aclError,
>;
pub type aclrtMemSetPidToShareableHandle = ::core::option::Option<
    unsafe extern "C" fn(
        shareableHandle: u64,
        processIds: *mut i32,
        count: usize,
    ) -> aclError,
>;
pub type aclrtMemExportToShareableHandleV2 = ::core::option::Option<
    unsafe extern "C" fn(
        handle: aclrtDrvMemHandle,
        flags: u64,
        type_: aclrtMemSharedHandleType,
        shareableHandle: *mut core::ffi::c_void,
    ) -> aclError,
>;
pub type aclrtMemImportFromShareableHandleV2 = ::core::option::Option<
    unsafe extern "C" fn(
        shareableHandle: *mut core::ffi::c_void,
        type_: aclrtMemSharedHandleType,
        flags: u64,
        handle: *mut aclrtDrvMemHandle,
    ) -> aclError,
>;
pub type aclrtMemSetPidToShareableHandleV2 = ::core::option::Option<
    unsafe extern "C" fn(
        shareableHandle: *mut core::ffi::c_void,
        type_: aclrtMemSharedHandleType,
        processIds: *mut i32,
        count: usize,
    ) -> aclError,
>;
pub type aclrtMemRetainAllocationHandle = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        handle: *mut aclrtDrvMemHandle,
    ) -> aclError,
>;
pub type aclrtIpcMemGetExportKey = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut core::ffi::c_void,
        size: usize,
        key: *mut core::ffi::c_char,
        length: usize,
        flags: u64,
    ) -> aclError,
>;
pub type aclrtIpcMemSetImportPid = ::core::option::Option<
    unsafe extern "C" fn(
        key: *const core::ffi::c_char,
        processIds: *mut i32,
        count: usize,
    ) -> aclError,
>;
pub type aclrtIpcMemImportByKey = ::core::option::Option<
    unsafe extern "C" fn(
        address: *mut *mut core::ffi::c_void,
        key: *const core::ffi::c_char,
        flags: u64,
    ) -> aclError,
>;
pub type aclrtIpcMemClose = ::core::option::Option<
    unsafe extern "C" fn(key: *const core::ffi::c_char) -> aclError,
>;
pub type rtError_t = i32;
pub type rtGetDevicePhyIdByIndex = ::core::option::Option<
    unsafe extern "C" fn(deviceIndex: u32, physicalId: *mut u32) -> rtError_t,
>;
pub type rtGetDeviceIndexByPhyId = ::core::option::Option<
    unsafe extern "C" fn(physicalId: u32, deviceIndex: *mut u32) -> rtError_t,
>;
pub type rtGetDeviceInfo = ::core::option::Option<
    unsafe extern "C" fn(
        deviceIndex: u32,
        module: i32,
        attribute: i32,
        value: *mut i64,
    ) -> rtError_t,
>;
/// Status of every HCCL call; 0 is success.
pub type HcclResult = i32;
pub const HCCL_SUCCESS: HcclResult = 0;
pub const HCCL_E_PARA: HcclResult = 1;
pub const HCCL_E_PTR: HcclResult = 2;
pub const HCCL_E_MEMORY: HcclResult = 3;
/// Of a put or get: the range lies in no single region of the side in question.
pub const HCCL_E_INTERNAL: HcclResult = 4;
pub const HCCL_E_NOT_SUPPORT: HcclResult = 5;
/// Of a put or get: the communicator is not prepared.
pub const HCCL_E_NOT_FOUND: HcclResult = 6;
/// Of an init: inits of several processes ran at once; worth another try.
pub const HCCL_E_UNAVAIL: HcclResult = 7;
pub const HCCL_E_SYSCALL: HcclResult = 8;
pub const HCCL_E_TIMEOUT: HcclResult = 9;
pub const HCCL_E_OPEN_FILE_FAILURE: HcclResult = 10;
pub const HCCL_E_TCP_CONNECT: HcclResult = 11;
pub const HCCL_E_ROCE_CONNECT: HcclResult = 12;
pub const HCCL_E_TCP_TRANSFER: HcclResult = 13;
pub const HCCL_E_ROCE_TRANSFER: HcclResult = 14;
pub const HCCL_E_RUNTIME: HcclResult = 15;
pub const HCCL_E_DRV: HcclResult = 16;
pub const HCCL_E_PROFILING: HcclResult = 17;
pub const HCCL_E_CCE: HcclResult = 18;
pub const HCCL_E_NETWORK: HcclResult = 19;
pub const HCCL_E_AGAIN: HcclResult = 20;
pub const HCCL_E_REMOTE: HcclResult = 21;
pub const HCCL_E_SUSPENDING: HcclResult = 22;
pub const HCCL_E_OPRETRY_FAIL: HcclResult = 23;
pub const HCCL_E_OOM: HcclResult = 24;
pub const HCCL_E_IN_STATUS: HcclResult = 1041;
pub const HCCL_DATA_TYPE_INT8: HcclDataType = 0;
pub const HCCL_DATA_TYPE_INT16: HcclDataType = 1;
pub const HCCL_DATA_TYPE_INT32: HcclDataType = 2;
pub const HCCL_DATA_TYPE_FP16: HcclDataType = 3;
pub const HCCL_DATA_TYPE_FP32: HcclDataType = 4;
pub const HCCL_DATA_TYPE_INT64: HcclDataType = 5;
pub const HCCL_DATA_TYPE_UINT64: HcclDataType = 6;
pub const HCCL_DATA_TYPE_UINT8: HcclDataType = 7;
pub const HCCL_DATA_TYPE_UINT16: HcclDataType = 8;
pub const HCCL_DATA_TYPE_UINT32: HcclDataType = 9;
pub const HCCL_DATA_TYPE_FP64: HcclDataType = 10;
pub const HCCL_DATA_TYPE_BFP16: HcclDataType = 11;
pub const HCCL_DATA_TYPE_INT128: HcclDataType = 12;
pub const HCCL_DATA_TYPE_HIF8: HcclDataType = 14;
pub const HCCL_DATA_TYPE_FP8E4M3: HcclDataType = 15;
pub const HCCL_DATA_TYPE_FP8E5M2: HcclDataType = 16;
pub const HCCL_DATA_TYPE_FP8E8M0: HcclDataType = 17;
pub const HCCL_DATA_TYPE_RESERVED: HcclDataType = 255;
pub type HcclDataType = core::ffi::c_uint;
pub const COMM_MEM_TYPE_INVALID: CommMemType = -1;
pub const COMM_MEM_TYPE_DEVICE: CommMemType = 0;
pub const COMM_MEM_TYPE_HOST: CommMemType = 1;
/// Kinds of registered memory; the numbers differ from aclrtMemLocationType.
pub type CommMemType = core::ffi::c_int;
pub const HCCL_TOPO_FULLMESH: HcclTopoType = 0;
pub type HcclTopoType = core::ffi::c_uint;
/// HcclBatchPut and HcclBatchGet refuse more descriptors in one call.
pub const CANN_BATCH_DESCRIPTOR_LIMIT: u32 = 256;
/// HCCS links take only regions whose base is aligned to this.
pub const CANN_HCCS_ALIGNMENT_BYTES: usize = 2097152;
/// Every HcclCommConfig carries it.
pub const CANN_COMM_CONFIG_MAGIC: u32 = 4042322160;
/// The config version whose fields this header has.
pub const CANN_COMM_CONFIG_VERSION: u32 = 5;
/// Leaves a numeric field of HcclCommConfig to the library.
pub const CANN_COMM_CONFIG_UNSET: u32 = 4294967295;
pub type HcclComm = *mut core::ffi::c_void;
/// A region of memory; older headers call it HcclMem.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct CommMem {
    pub type_: CommMemType,
    pub addr: *mut core::ffi::c_void,
    pub size: u64,
}
/// One put or get. Both addresses are virtual addresses of the process that owns the memory.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct HcclOneSideOpDesc {
    pub localAddr: *mut core::ffi::c_void,
    pub remoteAddr: *mut core::ffi::c_void,
    /// In units of dataType.
    pub count: u64,
    pub dataType: HcclDataType,
}
/// Opaque description of a region, made by HcclRegisterMem and sent to the peer.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct HcclMemDesc {
    pub desc: [core::ffi::c_char; 512usize],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct HcclMemDescs {
    pub array: *mut HcclMemDesc,
    pub arrayLength: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct HcclPrepareConfig {
    pub topoType: HcclTopoType,
    pub rsvd0: u64,
    pub rsvd1: u64,
    pub rsvd2: u64,
}
impl Default for HcclPrepareConfig {
    fn default() -> Self {
        let mut s = ::core::mem::MaybeUninit::<Self>::uninit();
        unsafe {
            ::core::ptr::write_bytes(s.as_mut_ptr(), 0, 1);
            s.assume_init()
        }
    }
}
#[repr(C, packed(4))]
#[derive(Debug, Copy, Clone)]
pub struct HcclCommConfig {
    /// Bytes of the whole struct.
    pub size: u64,
    pub magic: u32,
    pub version: u32,
    pub reserved: u64,
    /// MiB.
    pub bufferSize: u32,
    pub deterministic: u32,
    pub commName: [core::ffi::c_char; 128usize],
    pub udi: [core::ffi::c_char; 128usize],
    /// 0 the library's choice, 1 host, 2 AICPU, 3 AIV, 4 AIV only.
    pub opExpansionMode: u32,
    pub rdmaTrafficClass: u32,
    pub rdmaServiceLevel: u32,
}
pub type HcclGetErrorString = ::core::option::Option<
    unsafe extern "C" fn(code: HcclResult) -> *const core::ffi::c_char,
>;
pub type HcclGetCommName = ::core::option::Option<
    unsafe extern "C" fn(comm: HcclComm, name: *mut core::ffi::c_char) -> HcclResult,
>;
pub type HcclGetRankId = ::core::option::Option<
    unsafe extern "C" fn(comm: HcclComm, rank: *mut u32) -> HcclResult,
>;
pub type HcclGetRankSize = ::core::option::Option<
    unsafe extern "C" fn(comm: HcclComm, rankSize: *mut u32) -> HcclResult,
>;
pub type HcclCommInitClusterInfoMemConfig = ::core::option::Option<
    unsafe extern "C" fn(
        rankTable: *const core::ffi::c_char,
        rank: u32,
        config: *mut HcclCommConfig,
        comm: *mut HcclComm,
    ) -> HcclResult,
>;
pub type HcclCommDestroy = ::core::option::Option<
    unsafe extern "C" fn(comm: HcclComm) -> HcclResult,
>;
pub type HcclRegisterGlobalMem = ::core::option::Option<
    unsafe extern "C" fn(
        memory: *const CommMem,
        memoryHandle: *mut *mut core::ffi::c_void,
    ) -> HcclResult,
>;
pub type HcclDeregisterGlobalMem = ::core::option::Option<
    unsafe extern "C" fn(memoryHandle: *mut core::ffi::c_void) -> HcclResult,
>;
pub type HcclCommBindMem = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        memoryHandle: *mut core::ffi::c_void,
    ) -> HcclResult,
>;
pub type HcclCommUnbindMem = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        memoryHandle: *mut core::ffi::c_void,
    ) -> HcclResult,
>;
pub type HcclCommPrepare = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        config: *const HcclPrepareConfig,
        timeoutSeconds: core::ffi::c_int,
    ) -> HcclResult,
>;
pub type HcclBatchPut = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        remoteRank: u32,
        descriptors: *mut HcclOneSideOpDesc,
        descriptorCount: u32,
        stream: aclrtStream,
    ) -> HcclResult,
>;
pub type HcclBatchGet = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        remoteRank: u32,
        descriptors: *mut HcclOneSideOpDesc,
        descriptorCount: u32,
        stream: aclrtStream,
    ) -> HcclResult,
>;
pub type HcclRemapRegistedMemory = ::core::option::Option<
    unsafe extern "C" fn(
        comms: *mut HcclComm,
        memories: *mut CommMem,
        commCount: u64,
        memoryCount: u64,
    ) -> HcclResult,
>;
pub type HcclRegisterMem = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        remoteRank: u32,
        type_: CommMemType,
        address: *mut core::ffi::c_void,
        size: u64,
        description: *mut HcclMemDesc,
    ) -> HcclResult,
>;
pub type HcclDeregisterMem = ::core::option::Option<
    unsafe extern "C" fn(comm: HcclComm, description: *mut HcclMemDesc) -> HcclResult,
>;
pub type HcclExchangeMemDesc = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        remoteRank: u32,
        local: *mut HcclMemDescs,
        timeoutSeconds: core::ffi::c_int,
        remote: *mut HcclMemDescs,
        actualCount: *mut u32,
    ) -> HcclResult,
>;
pub type HcclEnableMemAccess = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        remoteDescription: *mut HcclMemDesc,
        remoteMemory: *mut CommMem,
    ) -> HcclResult,
>;
pub type HcclDisableMemAccess = ::core::option::Option<
    unsafe extern "C" fn(
        comm: HcclComm,
        remoteDescription: *mut HcclMemDesc,
    ) -> HcclResult,
>;

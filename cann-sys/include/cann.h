/*
 * Declarations of the CANN functions this project calls: the ACL runtime and one-sided HCCL.
 *
 * Written for this project from the published interface: names, numbers and layouts have to agree
 * with the vendor's libraries, the sentences are ours. One header covers CANN 8.1 to 9.2, because no
 * function listed here changed its prototype in between; which release first has a function is said
 * in src/functions.rs.
 *
 * Included from C, every CANN_FUNCTION is an ordinary prototype. With CANN_FUNCTION_TYPES defined it
 * is a typedef of the same name instead; that is how the Rust bindings get one function type per
 * function and no reference that a linker would have to satisfy.
 */
#ifndef CANN_SYS_CANN_H
#define CANN_SYS_CANN_H

#include <stddef.h>
#include <stdint.h>

#ifdef CANN_FUNCTION_TYPES
#define CANN_FUNCTION(result, name, parameters) typedef result(*name) parameters
#else
#define CANN_FUNCTION(result, name, parameters) result name parameters
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------
 * ACL: codes
 * ---------------------------------------------------------------------------------------------- */

/** Status of every ACL call; 0 is success. */
typedef int32_t aclError;

static const aclError ACL_SUCCESS = 0;
/* 100xxx: the ACL layer found the arguments or the process state wrong. */
static const aclError ACL_ERROR_INVALID_PARAM = 100000;
static const aclError ACL_ERROR_UNINITIALIZE = 100001;
static const aclError ACL_ERROR_REPEAT_INITIALIZE = 100002;
static const aclError ACL_ERROR_REPEAT_FINALIZE = 100037;
/* 200xxx: the ACL layer lacks something. */
static const aclError ACL_ERROR_BAD_ALLOC = 200000;
static const aclError ACL_ERROR_API_NOT_SUPPORT = 200001;
static const aclError ACL_ERROR_INVALID_DEVICE = 200002;
static const aclError ACL_ERROR_FEATURE_UNSUPPORTED = 200006;
/* 500xxx: the ACL layer or what it stands on failed. */
static const aclError ACL_ERROR_INTERNAL_ERROR = 500000;
static const aclError ACL_ERROR_FAILURE = 500001;
static const aclError ACL_ERROR_RT_FAILURE = 500003;
static const aclError ACL_ERROR_DRV_FAILURE = 500004;
/* 107xxx: the runtime found the caller at fault. */
static const aclError ACL_ERROR_RT_PARAM_INVALID = 107000;
static const aclError ACL_ERROR_RT_INVALID_DEVICEID = 107001;
/** The calling thread has no current context: it never set a device. */
static const aclError ACL_ERROR_RT_CONTEXT_NULL = 107002;
static const aclError ACL_ERROR_RT_STREAM_CONTEXT = 107003;
static const aclError ACL_ERROR_RT_ADDR_UNALIGNED = 107008;
static const aclError ACL_ERROR_RT_STREAM_SUBSCRIBE = 107011;
static const aclError ACL_ERROR_RT_STREAM_NO_CB_REG = 107015;
static const aclError ACL_ERROR_RT_INVALID_MEMORY_TYPE = 107016;
static const aclError ACL_ERROR_RT_INVALID_HANDLE = 107017;
static const aclError ACL_ERROR_RT_INVALID_MALLOC_TYPE = 107018;
static const aclError ACL_ERROR_RT_WAIT_TIMEOUT = 107019;
static const aclError ACL_ERROR_RT_TASK_TIMEOUT = 107020;
static const aclError ACL_ERROR_RT_DEVICE_TASK_ABORT = 107022;
/** What concurrent waiters get when the stream they wait on is aborted. */
static const aclError ACL_ERROR_RT_STREAM_ABORT = 107023;
static const aclError ACL_ERROR_RT_TASK_ABORT_STOP = 107035;
/* 207xxx: the runtime lacks a resource or a feature. */
/** The chip, the driver or this combination of arguments does not have it; callers fall back on it. */
static const aclError ACL_ERROR_RT_FEATURE_NOT_SUPPORT = 207000;
static const aclError ACL_ERROR_RT_MEMORY_ALLOCATION = 207001;
static const aclError ACL_ERROR_RT_MEMORY_FREE = 207002;
static const aclError ACL_ERROR_RT_NO_DEVICE = 207004;
static const aclError ACL_ERROR_RT_RESOURCE_ALLOC_FAIL = 207005;
static const aclError ACL_ERROR_RT_NO_PERMISSION = 207006;
static const aclError ACL_ERROR_RT_NO_EVENT_RESOURCE = 207007;
static const aclError ACL_ERROR_RT_NO_STREAM_RESOURCE = 207008;
static const aclError ACL_ERROR_RT_OVER_LIMIT = 207012;
static const aclError ACL_ERROR_RT_DEVICE_OOM = 207018;
static const aclError ACL_ERROR_RT_RUNTIME_TIMEOUT = 207020;
static const aclError ACL_ERROR_RT_LINK_TYPE_NOT_SUPPORTED = 207021;
/* 507xxx: the device or the driver failed. */
static const aclError ACL_ERROR_RT_INTERNAL_ERROR = 507000;
static const aclError ACL_ERROR_RT_STREAM_TASK_FULL = 507002;
static const aclError ACL_ERROR_RT_STREAM_NOT_COMPLETE = 507004;
static const aclError ACL_ERROR_RT_EVENT_NOT_COMPLETE = 507006;
static const aclError ACL_ERROR_RT_LOST_HEARTBEAT = 507010;
static const aclError ACL_ERROR_RT_REPORT_TIMEOUT = 507012;
static const aclError ACL_ERROR_RT_SYS_DMA_ERROR = 507013;
static const aclError ACL_ERROR_RT_IPC_ERROR = 507022;
/** A bounded wait on a stream ran out; the work goes on. */
static const aclError ACL_ERROR_RT_STREAM_SYNC_TIMEOUT = 507046;
/** A bounded wait on an event ran out; the work goes on. */
static const aclError ACL_ERROR_RT_EVENT_SYNC_TIMEOUT = 507047;
static const aclError ACL_ERROR_RT_COPY_DATA_FAIL = 507052;
static const aclError ACL_ERROR_RT_DEVICE_MEM_ERROR = 507053;
static const aclError ACL_ERROR_RT_HBM_MULTI_BIT_ECC_ERROR = 507054;
static const aclError ACL_ERROR_RT_SUSPECT_DEVICE_MEM_ERROR = 507055;
static const aclError ACL_ERROR_RT_LINK_ERROR = 507056;
static const aclError ACL_ERROR_RT_SUSPECT_REMOTE_ERROR = 507057;
static const aclError ACL_ERROR_RT_DRV_INTERNAL_ERROR = 507899;
static const aclError ACL_ERROR_RT_SOCKET_CLOSE = 507901;
static const aclError ACL_ERROR_RT_COMMUNICATION_OP_RETRY_FAIL = 507904;
static const aclError ACL_ERROR_RT_HOST_MEMORY_ALREADY_REGISTERED = 507910;
static const aclError ACL_ERROR_RT_HOST_MEMORY_NOT_REGISTERED = 507911;

/* ------------------------------------------------------------------------------------------------
 * ACL: handles
 * ---------------------------------------------------------------------------------------------- */

typedef void *aclrtContext;
/** NULL means the default stream of the current context, except for HCCL, which refuses NULL. */
typedef void *aclrtStream;
typedef void *aclrtEvent;
/** A piece of physical device or host memory that can be mapped and shared. */
typedef void *aclrtDrvMemHandle;
typedef void (*aclrtCallback)(void *userData);

/* ------------------------------------------------------------------------------------------------
 * ACL: enumerations (32 bit)
 * ---------------------------------------------------------------------------------------------- */

typedef enum {
    ACL_DEVICE = 0,
    ACL_HOST = 1,
} aclrtRunMode;

typedef enum {
    ACL_RT_THREAD_LEVEL = 0,
} aclrtLastErrLevel;

typedef enum {
    ACL_MEMCPY_HOST_TO_HOST = 0,
    ACL_MEMCPY_HOST_TO_DEVICE = 1,
    ACL_MEMCPY_DEVICE_TO_HOST = 2,
    ACL_MEMCPY_DEVICE_TO_DEVICE = 3,
    ACL_MEMCPY_DEFAULT = 4,
    ACL_MEMCPY_HOST_TO_BUF_TO_DEVICE = 5,
    ACL_MEMCPY_INNER_DEVICE_TO_DEVICE = 6,
    ACL_MEMCPY_INTER_DEVICE_TO_DEVICE = 7,
} aclrtMemcpyKind;

/** How an allocation is backed; the last three values are bits to add. */
typedef enum {
    ACL_MEM_MALLOC_HUGE_FIRST = 0,
    ACL_MEM_MALLOC_HUGE_ONLY = 1,
    ACL_MEM_MALLOC_NORMAL_ONLY = 2,
    ACL_MEM_MALLOC_HUGE_FIRST_P2P = 3,
    ACL_MEM_MALLOC_HUGE_ONLY_P2P = 4,
    ACL_MEM_MALLOC_NORMAL_ONLY_P2P = 5,
    ACL_MEM_MALLOC_HUGE1G_ONLY = 6,
    ACL_MEM_MALLOC_HUGE1G_ONLY_P2P = 7,
    ACL_MEM_TYPE_LOW_BAND_WIDTH = 0x100,
    ACL_MEM_TYPE_HIGH_BAND_WIDTH = 0x1000,
    ACL_MEM_ACCESS_USER_SPACE_READONLY = 0x100000,
} aclrtMemMallocPolicy;

typedef enum {
    ACL_DDR_MEM = 0,
    ACL_HBM_MEM = 1,
    ACL_DDR_MEM_HUGE = 2,
    ACL_DDR_MEM_NORMAL = 3,
    ACL_HBM_MEM_HUGE = 4,
    ACL_HBM_MEM_NORMAL = 5,
    ACL_DDR_MEM_P2P_HUGE = 6,
    ACL_DDR_MEM_P2P_NORMAL = 7,
    ACL_HBM_MEM_P2P_HUGE = 8,
    ACL_HBM_MEM_P2P_NORMAL = 9,
    ACL_HBM_MEM_HUGE1G = 10,
    ACL_HBM_MEM_P2P_HUGE1G = 11,
    ACL_MEM_NORMAL = 12,
    ACL_MEM_HUGE = 13,
    ACL_MEM_HUGE1G = 14,
    ACL_MEM_P2P_NORMAL = 15,
    ACL_MEM_P2P_HUGE = 16,
    ACL_MEM_P2P_HUGE1G = 17,
} aclrtMemAttr;

/** CANN 8.1 knows the first two only. */
typedef enum {
    ACL_MEM_LOCATION_TYPE_HOST = 0,
    ACL_MEM_LOCATION_TYPE_DEVICE = 1,
    ACL_MEM_LOCATION_TYPE_UNREGISTERED = 2,
    ACL_MEM_LOCATION_TYPE_MANAGED = 3,
    ACL_MEM_LOCATION_TYPE_HOST_NUMA = 4,
} aclrtMemLocationType;

typedef enum {
    ACL_STREAM_STATUS_COMPLETE = 0,
    ACL_STREAM_STATUS_NOT_READY = 1,
    ACL_STREAM_STATUS_RESERVED = 0xFFFF,
} aclrtStreamStatus;

/** Unlike every other status of the interface, complete is 1 here. */
typedef enum {
    ACL_EVENT_RECORDED_STATUS_NOT_READY = 0,
    ACL_EVENT_RECORDED_STATUS_COMPLETE = 1,
} aclrtEventRecordedStatus;

typedef enum {
    ACL_CALLBACK_NO_BLOCK = 0,
    ACL_CALLBACK_BLOCK = 1,
} aclrtCallbackBlockType;

typedef enum {
    ACL_HOST_REGISTER_MAPPED = 0,
    ACL_HOST_REGISTER_IOMEMORY = 4,
    ACL_HOST_REGISTER_READONLY = 8,
} aclrtHostRegisterType;

typedef enum {
    ACL_MEM_HANDLE_TYPE_NONE = 0,
    ACL_MEM_HANDLE_TYPE_POSIX = 2,
} aclrtMemHandleType;

typedef enum {
    ACL_MEM_ALLOCATION_TYPE_PINNED = 0,
} aclrtMemAllocationType;

typedef enum {
    ACL_MEM_SHARE_HANDLE_TYPE_DEFAULT = 1,
    ACL_MEM_SHARE_HANDLE_TYPE_FABRIC = 2,
} aclrtMemSharedHandleType;

typedef enum {
    ACL_RT_MEM_ALLOC_GRANULARITY_MINIMUM = 0,
    ACL_RT_MEM_ALLOC_GRANULARITY_RECOMMENDED = 1,
} aclrtMemGranularityOptions;

typedef enum {
    ACL_RT_MEM_ACCESS_FLAGS_NONE = 0,
    ACL_RT_MEM_ACCESS_FLAGS_READ = 1,
    ACL_RT_MEM_ACCESS_FLAGS_READWRITE = 3,
} aclrtMemAccessFlags;

typedef enum {
    ACL_DEV_ATTR_TOTAL_GLOBAL_MEM_SIZE = 301,
    ACL_DEV_ATTR_SMP_ID = 401,
    ACL_DEV_ATTR_PHY_CHIP_ID = 402,
    ACL_DEV_ATTR_SUPER_POD_DEVICE_ID = 403,
    ACL_DEV_ATTR_SUPER_POD_SERVER_ID = 404,
    ACL_DEV_ATTR_SUPER_POD_ID = 405,
    ACL_DEV_ATTR_HD_CONNECT_TYPE = 408,
    ACL_DEV_ATTR_IS_VIRTUAL = 501,
} aclrtDevAttr;

/* ------------------------------------------------------------------------------------------------
 * ACL: flags and limits
 * ---------------------------------------------------------------------------------------------- */

static const uint32_t ACL_EVENT_SYNC = 0x1;
static const uint32_t ACL_EVENT_CAPTURE_STREAM_PROGRESS = 0x2;
static const uint32_t ACL_EVENT_TIME_LINE = 0x8;
static const uint32_t ACL_EVENT_DEVICE_USE_ONLY = 0x10;
static const uint32_t ACL_EVENT_EXTERNAL = 0x20;
static const uint32_t ACL_EVENT_IPC = 0x40;

static const uint32_t ACL_STREAM_FAST_LAUNCH = 0x1;
static const uint32_t ACL_STREAM_FAST_SYNC = 0x2;
static const uint32_t ACL_STREAM_PERSISTENT = 0x4;
static const uint32_t ACL_STREAM_HUGE = 0x8;
static const uint32_t ACL_STREAM_CPU_SCHEDULE = 0x10;
static const uint32_t ACL_STREAM_DEVICE_USE_ONLY = 0x20;

static const uint64_t ACL_CONTINUE_ON_FAILURE = 0;
static const uint64_t ACL_STOP_ON_FAILURE = 1;

/* Flags of aclrtHostRegisterV2; aclrtHostRegister has an enumeration with other numbers. */
static const uint32_t ACL_HOST_REG_MAPPED = 0x2;
static const uint32_t ACL_HOST_REG_IOMEMORY = 0x4;
static const uint32_t ACL_HOST_REG_READONLY = 0x8;
static const uint32_t ACL_HOST_REG_PINNED = 0x10000000;

static const uint64_t ACL_RT_VMM_EXPORT_FLAG_DEFAULT = 0;
static const uint64_t ACL_RT_VMM_EXPORT_FLAG_DISABLE_PID_VALIDATION = 1;
static const uint64_t ACL_RT_IPC_MEM_EXPORT_FLAG_DEFAULT = 0;
static const uint64_t ACL_RT_IPC_MEM_EXPORT_FLAG_DISABLE_PID_VALIDATION = 1;
static const uint64_t ACL_RT_IPC_MEM_IMPORT_FLAG_DEFAULT = 0;
/** Since CANN 8.3.RC1; before, the flag had to be 0. */
static const uint64_t ACL_RT_IPC_MEM_IMPORT_FLAG_ENABLE_PEER_ACCESS = 1;

/** What aclrtReserveMemAddress is called with by everyone; only 0 and 1 are accepted. */
static const uint64_t CANN_RESERVE_FLAG = 1;
/** Bytes of an IPC memory key with its NUL; aclrtIpcMemGetExportKey demands exactly this length. */
static const size_t CANN_IPC_KEY_LENGTH_BYTES = 65;
/** aclrtMemcpyBatch refuses more items in one call. */
static const size_t CANN_MEMCPY_BATCH_ITEM_LIMIT = 4096;

/* ------------------------------------------------------------------------------------------------
 * ACL: structures
 * ---------------------------------------------------------------------------------------------- */

/** Where memory is. For devices the id is the *user* id, the one aclrtSetDevice takes. */
typedef struct {
    uint32_t id;
    /** Newer runtimes may answer values this header lacks. */
    aclrtMemLocationType type;
} aclrtMemLocation;

typedef struct {
    aclrtMemLocation location;
    /** Bytes: 4096, 2 MiB or 1 GiB. */
    uint32_t pageSize;
    uint32_t rsv[4];
} aclrtPtrAttributes;

/** Source and target kinds of a run of aclrtMemcpyBatch items. */
typedef struct {
    aclrtMemLocation dstLoc;
    aclrtMemLocation srcLoc;
    /** Must be zero. */
    uint8_t rsv[16];
} aclrtMemcpyBatchAttr;

typedef struct {
    aclrtMemHandleType handleType;
    aclrtMemAllocationType allocationType;
    aclrtMemAttr memAttr;
    aclrtMemLocation location;
    uint64_t reserve;
} aclrtPhysicalMemProp;

typedef struct {
    aclrtMemAccessFlags flags;
    aclrtMemLocation location;
    uint8_t rsv[12];
} aclrtMemAccessDesc;

/** A shareable handle that reaches other servers of a SuperPoD. */
typedef struct {
    uint8_t data[128];
} aclrtMemFabricHandle;

/* ------------------------------------------------------------------------------------------------
 * ACL: functions
 * ---------------------------------------------------------------------------------------------- */

/** Belongs to the application, not to libraries. A repeated call answers ACL_ERROR_REPEAT_INITIALIZE. */
CANN_FUNCTION(aclError, aclInit, (const char *configPath));
/** May sleep up to two seconds while logs are flushed. */
CANN_FUNCTION(aclError, aclFinalize, (void));
/** The version of the ACL interface, not of CANN: 1.13 is 8.1, 1.14 8.2, 1.15 8.3, 1.16 8.5, 1.17 9.x. */
CANN_FUNCTION(aclError, aclrtGetVersion, (int32_t *major, int32_t *minor, int32_t *patch));
/** Takes the pending text of the calling thread; NULL if there is none. Valid until the next call. */
CANN_FUNCTION(const char *, aclGetRecentErrMsg, (void));
CANN_FUNCTION(aclError, aclrtPeekAtLastError, (aclrtLastErrLevel level));
CANN_FUNCTION(aclError, aclrtGetLastError, (aclrtLastErrLevel level));
/** For example "Ascend910B3"; NULL on failure. */
CANN_FUNCTION(const char *, aclrtGetSocName, (void));

/** Counted per process and device; makes the device's default context current for this thread. */
CANN_FUNCTION(aclError, aclrtSetDevice, (int32_t deviceId));
CANN_FUNCTION(aclError, aclrtResetDevice, (int32_t deviceId));
/** An error on a thread that has no current context. */
CANN_FUNCTION(aclError, aclrtGetDevice, (int32_t * deviceId));
CANN_FUNCTION(aclError, aclrtGetDeviceCount, (uint32_t * count));
CANN_FUNCTION(aclError, aclrtGetRunMode, (aclrtRunMode * runMode));
CANN_FUNCTION(aclError, aclrtSynchronizeDevice, (void));
CANN_FUNCTION(aclError, aclrtSynchronizeDeviceWithTimeout, (int32_t timeoutMs));
CANN_FUNCTION(aclError, aclrtDeviceTaskAbort, (int32_t deviceId, uint32_t timeoutMs));
CANN_FUNCTION(aclError, aclrtDeviceCanAccessPeer, (int32_t * canAccess, int32_t deviceId, int32_t peerDeviceId));
/** One way: the current device may then access the peer; flags is 0. */
CANN_FUNCTION(aclError, aclrtDeviceEnablePeerAccess, (int32_t peerDeviceId, uint32_t flags));
CANN_FUNCTION(aclError, aclrtDeviceDisablePeerAccess, (int32_t peerDeviceId));
/** This process' id as the kernel of the host sees it, also inside a container. */
CANN_FUNCTION(aclError, aclrtDeviceGetBareTgid, (int32_t * processId));
CANN_FUNCTION(aclError, aclrtGetDeviceInfo, (uint32_t deviceId, aclrtDevAttr attribute, int64_t *value));
/** Named after the logic id, but takes the user id, the one aclrtSetDevice takes. */
CANN_FUNCTION(aclError, aclrtGetPhyDevIdByLogicDevId, (const int32_t logicDevId, int32_t *const phyDevId));
CANN_FUNCTION(aclError, aclrtGetLogicDevIdByPhyDevId, (const int32_t phyDevId, int32_t *const logicDevId));
CANN_FUNCTION(aclError, aclrtGetLogicDevIdByUserDevId, (const int32_t userDevId, int32_t *const logicDevId));
CANN_FUNCTION(aclError, aclrtGetUserDevIdByLogicDevId, (const int32_t logicDevId, int32_t *const userDevId));

/** Makes the new context current; it has a default stream of its own. */
CANN_FUNCTION(aclError, aclrtCreateContext, (aclrtContext * context, int32_t deviceId));
CANN_FUNCTION(aclError, aclrtDestroyContext, (aclrtContext context));
/** For the calling thread only; may move it to another device. */
CANN_FUNCTION(aclError, aclrtSetCurrentContext, (aclrtContext context));
CANN_FUNCTION(aclError, aclrtGetCurrentContext, (aclrtContext * context));
CANN_FUNCTION(aclError, aclrtCtxGetCurrentDefaultStream, (aclrtStream * stream));

CANN_FUNCTION(aclError, aclrtCreateStream, (aclrtStream * stream));
CANN_FUNCTION(aclError, aclrtCreateStreamWithConfig, (aclrtStream * stream, uint32_t priority, uint32_t flag));
CANN_FUNCTION(aclError, aclrtDestroyStream, (aclrtStream stream));
/** Without waiting for pending work. */
CANN_FUNCTION(aclError, aclrtDestroyStreamForce, (aclrtStream stream));
CANN_FUNCTION(aclError, aclrtSynchronizeStream, (aclrtStream stream));
/** -1 waits for ever; expiry answers ACL_ERROR_RT_STREAM_SYNC_TIMEOUT and leaves the work running. */
CANN_FUNCTION(aclError, aclrtSynchronizeStreamWithTimeout, (aclrtStream stream, int32_t timeoutMs));
CANN_FUNCTION(aclError, aclrtStreamQuery, (aclrtStream stream, aclrtStreamStatus *status));
/** Stops the running task and drops the queued ones. */
CANN_FUNCTION(aclError, aclrtStreamAbort, (aclrtStream stream));
CANN_FUNCTION(aclError, aclrtStreamStop, (aclrtStream stream));
/** Once per stream; also decides for the other streams of the context. */
CANN_FUNCTION(aclError, aclrtSetStreamFailureMode, (aclrtStream stream, uint64_t mode));
CANN_FUNCTION(aclError, aclrtStreamWaitEvent, (aclrtStream stream, aclrtEvent event));
CANN_FUNCTION(aclError, aclrtStreamWaitEventWithTimeout, (aclrtStream stream, aclrtEvent event, int32_t timeoutMs));

CANN_FUNCTION(aclError, aclrtCreateEvent, (aclrtEvent * event));
/** Events of this kind may be recorded any number of times; never recorded, they read as complete. */
CANN_FUNCTION(aclError, aclrtCreateEventExWithFlag, (aclrtEvent * event, uint32_t flag));
CANN_FUNCTION(aclError, aclrtDestroyEvent, (aclrtEvent event));
CANN_FUNCTION(aclError, aclrtRecordEvent, (aclrtEvent event, aclrtStream stream));
CANN_FUNCTION(aclError, aclrtQueryEventStatus, (aclrtEvent event, aclrtEventRecordedStatus *status));
CANN_FUNCTION(aclError, aclrtSynchronizeEvent, (aclrtEvent event));
CANN_FUNCTION(aclError, aclrtSynchronizeEventWithTimeout, (aclrtEvent event, int32_t timeoutMs));
/** Both events need ACL_EVENT_TIME_LINE. */
CANN_FUNCTION(aclError, aclrtEventElapsedTime, (float *milliseconds, aclrtEvent start, aclrtEvent end));

/** The function runs on a thread of the runtime and holds the stream; it must not call the runtime. */
CANN_FUNCTION(aclError, aclrtLaunchHostFunc, (aclrtStream stream, aclrtCallback function, void *userData));
/** Needs a thread that subscribed to the stream's reports and loops over aclrtProcessReport. */
CANN_FUNCTION(aclError, aclrtLaunchCallback,
              (aclrtCallback function, void *userData, aclrtCallbackBlockType blockType, aclrtStream stream));
CANN_FUNCTION(aclError, aclrtSubscribeReport, (uint64_t threadId, aclrtStream stream));
CANN_FUNCTION(aclError, aclrtProcessReport, (int32_t timeoutMs));
CANN_FUNCTION(aclError, aclrtUnSubscribeReport, (uint64_t threadId, aclrtStream stream));

/** The address is 64-byte aligned (2 MiB on huge pages); the memory is not zeroed. */
CANN_FUNCTION(aclError, aclrtMalloc, (void **address, size_t size, aclrtMemMallocPolicy policy));
/** As aclrtMalloc, without the 32 bytes that it adds to the size. */
CANN_FUNCTION(aclError, aclrtMallocAlign32, (void **address, size_t size, aclrtMemMallocPolicy policy));
/** Does not wait for streams that use the memory. */
CANN_FUNCTION(aclError, aclrtFree, (void *address));
/** Pinned memory of the host; needs a current context. */
CANN_FUNCTION(aclError, aclrtMallocHost, (void **address, size_t size));
CANN_FUNCTION(aclError, aclrtFreeHost, (void *address));
/** The address must be 4 KiB aligned; the device-side alias is for device code only. */
CANN_FUNCTION(aclError, aclrtHostRegister,
              (void *address, uint64_t size, aclrtHostRegisterType type, void **deviceAddress));
CANN_FUNCTION(aclError, aclrtHostUnregister, (void *address));
CANN_FUNCTION(aclError, aclrtHostRegisterV2, (void *address, uint64_t size, uint32_t flag));
CANN_FUNCTION(aclError, aclrtHostGetDevicePointer, (void *address, void **deviceAddress, uint32_t flag));
CANN_FUNCTION(aclError, aclrtMemset, (void *address, size_t limit, int32_t value, size_t count));
CANN_FUNCTION(aclError, aclrtMemcpy,
              (void *target, size_t targetLimit, const void *source, size_t count, aclrtMemcpyKind kind));
/** Host to host answers ACL_ERROR_RT_FEATURE_NOT_SUPPORT; unpinned host memory makes the call block. */
CANN_FUNCTION(aclError, aclrtMemcpyAsync,
              (void *target, size_t targetLimit, const void *source, size_t count, aclrtMemcpyKind kind,
               aclrtStream stream));
/** Host to device or back, blocking, in no particular order, at most CANN_MEMCPY_BATCH_ITEM_LIMIT items. */
CANN_FUNCTION(aclError, aclrtMemcpyBatch,
              (void **targets, size_t *targetLimits, void **sources, size_t *sizes, size_t itemCount,
               aclrtMemcpyBatchAttr *attributes, size_t *attributeIndexes, size_t attributeCount,
               size_t *failIndex));
CANN_FUNCTION(aclError, aclrtMemcpyBatchAsync,
              (void **targets, size_t *targetLimits, void **sources, size_t *sizes, size_t itemCount,
               aclrtMemcpyBatchAttr *attributes, size_t *attributeIndexes, size_t attributeCount,
               size_t *failIndex, aclrtStream stream));
/** Works without a current context; old drivers fail for memory that only malloc knows. */
CANN_FUNCTION(aclError, aclrtPointerGetAttributes, (const void *address, aclrtPtrAttributes *attributes));
CANN_FUNCTION(aclError, aclrtMemGetAddressRange, (void *address, void **base, size_t *size));
CANN_FUNCTION(aclError, aclrtGetMemInfo, (aclrtMemAttr attribute, size_t *free, size_t *total));

CANN_FUNCTION(aclError, aclrtReserveMemAddress,
              (void **address, size_t size, size_t alignment, void *expected, uint64_t flags));
CANN_FUNCTION(aclError, aclrtReserveMemAddressNoUCMemory,
              (void **address, size_t size, size_t alignment, void *expected, uint64_t flags));
CANN_FUNCTION(aclError, aclrtReleaseMemAddress, (void *address));
CANN_FUNCTION(aclError, aclrtMallocPhysical,
              (aclrtDrvMemHandle * handle, size_t size, const aclrtPhysicalMemProp *property, uint64_t flags));
CANN_FUNCTION(aclError, aclrtFreePhysical, (aclrtDrvMemHandle handle));
CANN_FUNCTION(aclError, aclrtMapMem,
              (void *address, size_t size, size_t offset, aclrtDrvMemHandle handle, uint64_t flags));
CANN_FUNCTION(aclError, aclrtUnmapMem, (void *address));
CANN_FUNCTION(aclError, aclrtMemGetAllocationGranularity,
              (aclrtPhysicalMemProp * property, aclrtMemGranularityOptions option, size_t *granularity));
CANN_FUNCTION(aclError, aclrtMemSetAccess,
              (void *address, size_t size, aclrtMemAccessDesc *descriptors, size_t count));
CANN_FUNCTION(aclError, aclrtMemExportToShareableHandle,
              (aclrtDrvMemHandle handle, aclrtMemHandleType type, uint64_t flags, uint64_t *shareableHandle));
CANN_FUNCTION(aclError, aclrtMemImportFromShareableHandle,
              (uint64_t shareableHandle, int32_t deviceId, aclrtDrvMemHandle *handle));
CANN_FUNCTION(aclError, aclrtMemSetPidToShareableHandle,
              (uint64_t shareableHandle, int32_t *processIds, size_t count));
/** The handle written is a uint64_t or an aclrtMemFabricHandle, by its type. */
CANN_FUNCTION(aclError, aclrtMemExportToShareableHandleV2,
              (aclrtDrvMemHandle handle, uint64_t flags, aclrtMemSharedHandleType type, void *shareableHandle));
CANN_FUNCTION(aclError, aclrtMemImportFromShareableHandleV2,
              (void *shareableHandle, aclrtMemSharedHandleType type, uint64_t flags, aclrtDrvMemHandle *handle));
CANN_FUNCTION(aclError, aclrtMemSetPidToShareableHandleV2,
              (void *shareableHandle, aclrtMemSharedHandleType type, int32_t *processIds, size_t count));
/** Needs driver 26.0.RC1, else ACL_ERROR_RT_FEATURE_NOT_SUPPORT. */
CANN_FUNCTION(aclError, aclrtMemRetainAllocationHandle, (void *address, aclrtDrvMemHandle *handle));
/** The length is CANN_IPC_KEY_LENGTH_BYTES. */
CANN_FUNCTION(aclError, aclrtIpcMemGetExportKey,
              (void *address, size_t size, char *key, size_t length, uint64_t flags));
CANN_FUNCTION(aclError, aclrtIpcMemSetImportPid, (const char *key, int32_t *processIds, size_t count));
CANN_FUNCTION(aclError, aclrtIpcMemImportByKey, (void **address, const char *key, uint64_t flags));
/** All importers close before the exporter does. */
CANN_FUNCTION(aclError, aclrtIpcMemClose, (const char *key));

/* ------------------------------------------------------------------------------------------------
 * Inner runtime (libruntime.so): only for releases whose ACL cannot translate device ids
 * ---------------------------------------------------------------------------------------------- */

typedef int32_t rtError_t;

CANN_FUNCTION(rtError_t, rtGetDevicePhyIdByIndex, (uint32_t deviceIndex, uint32_t *physicalId));
CANN_FUNCTION(rtError_t, rtGetDeviceIndexByPhyId, (uint32_t physicalId, uint32_t *deviceIndex));
/** Module 0 is the system; of its attributes 26 is the device's number in its super pod, 29 the super pod's. */
CANN_FUNCTION(rtError_t, rtGetDeviceInfo, (uint32_t deviceIndex, int32_t module, int32_t attribute, int64_t *value));

/* ------------------------------------------------------------------------------------------------
 * HCCL: codes and enumerations
 * ---------------------------------------------------------------------------------------------- */

/** Status of every HCCL call; 0 is success. */
typedef int32_t HcclResult;

static const HcclResult HCCL_SUCCESS = 0;
static const HcclResult HCCL_E_PARA = 1;
static const HcclResult HCCL_E_PTR = 2;
static const HcclResult HCCL_E_MEMORY = 3;
/** Of a put or get: the range lies in no single region of the side in question. */
static const HcclResult HCCL_E_INTERNAL = 4;
static const HcclResult HCCL_E_NOT_SUPPORT = 5;
/** Of a put or get: the communicator is not prepared. */
static const HcclResult HCCL_E_NOT_FOUND = 6;
/** Of an init: inits of several processes ran at once; worth another try. */
static const HcclResult HCCL_E_UNAVAIL = 7;
static const HcclResult HCCL_E_SYSCALL = 8;
static const HcclResult HCCL_E_TIMEOUT = 9;
static const HcclResult HCCL_E_OPEN_FILE_FAILURE = 10;
static const HcclResult HCCL_E_TCP_CONNECT = 11;
static const HcclResult HCCL_E_ROCE_CONNECT = 12;
static const HcclResult HCCL_E_TCP_TRANSFER = 13;
static const HcclResult HCCL_E_ROCE_TRANSFER = 14;
static const HcclResult HCCL_E_RUNTIME = 15;
static const HcclResult HCCL_E_DRV = 16;
static const HcclResult HCCL_E_PROFILING = 17;
static const HcclResult HCCL_E_CCE = 18;
static const HcclResult HCCL_E_NETWORK = 19;
static const HcclResult HCCL_E_AGAIN = 20;
static const HcclResult HCCL_E_REMOTE = 21;
static const HcclResult HCCL_E_SUSPENDING = 22;
static const HcclResult HCCL_E_OPRETRY_FAIL = 23;
static const HcclResult HCCL_E_OOM = 24;
static const HcclResult HCCL_E_IN_STATUS = 1041;

typedef enum {
    HCCL_DATA_TYPE_INT8 = 0,
    HCCL_DATA_TYPE_INT16 = 1,
    HCCL_DATA_TYPE_INT32 = 2,
    HCCL_DATA_TYPE_FP16 = 3,
    HCCL_DATA_TYPE_FP32 = 4,
    HCCL_DATA_TYPE_INT64 = 5,
    HCCL_DATA_TYPE_UINT64 = 6,
    HCCL_DATA_TYPE_UINT8 = 7,
    HCCL_DATA_TYPE_UINT16 = 8,
    HCCL_DATA_TYPE_UINT32 = 9,
    HCCL_DATA_TYPE_FP64 = 10,
    HCCL_DATA_TYPE_BFP16 = 11,
    HCCL_DATA_TYPE_INT128 = 12,
    HCCL_DATA_TYPE_HIF8 = 14,
    HCCL_DATA_TYPE_FP8E4M3 = 15,
    HCCL_DATA_TYPE_FP8E5M2 = 16,
    HCCL_DATA_TYPE_FP8E8M0 = 17,
    HCCL_DATA_TYPE_RESERVED = 255,
} HcclDataType;

/** Kinds of registered memory; the numbers differ from aclrtMemLocationType. */
typedef enum {
    COMM_MEM_TYPE_INVALID = -1,
    COMM_MEM_TYPE_DEVICE = 0,
    COMM_MEM_TYPE_HOST = 1,
} CommMemType;

typedef enum {
    HCCL_TOPO_FULLMESH = 0,
} HcclTopoType;

/* ------------------------------------------------------------------------------------------------
 * HCCL: limits and sentinels
 * ---------------------------------------------------------------------------------------------- */

/** HcclBatchPut and HcclBatchGet refuse more descriptors in one call. */
static const uint32_t CANN_BATCH_DESCRIPTOR_LIMIT = 256;
/** HCCS links take only regions whose base is aligned to this. */
static const size_t CANN_HCCS_ALIGNMENT_BYTES = 2097152;
/** Every HcclCommConfig carries it. */
static const uint32_t CANN_COMM_CONFIG_MAGIC = 0xF0F0F0F0;
/** The config version whose fields this header has. */
static const uint32_t CANN_COMM_CONFIG_VERSION = 5;
/** Leaves a numeric field of HcclCommConfig to the library. */
static const uint32_t CANN_COMM_CONFIG_UNSET = 0xFFFFFFFF;

/* ------------------------------------------------------------------------------------------------
 * HCCL: structures
 * ---------------------------------------------------------------------------------------------- */

typedef void *HcclComm;

/** A region of memory; older headers call it HcclMem. */
typedef struct {
    CommMemType type;
    void *addr;
    uint64_t size;
} CommMem;

/** One put or get. Both addresses are virtual addresses of the process that owns the memory. */
typedef struct {
    void *localAddr;
    void *remoteAddr;
    /** In units of dataType. */
    uint64_t count;
    HcclDataType dataType;
} HcclOneSideOpDesc;

/** Opaque description of a region, made by HcclRegisterMem and sent to the peer. */
typedef struct {
    char desc[512];
} HcclMemDesc;

typedef struct {
    HcclMemDesc *array;
    uint32_t arrayLength;
} HcclMemDescs;

typedef struct {
    HcclTopoType topoType;
    uint64_t rsvd0;
    uint64_t rsvd1;
    uint64_t rsvd2;
} HcclPrepareConfig;

/**
 * Configuration of a communicator, version 5: the prefix that every release from 8.1 on reads. The
 * library takes the size from the struct, so later, longer versions do not matter. The vendor declares
 * the first 24 bytes as characters; alignment to 4 keeps the size at 300 as theirs.
 */
#pragma pack(push, 4)
typedef struct {
    /** Bytes of the whole struct. */
    uint64_t size;
    uint32_t magic;
    uint32_t version;
    uint64_t reserved;
    /** MiB. */
    uint32_t bufferSize;
    uint32_t deterministic;
    char commName[128];
    char udi[128];
    /** 0 the library's choice, 1 host, 2 AICPU, 3 AIV, 4 AIV only. */
    uint32_t opExpansionMode;
    uint32_t rdmaTrafficClass;
    uint32_t rdmaServiceLevel;
} HcclCommConfig;
#pragma pack(pop)

/* ------------------------------------------------------------------------------------------------
 * HCCL: functions
 * ---------------------------------------------------------------------------------------------- */

CANN_FUNCTION(const char *, HcclGetErrorString, (HcclResult code));
/** The buffer holds 128 bytes. */
CANN_FUNCTION(HcclResult, HcclGetCommName, (HcclComm comm, char *name));
CANN_FUNCTION(HcclResult, HcclGetRankId, (HcclComm comm, uint32_t *rank));
CANN_FUNCTION(HcclResult, HcclGetRankSize, (HcclComm comm, uint32_t *rankSize));

/** Takes the rank table's JSON text itself, the same on all ranks; local, talks to nobody. */
CANN_FUNCTION(HcclResult, HcclCommInitClusterInfoMemConfig,
              (const char *rankTable, uint32_t rank, HcclCommConfig *config, HcclComm *comm));
/** Everything bound must be unbound before; the peer is not told. */
CANN_FUNCTION(HcclResult, HcclCommDestroy, (HcclComm comm));
/** Bookkeeping of (process, current device); bad memory shows up at HcclCommPrepare. */
CANN_FUNCTION(HcclResult, HcclRegisterGlobalMem, (const CommMem *memory, void **memoryHandle));
/** The device the region was registered under must be current. */
CANN_FUNCTION(HcclResult, HcclDeregisterGlobalMem, (void *memoryHandle));
CANN_FUNCTION(HcclResult, HcclCommBindMem, (HcclComm comm, void *memoryHandle));
CANN_FUNCTION(HcclResult, HcclCommUnbindMem, (HcclComm comm, void *memoryHandle));
/** Blocks until every rank is in it. What is bound later no peer ever sees. */
CANN_FUNCTION(HcclResult, HcclCommPrepare, (HcclComm comm, const HcclPrepareConfig *config, const int timeoutSeconds));
/** Local to remote. Returns when queued; an error at one descriptor leaves those before it on the stream. */
CANN_FUNCTION(HcclResult, HcclBatchPut,
              (HcclComm comm, uint32_t remoteRank, HcclOneSideOpDesc *descriptors, uint32_t descriptorCount,
               aclrtStream stream));
/** Remote to local, as HcclBatchPut. */
CANN_FUNCTION(HcclResult, HcclBatchGet,
              (HcclComm comm, uint32_t remoteRank, HcclOneSideOpDesc *descriptors, uint32_t descriptorCount,
               aclrtStream stream));
/** Registers regions with the network card anew after a memory fault; the vendor's spelling. */
CANN_FUNCTION(HcclResult, HcclRemapRegistedMemory,
              (HcclComm * comms, CommMem *memories, uint64_t commCount, uint64_t memoryCount));

/* The older family, where a region belongs to a communicator and a pair. */
CANN_FUNCTION(HcclResult, HcclRegisterMem,
              (HcclComm comm, uint32_t remoteRank, CommMemType type, void *address, uint64_t size,
               HcclMemDesc *description));
CANN_FUNCTION(HcclResult, HcclDeregisterMem, (HcclComm comm, HcclMemDesc *description));
/** Blocks until the peer is in it too. */
CANN_FUNCTION(HcclResult, HcclExchangeMemDesc,
              (HcclComm comm, uint32_t remoteRank, HcclMemDescs *local, int timeoutSeconds, HcclMemDescs *remote,
               uint32_t *actualCount));
CANN_FUNCTION(HcclResult, HcclEnableMemAccess,
              (HcclComm comm, HcclMemDesc *remoteDescription, CommMem *remoteMemory));
CANN_FUNCTION(HcclResult, HcclDisableMemAccess, (HcclComm comm, HcclMemDesc *remoteDescription));

#ifdef __cplusplus
}
#endif

#endif /* CANN_SYS_CANN_H */

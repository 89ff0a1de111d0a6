/* Our own declarations of the vendor's functions, for the C tests of the software NPU. Written from the fact sheet
 * independently of the library's Rust declarations. */
#ifndef CANN_SIM_TEST_CANN_H
#define CANN_SIM_TEST_CANN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int aclError;
typedef void *aclrtContext;
typedef void *aclrtStream;
typedef void *aclrtEvent;
typedef struct { uint32_t id; int32_t type; } aclrtMemLocation;
typedef struct { aclrtMemLocation location; uint32_t pageSize; uint32_t rsv[4]; } aclrtPtrAttributes;
typedef struct { aclrtMemLocation dstLoc; aclrtMemLocation srcLoc; uint8_t rsv[16]; } aclrtMemcpyBatchAttr;

aclError aclInit(const char *configPath);
aclError aclFinalize(void);
aclError aclrtGetVersion(int32_t *major, int32_t *minor, int32_t *patch);
const char *aclGetRecentErrMsg(void);
const char *aclrtGetSocName(void);
aclError aclrtSetDevice(int32_t device);
aclError aclrtResetDevice(int32_t device);
aclError aclrtGetDevice(int32_t *device);
aclError aclrtGetDeviceCount(uint32_t *count);
aclError aclrtGetPhyDevIdByLogicDevId(const int32_t logic, int32_t *const phy);
aclError aclrtGetLogicDevIdByUserDevId(const int32_t user, int32_t *const logic);
aclError aclrtDeviceCanAccessPeer(int32_t *can, int32_t device, int32_t peer);
aclError aclrtDeviceEnablePeerAccess(int32_t peer, uint32_t flags);
aclError aclrtCreateContext(aclrtContext *context, int32_t device);
aclError aclrtDestroyContext(aclrtContext context);
aclError aclrtSetCurrentContext(aclrtContext context);
aclError aclrtGetCurrentContext(aclrtContext *context);
aclError aclrtCtxGetCurrentDefaultStream(aclrtStream *stream);
aclError aclrtCreateStream(aclrtStream *stream);
aclError aclrtDestroyStream(aclrtStream stream);
aclError aclrtSynchronizeStream(aclrtStream stream);
aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t ms);
aclError aclrtStreamQuery(aclrtStream stream, int *status);
aclError aclrtStreamAbort(aclrtStream stream);
aclError aclrtSetStreamFailureMode(aclrtStream stream, uint64_t mode);
aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event);
aclError aclrtCreateEvent(aclrtEvent *event);
aclError aclrtCreateEventExWithFlag(aclrtEvent *event, uint32_t flag);
aclError aclrtDestroyEvent(aclrtEvent event);
aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream);
aclError aclrtQueryEventStatus(aclrtEvent event, int *status);
aclError aclrtSynchronizeEvent(aclrtEvent event);
aclError aclrtSynchronizeEventWithTimeout(aclrtEvent event, int32_t ms);
aclError aclrtEventElapsedTime(float *ms, aclrtEvent start, aclrtEvent end);
aclError aclrtLaunchHostFunc(aclrtStream stream, void (*fn)(void *), void *args);
aclError aclrtMalloc(void **ptr, size_t size, int policy);
aclError aclrtMallocAlign32(void **ptr, size_t size, int policy);
aclError aclrtFree(void *ptr);
aclError aclrtMallocHost(void **ptr, size_t size);
aclError aclrtFreeHost(void *ptr);
aclError aclrtHostRegister(void *ptr, uint64_t size, int type, void **device);
aclError aclrtHostUnregister(void *ptr);
aclError aclrtMemsetAsync(void *ptr, size_t max, int32_t value, size_t count, aclrtStream stream);
aclError aclrtMemset(void *ptr, size_t max, int32_t value, size_t count);
aclError aclrtMemcpy(void *dst, size_t max, const void *src, size_t count, int kind);
aclError aclrtMemcpyAsync(void *dst, size_t max, const void *src, size_t count, int kind, aclrtStream stream);
aclError aclrtMemcpyBatch(void **dsts, size_t *maxs, void **srcs, size_t *sizes, size_t n,
                          aclrtMemcpyBatchAttr *attrs, size_t *indexes, size_t attrCount, size_t *fail);
aclError aclrtPointerGetAttributes(const void *ptr, aclrtPtrAttributes *attributes);
aclError aclrtGetMemInfo(int attr, size_t *free, size_t *total);

typedef struct { int32_t handleType, allocationType, memAttr; aclrtMemLocation location; uint64_t reserve; } aclrtPhysicalMemProp;
typedef struct { int32_t flags; aclrtMemLocation location; uint8_t rsv[12]; } aclrtMemAccessDesc;
typedef void *aclrtDrvMemHandle;
typedef struct { uint8_t data[128]; } aclrtMemFabricHandle;

aclError aclrtDeviceTaskAbort(int32_t device, uint32_t ms);
aclError aclrtGetDevicesTopo(uint32_t device, uint32_t other, uint64_t *value);
aclError aclrtDeviceGetBareTgid(int32_t *pid);
aclError aclrtGetDeviceInfo(uint32_t device, int attr, int64_t *value);
aclError aclrtCreateStreamWithConfig(aclrtStream *stream, uint32_t priority, uint32_t flag);
aclError aclrtStreamStop(aclrtStream stream);
aclError aclrtStreamGetId(aclrtStream stream, int32_t *id);
aclError aclrtSubscribeReport(uint64_t thread, aclrtStream stream);
aclError aclrtUnSubscribeReport(uint64_t thread, aclrtStream stream);
aclError aclrtProcessReport(int32_t ms);
aclError aclrtLaunchCallback(void (*fn)(void *), void *data, int block, aclrtStream stream);
aclError aclrtMallocWithCfg(void **ptr, size_t size, int policy, void *config);
aclError aclrtMallocHostWithCfg(void **ptr, uint64_t size, void *config);
aclError aclrtFreeWithDevSync(void *ptr);
aclError aclrtHostRegisterV2(void *ptr, uint64_t size, uint32_t flag);
aclError aclrtHostGetDevicePointer(void *ptr, void **device, uint32_t flag);
aclError aclrtMemcpyAsyncWithCondition(void *dst, size_t max, const void *src, size_t n, int kind, aclrtStream stream);
aclError aclrtMemcpy2d(void *dst, size_t dpitch, const void *src, size_t spitch, size_t w, size_t h, int kind);
aclError aclrtMemcpy2dAsync(void *dst, size_t dpitch, const void *src, size_t spitch, size_t w, size_t h, int kind,
                            aclrtStream stream);
aclError aclrtIpcMemGetExportKey(void *ptr, size_t size, char *key, size_t length, uint64_t flags);
aclError aclrtIpcMemSetImportPid(const char *key, int32_t *pid, size_t n);
aclError aclrtIpcMemImportByKey(void **ptr, const char *key, uint64_t flags);
aclError aclrtIpcMemClose(const char *key);
aclError aclrtReserveMemAddress(void **va, size_t size, size_t align, void *expect, uint64_t flags);
aclError aclrtReleaseMemAddress(void *va);
aclError aclrtMallocPhysical(aclrtDrvMemHandle *handle, size_t size, const aclrtPhysicalMemProp *prop, uint64_t flags);
aclError aclrtFreePhysical(aclrtDrvMemHandle handle);
aclError aclrtMapMem(void *va, size_t size, size_t offset, aclrtDrvMemHandle handle, uint64_t flags);
aclError aclrtUnmapMem(void *va);
aclError aclrtMemGetAllocationGranularity(aclrtPhysicalMemProp *prop, int option, size_t *granularity);
aclError aclrtMemExportToShareableHandle(aclrtDrvMemHandle handle, int type, uint64_t flags, uint64_t *shareable);
aclError aclrtMemImportFromShareableHandle(uint64_t shareable, int32_t device, aclrtDrvMemHandle *handle);
aclError aclrtMemSetPidToShareableHandle(uint64_t shareable, int32_t *pid, size_t n);
aclError aclrtMemExportToShareableHandleV2(aclrtDrvMemHandle handle, uint64_t flags, int type, void *shareable);
aclError aclrtMemImportFromShareableHandleV2(void *shareable, int type, uint64_t flags, aclrtDrvMemHandle *handle);
aclError aclrtMemRetainAllocationHandle(void *va, aclrtDrvMemHandle *handle);
aclError aclrtMemSetAccess(void *va, size_t size, aclrtMemAccessDesc *desc, size_t n);

typedef int HcclResult;
typedef void *HcclComm;
typedef struct { int32_t type; void *addr; uint64_t size; } HcclMem;
typedef struct { void *localAddr; void *remoteAddr; uint64_t count; int32_t dataType; } HcclOneSideOpDesc;
typedef struct { int32_t topoType; uint64_t rsvd0, rsvd1, rsvd2; } HcclPrepareConfig;
typedef struct {
    uint64_t size;
    uint32_t magic, version;
    uint64_t reserved;
    uint32_t bufferSize, deterministic;
    char name[128], udi[128];
    uint32_t opExpansionMode, trafficClass, serviceLevel;
} __attribute__((packed)) HcclCommConfig;

HcclResult HcclCommInitClusterInfoMemConfig(const char *table, uint32_t rank, HcclCommConfig *config, HcclComm *comm);
HcclResult HcclCommDestroy(HcclComm comm);
HcclResult HcclRegisterGlobalMem(const HcclMem *mem, void **handle);
HcclResult HcclDeregisterGlobalMem(void *handle);
HcclResult HcclCommBindMem(HcclComm comm, void *handle);
HcclResult HcclCommUnbindMem(HcclComm comm, void *handle);
HcclResult HcclCommPrepare(HcclComm comm, const HcclPrepareConfig *config, const int seconds);
HcclResult HcclBatchPut(HcclComm comm, uint32_t rank, HcclOneSideOpDesc *desc, uint32_t count, aclrtStream stream);
HcclResult HcclBatchGet(HcclComm comm, uint32_t rank, HcclOneSideOpDesc *desc, uint32_t count, aclrtStream stream);
HcclResult HcclGetCommName(HcclComm comm, char *name);
HcclResult HcclGetRankId(HcclComm comm, uint32_t *rank);
HcclResult HcclGetRankSize(HcclComm comm, uint32_t *size);
typedef struct { char desc[512]; } HcclMemDesc;
typedef struct { HcclMemDesc *array; uint32_t arrayLength; } HcclMemDescs;
HcclResult HcclRegisterMem(HcclComm comm, uint32_t remote, int type, void *addr, uint64_t size, HcclMemDesc *desc);
HcclResult HcclDeregisterMem(HcclComm comm, HcclMemDesc *desc);
HcclResult HcclExchangeMemDesc(HcclComm comm, uint32_t remote, HcclMemDescs *local, int timeout, HcclMemDescs *theirs,
                               uint32_t *count);
HcclResult HcclEnableMemAccess(HcclComm comm, HcclMemDesc *desc, HcclMem *mem);
HcclResult HcclDisableMemAccess(HcclComm comm, HcclMemDesc *desc);
const char *HcclGetErrorString(HcclResult result);

#ifdef __cplusplus
}
#endif
#endif

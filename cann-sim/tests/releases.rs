//! Each posed release has the functions of that release under the names of its libraries, and no later ones. The
//! lists are a second reading of the facts (1.2 version matrix, 2.1, 7.1, 7.2), independent of `symbols.txt`.

#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

#[allow(dead_code, reason = "these programs answer something else than the cases do")]
mod support;

use std::collections::BTreeMap;

/// Facts 7.1 (a) and 1.2: what the runtime has had since 8.1.
const RUNTIME_8_1: &str = "aclInit aclFinalize aclrtGetVersion aclGetRecentErrMsg aclrtPeekAtLastError
    aclrtGetLastError aclrtGetSocName aclrtSetDevice aclrtResetDevice aclrtResetDeviceForce aclrtGetDevice
    aclrtGetDeviceCount aclrtGetRunMode aclrtSynchronizeDevice aclrtSynchronizeDeviceWithTimeout
    aclrtQueryDeviceStatus aclrtDeviceTaskAbort aclrtDeviceCanAccessPeer aclrtDeviceEnablePeerAccess
    aclrtDeviceDisablePeerAccess aclrtDeviceGetBareTgid aclrtCreateContext aclrtDestroyContext
    aclrtSetCurrentContext aclrtGetCurrentContext aclrtCreateStream aclrtCreateStreamWithConfig aclrtDestroyStream
    aclrtDestroyStreamForce aclrtSynchronizeStream aclrtSynchronizeStreamWithTimeout aclrtStreamQuery
    aclrtStreamAbort aclrtSetStreamFailureMode aclrtStreamWaitEvent aclrtCreateEvent aclrtCreateEventWithFlag
    aclrtCreateEventExWithFlag aclrtDestroyEvent aclrtRecordEvent aclrtResetEvent aclrtQueryEvent
    aclrtQueryEventStatus aclrtQueryEventWaitStatus aclrtSynchronizeEvent aclrtSynchronizeEventWithTimeout
    aclrtEventElapsedTime aclrtEventGetTimestamp aclrtSubscribeReport aclrtProcessReport aclrtUnSubscribeReport
    aclrtLaunchCallback aclrtMalloc aclrtMallocAlign32 aclrtMallocCached aclrtMallocWithCfg aclrtMallocHostWithCfg
    aclrtFree aclrtMallocHost aclrtFreeHost aclrtHostRegister aclrtHostUnregister aclrtMemset aclrtMemsetAsync
    aclrtMemcpy aclrtMemcpyAsync aclrtMemcpyAsyncWithCondition aclrtMemcpy2d aclrtMemcpy2dAsync
    aclrtPointerGetAttributes aclrtGetMemInfo aclrtReserveMemAddress aclrtReleaseMemAddress aclrtMallocPhysical
    aclrtFreePhysical aclrtMapMem aclrtUnmapMem aclrtMemGetAllocationGranularity aclrtMemExportToShareableHandle
    aclrtMemImportFromShareableHandle aclrtMemSetPidToShareableHandle";

/// Facts 1.2: what came later, with its release.
const RUNTIME_LATER: [(u32, &str); 6] = [
    (
        802,
        "aclrtMemcpyBatch aclrtIpcMemGetExportKey aclrtIpcMemSetImportPid aclrtIpcMemImportByKey aclrtIpcMemClose",
    ),
    (803, "aclFinalizeReference aclrtLaunchHostFunc aclrtMemcpyBatchAsync"),
    (
        805,
        "aclrtCtxGetCurrentDefaultStream aclrtGetDeviceInfo aclrtGetPhyDevIdByLogicDevId
        aclrtGetLogicDevIdByPhyDevId aclrtGetLogicDevIdByUserDevId aclrtGetUserDevIdByLogicDevId aclrtStreamStop
        aclrtStreamWaitEventWithTimeout aclrtHostRegisterV2 aclrtHostGetDevicePointer
        aclrtMemExportToShareableHandleV2 aclrtMemImportFromShareableHandleV2 aclrtMemSetPidToShareableHandleV2
        aclrtMemRetainAllocationHandle aclrtMemSetAccess aclrtMemGetAccess aclrtIpcMemSetAttr
        aclrtIpcMemImportPidInterServer aclrtCreateNotify aclrtRecordNotify aclrtGetDevicesTopo
        aclrtFreeWithDevSync",
    ),
    (900, "aclrtMemGetAddressRange aclrtReserveMemAddressNoUCMemory"),
    (
        901,
        "aclrtMemcpyBatchV2 aclrtMemcpyBatchAsyncV2 aclrtGetPhyDevIdByUserDevId aclrtGetUserDevIdByPhyDevId",
    ),
    (902, "aclrtMemMapNoAccess"),
];

/// Facts 2.1: the older one-sided family and what is public since long.
const HCCL_8_1: &str = "HcclCommInitClusterInfoMemConfig HcclCommDestroy HcclRegisterMem HcclDeregisterMem
    HcclExchangeMemDesc HcclEnableMemAccess HcclDisableMemAccess HcclBatchPut HcclBatchGet HcclRemapRegistedMemory
    HcclGetRootInfo HcclCommInitRootInfo HcclCommInitRootInfoConfig HcclCommInitClusterInfo
    HcclCommInitClusterInfoConfig HcclGetCommName HcclGetErrorString HcclGetRankId HcclGetRankSize";

/// Facts 2.1: the newer family.
const HCCL_8_3: &str =
    "HcclRegisterGlobalMem HcclDeregisterGlobalMem HcclCommBindMem HcclCommUnbindMem HcclCommPrepare";

/// Facts 7.2: the undefined ACL symbols of upstream's NPU wheel.
const WHEEL: &str =
    "aclGetRecentErrMsg aclrtCreateStreamWithConfig aclrtDestroyStream aclrtFreeHost aclrtFreePhysical
    aclrtGetCurrentContext aclrtGetDevice aclrtGetDeviceCount aclrtGetLogicDevIdByUserDevId
    aclrtGetPhyDevIdByLogicDevId aclrtGetSocName aclrtHostRegister aclrtHostUnregister aclrtIpcMemClose
    aclrtIpcMemGetExportKey aclrtIpcMemImportByKey aclrtMallocHost aclrtMallocPhysical aclrtMapMem
    aclrtMemExportToShareableHandleV2 aclrtMemGetAllocationGranularity aclrtMemImportFromShareableHandleV2
    aclrtMemSetAccess aclrtMemcpy aclrtMemcpyAsync aclrtMemcpyBatch aclrtPointerGetAttributes
    aclrtReleaseMemAddress aclrtReserveMemAddress aclrtSetCurrentContext aclrtSetDevice aclrtStreamAbort
    aclrtSynchronizeStreamWithTimeout aclrtUnmapMem";

/// Facts 7.2 (ii): what HIXL's own build needs beside the wheel's.
const HIXL: &str = "aclrtMalloc aclrtFree aclrtMemset aclrtCreateContext aclrtDestroyContext aclrtCreateStream
    aclrtSynchronizeStream aclrtStreamQuery aclrtStreamGetId aclrtStreamStop aclrtSetStreamFailureMode
    aclrtCreateEvent aclrtDestroyEvent aclrtRecordEvent aclrtQueryEventStatus aclrtResetDevice aclrtGetDeviceInfo
    aclrtCtxGetCurrentDefaultStream aclrtGetMemInfo aclrtMemGetAddressRange aclrtMemRetainAllocationHandle
    aclrtReserveMemAddressNoUCMemory aclsysGetVersionNum aclrtCreateNotify aclrtDestroyNotify aclrtRecordNotify
    aclrtWaitAndResetNotify aclrtGetNotifyId aclrtNotifyBatchReset aclrtBinaryLoadFromFile aclrtBinaryGetFunction
    aclrtBinaryUnLoad aclrtKernelArgsInit aclrtKernelArgsAppend aclrtKernelArgsFinalize
    aclrtLaunchKernelWithConfig aclrtLaunchKernelV2 aclrtSetStreamAttribute";

/// Facts 7.2: the names that HIXL demands of libhcomm.so.
const HIXL_HCCL: &str = "HcclCommInitClusterInfoMemConfig HcclCommDestroy HcclRegisterGlobalMem
    HcclDeregisterGlobalMem HcclCommBindMem HcclCommUnbindMem HcclCommPrepare HcclBatchPut HcclBatchGet
    HcclRemapRegistedMemory HcclExchangeMemDesc";

/// Asks a program that runs as the given release which of the pairs (library, symbol) it finds.
fn found(release: &str, wanted: &[(&str, &str)]) -> Vec<bool> {
    let mut command = support::command("symbols.c", "presence");
    command.env("CANN_SIM_RELEASE", release);
    command.args(wanted.iter().map(|(library, symbol)| format!("{library}:{symbol}")));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<bool> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "1").collect();
    assert_eq!(answers.len(), wanted.len());
    answers
}

/// The functions of the runtime, with the release that brought each.
fn runtime() -> BTreeMap<&'static str, u32> {
    let mut functions: BTreeMap<_, _> = RUNTIME_8_1.split_whitespace().map(|name| (name, 801)).collect();
    for (release, names) in RUNTIME_LATER {
        functions.extend(names.split_whitespace().map(|name| (name, release)));
    }
    functions
}

fn hccl() -> BTreeMap<&'static str, u32> {
    let old = HCCL_8_1.split_whitespace().map(|name| (name, 801));
    old.chain(HCCL_8_3.split_whitespace().map(|name| (name, 803))).collect()
}

fn check(text: &str, number: u32) {
    let is_new = number >= 805;
    let mut wanted = Vec::new();
    let mut expected = Vec::new();
    // The older names find the newer libraries' functions, because they need them; not the other way round.
    for (functions, old_library, new_library) in
        [(runtime(), "libascendcl.so", "libacl_rt.so"), (hccl(), "libhccl.so", "libhcomm.so")]
    {
        for (name, since) in functions {
            wanted.extend([(old_library, name), (new_library, name)]);
            expected.extend([since <= number, since <= number && is_new]);
        }
    }
    let wrong: Vec<_> = found(text, &wanted)
        .into_iter()
        .zip(&expected)
        .zip(&wanted)
        .filter(|((seen, expected), _)| seen != *expected)
        .map(|((seen, _), pair)| format!("{pair:?} is {}", if seen { "there" } else { "missing" }))
        .collect();
    assert!(wrong.is_empty(), "release {text}: {wrong:?}");
}

/// Facts 1.2 and 2.1, release by release.
#[test]
fn every_release_has_its_own_functions() {
    for (text, number) in
        [("8.1", 801), ("8.2", 802), ("8.3", 803), ("8.5", 805), ("9.0", 900), ("9.1", 901), ("9.2", 902)]
    {
        check(text, number);
    }
}

/// Facts 7.2: upstream's wheel loads from 8.5 on; it asks libascendcl.so.
#[test]
fn the_wheel_finds_every_symbol() {
    for release in ["8.5", "9.0", "9.2"] {
        let wanted: Vec<_> = WHEEL.split_whitespace().map(|name| ("libascendcl.so", name)).collect();
        for (seen, pair) in found(release, &wanted).into_iter().zip(&wanted) {
            assert!(seen, "release {release}: {pair:?}");
        }
    }
}

/// Facts 7.2 (ii) and 10: HIXL 9.0 and 9.2 load with RTLD_NOW and want every name.
#[test]
fn hixl_finds_every_symbol() {
    for release in ["9.0", "9.2"] {
        let acl = HIXL.split_whitespace().map(|name| ("libacl_rt.so", name));
        let hccl = HIXL_HCCL.split_whitespace().map(|name| ("libhcomm.so", name));
        let rt = ["rtGetDevResAddress", "rtNotifyGetAddrOffset", "rtStreamGetSqid", "rtStreamGetCqid"];
        let wanted: Vec<_> = acl.chain(hccl).chain(rt.map(|name| ("libruntime.so", name))).collect();
        for (seen, pair) in found(release, &wanted).into_iter().zip(&wanted) {
            assert!(seen, "release {release}: {pair:?}");
        }
    }
}

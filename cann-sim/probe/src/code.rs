//! Codes with their names, as people quote them.

/// A code of ACL.
pub fn acl(code: i32) -> String {
    let name = match code {
        0 => "success",
        100_000 => "invalid parameter",
        100_001 => "not initialised",
        100_002 => "initialised twice",
        107_000 => "parameter invalid",
        107_001 => "invalid device id",
        107_002 => "no current context",
        107_003 => "stream of another context",
        107_015 => "no thread for callbacks",
        107_017 => "invalid handle",
        107_023 => "stream aborted",
        107_035 => "stopped after a failure",
        207_000 => "feature not supported",
        207_001 => "out of device memory",
        207_006 => "no permission",
        507_013 => "system DMA error",
        507_046 => "stream wait timed out",
        507_047 => "event wait timed out",
        507_056 => "link error",
        507_057 => "remote error suspected",
        507_899 => "driver error",
        507_910 => "host memory already registered",
        507_911 => "host memory not registered",
        _ => return code.to_string(),
    };
    format!("{code} {name}")
}

/// A code of HCCL.
pub fn hccl(code: i32) -> String {
    const NAMES: [&str; 25] = [
        "success",
        "E_PARA",
        "E_PTR",
        "E_MEMORY",
        "E_INTERNAL",
        "E_NOT_SUPPORT",
        "E_NOT_FOUND",
        "E_UNAVAIL",
        "E_SYSCALL",
        "E_TIMEOUT",
        "E_OPEN_FILE_FAILURE",
        "E_TCP_CONNECT",
        "E_ROCE_CONNECT",
        "E_TCP_TRANSFER",
        "E_ROCE_TRANSFER",
        "E_RUNTIME",
        "E_DRV",
        "E_PROFILING",
        "E_CCE",
        "E_NETWORK",
        "E_AGAIN",
        "E_REMOTE",
        "E_SUSPENDING",
        "E_OPRETRY_FAIL",
        "E_OOM",
    ];
    match usize::try_from(code).ok().and_then(|index| NAMES.get(index)) {
        Some(name) => format!("{code} {name}"),
        None => code.to_string(),
    }
}

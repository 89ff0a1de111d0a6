//! The vendor's error numbers (facts 1.5 and 2.2), and `Fail`: a number with the sentence that explains it.
//!
//! The two number spaces (ACL, HCCL) never meet in one function, so one type carries either.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

/// Numbers answered by `acl*` functions.
pub mod acl {
    /// A pointer is NULL or a size is zero: caught before the runtime proper.
    pub const INVALID_PARAM: i32 = 100_000;
    /// `aclFinalize` without `aclInit`.
    pub const UNINITIALIZE: i32 = 100_001;
    /// `aclInit` twice.
    pub const REPEAT_INITIALIZE: i32 = 100_002;
    /// `aclFinalize` twice.
    pub const REPEAT_FINALIZE: i32 = 100_037;
    /// The simulator failed; the vendor's number for internal errors.
    pub const INTERNAL_ERROR: i32 = 500_000;
    /// A value, range, kind or limit is wrong.
    pub const PARAM_INVALID: i32 = 107_000;
    /// No such device.
    pub const INVALID_DEVICE_ID: i32 = 107_001;
    /// The calling thread has no current context.
    pub const CONTEXT_NULL: i32 = 107_002;
    /// The stream belongs to another context.
    pub const STREAM_CONTEXT: i32 = 107_003;
    /// The handle is unknown or was destroyed.
    pub const INVALID_HANDLE: i32 = 107_017;
    /// The thread serves no stream's callbacks.
    pub const THREAD_SUBSCRIBE: i32 = 107_010;
    /// The stream's callbacks have a thread already, or another one.
    pub const STREAM_SUBSCRIBE: i32 = 107_011;
    /// No thread was subscribed to run the stream's callbacks.
    pub const STREAM_NO_CALLBACK_REGISTERED: i32 = 107_015;
    /// A wait of the program ran out.
    pub const WAIT_TIMEOUT: i32 = 107_019;
    /// The device's tasks were aborted while the caller waited.
    pub const DEVICE_TASK_ABORT: i32 = 107_022;
    /// The stream was aborted while the caller waited.
    pub const STREAM_ABORT: i32 = 107_023;
    /// A stream that stops on failure has failed.
    pub const TASK_ABORT_STOP: i32 = 107_035;
    /// The feature does not exist here.
    pub const FEATURE_NOT_SUPPORT: i32 = 207_000;
    /// Out of device or pinned memory.
    pub const MEMORY_ALLOCATION: i32 = 207_001;
    /// The address was not given by the matching allocation call.
    pub const MEMORY_FREE: i32 = 207_002;
    /// The owner did not allow this process.
    pub const NO_PERMISSION: i32 = 207_006;
    /// Too many events.
    pub const NO_EVENT_RESOURCE: i32 = 207_007;
    /// Too many streams.
    pub const NO_STREAM_RESOURCE: i32 = 207_008;
    /// An event has not completed yet.
    pub const EVENT_NOT_COMPLETE: i32 = 507_006;
    /// A copy touched memory that is not mapped on the device.
    pub const SYS_DMA_ERROR: i32 = 507_013;
    /// The device failed without saying more.
    pub const DEVICE_INTERNAL_ERROR: i32 = 507_000;
    /// The wait for a stream ran out; its work goes on.
    pub const STREAM_SYNC_TIMEOUT: i32 = 507_046;
    /// The wait for an event ran out.
    pub const EVENT_SYNC_TIMEOUT: i32 = 507_047;
    /// The link is down.
    pub const LINK_ERROR: i32 = 507_056;
    /// The peer of a link is gone.
    pub const SUSPECT_REMOTE_ERROR: i32 = 507_057;
    /// The driver refused the copy.
    pub const DRV_INTERNAL_ERROR: i32 = 507_899;
    /// The host range is registered already.
    pub const HOST_MEMORY_ALREADY_REGISTERED: i32 = 507_910;
    /// The host range is not registered.
    pub const HOST_MEMORY_NOT_REGISTERED: i32 = 507_911;
}

/// Numbers answered by `Hccl*` functions.
pub mod hccl {
    /// A parameter is wrong.
    pub const E_PARA: i32 = 1;
    /// A pointer is NULL.
    pub const E_PTR: i32 = 2;
    /// Out of memory.
    pub const E_MEMORY: i32 = 3;
    /// The address lies in no region of the communicator, or the library failed.
    pub const E_INTERNAL: i32 = 4;
    /// The feature or link does not exist.
    pub const E_NOT_SUPPORT: i32 = 5;
    /// No link was prepared, or the object belongs to another device.
    pub const E_NOT_FOUND: i32 = 6;
    /// The service is busy; another process of the server is initialising.
    pub const E_UNAVAIL: i32 = 7;
    /// A system call failed.
    pub const E_SYSCALL: i32 = 8;
    /// The peers did not come together in time.
    pub const E_TIMEOUT: i32 = 9;
    /// The exchange with the peer broke off: it ran out of device memory, for one.
    pub const E_TCP_TRANSFER: i32 = 13;
    /// The runtime below failed.
    pub const E_RUNTIME: i32 = 15;
    /// The NIC refused the memory, or a port is taken.
    pub const E_NETWORK: i32 = 19;

    /// The name of a number.
    pub fn name(code: i32) -> &'static std::ffi::CStr {
        match code {
            0 => c"HCCL_SUCCESS",
            1 => c"HCCL_E_PARA: a parameter is wrong",
            2 => c"HCCL_E_PTR: a pointer is NULL",
            3 => c"HCCL_E_MEMORY: out of memory",
            4 => c"HCCL_E_INTERNAL: internal error",
            5 => c"HCCL_E_NOT_SUPPORT: not supported",
            6 => c"HCCL_E_NOT_FOUND: not found",
            7 => c"HCCL_E_UNAVAIL: unavailable",
            8 => c"HCCL_E_SYSCALL: a system call failed",
            9 => c"HCCL_E_TIMEOUT: timeout",
            10 => c"HCCL_E_OPEN_FILE_FAILURE: cannot open a file",
            11 => c"HCCL_E_TCP_CONNECT: tcp connect failed",
            12 => c"HCCL_E_ROCE_CONNECT: roce connect failed",
            13 => c"HCCL_E_TCP_TRANSFER: tcp transfer failed",
            14 => c"HCCL_E_ROCE_TRANSFER: roce transfer failed",
            15 => c"HCCL_E_RUNTIME: a runtime call failed",
            16 => c"HCCL_E_DRV: a driver call failed",
            17 => c"HCCL_E_PROFILING: profiling failed",
            18 => c"HCCL_E_CCE: cce error",
            19 => c"HCCL_E_NETWORK: network error",
            20 => c"HCCL_E_AGAIN: try again",
            21 => c"HCCL_E_REMOTE: remote error",
            22 => c"HCCL_E_SUSPENDING: suspending",
            23 => c"HCCL_E_OPRETRY_FAIL: operation retry failed",
            24 => c"HCCL_E_OOM: out of device memory",
            1041 => c"HCCL_E_IN_STATUS: in status",
            _ => c"unknown error",
        }
    }
}

/// A failed call: the number that C sees and the sentence that `aclGetRecentErrMsg` answers.
#[derive(Debug, Clone)]
pub struct Fail {
    /// Vendor number, never zero.
    pub code: i32,
    /// What went wrong, with the values.
    pub text: String,
}

impl Fail {
    /// A failure with its explanation.
    pub fn new(code: i32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The same failure under the number of another layer.
    pub fn with_code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }
}

/// What every rule of the simulator answers.
pub type Outcome<T = ()> = Result<T, Fail>;

/// The pending and the handed-out text of one thread.
#[derive(Default)]
struct Pending {
    text: Option<CString>,
    handed_out: Option<CString>,
    code: i32,
}

thread_local! {
    static PENDING: RefCell<Pending> = RefCell::default();
}

/// Keeps the text of a failed call for this thread, and its number if it is one of the runtime's: the numbers of
/// HCCL are none that `aclrtGetLastError` knows.
pub fn remember(function: &str, fail: &Fail) {
    let text = format!("EZ9999: {function} failed with {}: {}", fail.code, fail.text).replace('\0', " ");
    // A thread that is ending has no pending text any more; nobody can ask for it.
    let _ = PENDING.try_with(|pending| {
        if let Ok(mut pending) = pending.try_borrow_mut() {
            pending.text = CString::new(text).ok();
            if !function.starts_with("Hccl") {
                pending.code = fail.code;
            }
        }
    });
}

/// Answers and clears the pending text; the pointer is good until the next call on this thread.
pub fn take_text() -> *const c_char {
    PENDING
        .try_with(|pending| {
            let mut pending = pending.borrow_mut();
            match pending.text.take() {
                None => std::ptr::null(),
                Some(text) => pending.handed_out.insert(text).as_ptr(),
            }
        })
        .unwrap_or(std::ptr::null())
}

/// The last error number of this thread, cleared when `clear`.
pub fn last_code(clear: bool) -> i32 {
    PENDING
        .try_with(|pending| {
            let mut pending = pending.borrow_mut();
            let code = pending.code;
            if clear {
                pending.code = 0;
            }
            code
        })
        .unwrap_or(0)
}

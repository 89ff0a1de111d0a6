//! The C functions. Each one checks its pointers, calls a rule, and answers the rule's number; no rule is here.
//!
//! The macro `export!` wraps every function: a panic becomes the vendor's internal error instead of unwinding into C, and the
//! sentence of a failure is kept for `aclGetRecentErrMsg`.

pub mod callback;
pub mod context;
pub mod cost;
pub mod description;
pub mod device;
pub mod event;
pub mod hccl;
pub mod memory;
pub mod share;
pub mod stream;
pub mod transfer;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::fault;
use crate::status::{self, Fail, Outcome, acl, hccl as hccl_status};

/// Runs the body of an exported function.
pub fn guard(private_name: &'static str, body: impl FnOnce() -> Outcome) -> i32 {
    let name = private_name.strip_prefix("cann_sim_").unwrap_or(private_name);
    let outcome = catch_unwind(AssertUnwindSafe(|| fault::around_call(name, body))).unwrap_or_else(|_| {
        let code = if name.starts_with("Hccl") { hccl_status::E_INTERNAL } else { acl::INTERNAL_ERROR };
        Err(Fail::new(code, "the software NPU failed; this is a defect of cann-sim"))
    });
    match outcome {
        Ok(()) => 0,
        Err(fail) => {
            status::remember(name, &fail);
            fail.code
        }
    }
}

/// Declares exported functions that answer an error number.
macro_rules! export {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {$(
        $(#[$attribute])*
        ///
        /// # Safety
        ///
        /// Pointers must be NULL or good for what the vendor's prototype says of them.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "the private name is the vendor's with a prefix")]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> i32 {
            crate::export::guard(stringify!($name), || $body)
        }
    )*};
}
pub(crate) use export;

/// A place for one value of the caller.
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Refuses NULL with `code`.
    ///
    /// # Safety
    ///
    /// `pointer` is NULL or good for writing one `T`, for as long as the value is used.
    pub unsafe fn new(pointer: *mut T, code: i32) -> Outcome<Self> {
        if pointer.is_null() {
            return Err(Fail::new(code, "an output pointer is NULL"));
        }
        Ok(Self(pointer))
    }

    /// Writes the value.
    pub fn set(&self, value: T) {
        // SAFETY: `new` was promised room for one value; alignment is not relied on.
        unsafe { self.0.write_unaligned(value) };
    }
}

/// An output of an ACL function.
///
/// # Safety
///
/// As [`Out::new`].
pub unsafe fn acl_out<T>(pointer: *mut T) -> Outcome<Out<T>> {
    // SAFETY: passed on unchanged.
    unsafe { Out::new(pointer, acl::INVALID_PARAM) }
}

/// An output of an HCCL function.
///
/// # Safety
///
/// As [`Out::new`].
pub unsafe fn hccl_out<T>(pointer: *mut T) -> Outcome<Out<T>> {
    // SAFETY: passed on unchanged.
    unsafe { Out::new(pointer, hccl_status::E_PTR) }
}

/// Refuses NULL and zero as the ACL layer does.
pub fn acl_require(condition: bool, what: &str) -> Outcome {
    if condition { Ok(()) } else { Err(Fail::new(acl::INVALID_PARAM, what)) }
}

/// An array of the caller as a slice.
///
/// # Safety
///
/// `pointer` is NULL or good for reading `count` values that nobody writes during the call.
pub unsafe fn array<'a, T>(pointer: *const T, count: usize, code: i32) -> Outcome<&'a [T]> {
    if pointer.is_null() {
        return Err(Fail::new(code, "an array is NULL"));
    }
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: the caller promised `count` readable values.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

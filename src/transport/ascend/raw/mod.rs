//! The vendor's functions, callable from safe code.
//!
//! One method per vendor call: it resolves the symbol, makes the call, and turns the status into a
//! [`Result`](crate::error::Result) with the vendor's text fetched on the same thread. There is no policy here.
//! Handles are numbers in newtypes, so that the objects which own them can move between threads.
//!
//! Addresses of user memory are vouched for by whoever registered or submitted them, as the C ABI demands; the
//! vendor's library checks them against its own tables before it touches anything.
//!
//! Invariants: a handle is made, used and destroyed through one [`Runtime`]; a handle is used only by the object
//! that owns it.
#![allow(unsafe_code, reason = "the calls into the vendor's C libraries")]

mod batch;
mod description;
mod hccl;
mod runtime;

use std::ffi::{CStr, c_char};
use std::fmt;
use std::sync::Arc;

use cann_sys::{Cann, LoadOptions};
use parking_lot::Mutex;

use super::result;
use crate::error::{Code, Error, Result, Stage, Vendor};

pub use batch::{BatchCopy, MAX_BATCH_COPIES};
pub use description::{Description, EnabledRegion};
pub use hccl::{Communicator, Descriptor, RegionHandle};
pub use runtime::{Context, CopyKind, Event, PointerKind, Stream, Wait};

/// The loaded vendor libraries; one per process.
pub struct Runtime {
    cann: Cann,
}

static LOADED: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);

impl Runtime {
    /// Opens the vendor's libraries, or hands out what an earlier call opened: they are never closed again, so
    /// the first success decides for the process.
    ///
    /// # Errors
    /// [`Code::LibraryUnavailable`] with every path that was tried.
    pub fn load(options: &LoadOptions) -> Result<Arc<Self>> {
        let mut loaded = LOADED.lock();
        if let Some(runtime) = &*loaded {
            return Ok(Arc::clone(runtime));
        }
        let cann = Cann::load(options).map_err(|error| {
            Error::new(Code::LibraryUnavailable, Stage::Load, error.to_string()).advice(
                "install CANN and source its set_env.sh, or point MOONCAKE_TRANSFER_CANN_PATH at its libraries",
            )
        })?;
        let runtime = Arc::new(Self { cann });
        *loaded = Some(Arc::clone(&runtime));
        Ok(runtime)
    }

    /// The loaded vendor libraries, if an earlier [`load`](Self::load) of this process succeeded.
    #[must_use]
    pub fn loaded() -> Option<Arc<Self>> {
        LOADED.lock().clone()
    }

    /// The function tables and where they came from.
    #[must_use]
    pub fn cann(&self) -> &Cann {
        &self.cann
    }

    /// Makes sure that everything a transfer between two NPUs needs is there.
    ///
    /// # Errors
    /// [`Code::LibraryUnavailable`] with the functions that are missing and the release that has them.
    pub fn require_one_sided(&self) -> Result<()> {
        self.cann.require_all().map_err(|missing| {
            Error::new(Code::LibraryUnavailable, Stage::Load, missing.to_string())
                .advice("install the CANN release that the message names, or a newer one")
        })
    }

    /// Takes the calling thread's pending vendor text; empty when there is none.
    fn take_text(&self) -> String {
        let Some(function) = self.cann.acl.aclGetRecentErrMsg else { return String::new() };
        // SAFETY: the function takes nothing; its result is NULL or a text that is valid until the next call.
        unsafe { text(function()) }
    }

    /// Turns a status into a result.
    fn check(&self, function: &'static str, code: i32, stage: Stage) -> Result<()> {
        if code == 0 { Ok(()) } else { Err(self.failure(function, code, stage)) }
    }

    #[cold]
    fn failure(&self, function: &'static str, code: i32, stage: Stage) -> Error {
        let known = result::lookup(function, code);
        let name = known.map_or("a code this library does not know", |known| known.meaning);
        let error = Error::new(result::code_of(function, code), stage, format!("{function} failed: {name}"))
            .vendor(Vendor { function, code, text: self.take_text(), plog: Some(result::PLOG.to_owned()) });
        error.advice(known.map_or(result::UNKNOWN, |known| known.advice))
    }

    #[cold]
    fn missing(&self, function: &'static str) -> Error {
        Error::new(Code::LibraryUnavailable, Stage::Load, self.cann.missing_symbol(function).to_string())
            .advice("install the CANN release that the message names, or a newer one")
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

/// Copies a C string of the vendor's; empty for NULL.
///
/// # Safety
/// `pointer` is NULL or points to a NUL-terminated text that stays valid during the call.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Calls a vendor function and checks its status; `SAFETY` of the call is argued at each use by the arguments.
macro_rules! vendor {
    ($runtime:expr, $group:ident . $function:ident, $stage:expr, ($($argument:expr),* $(,)?)) => {
        match $runtime.cann.$group.$function {
            Some(function) => {
                // SAFETY: the prototype is the vendor's; pointers among the arguments come from references or
                // from handles the same library made, and addresses of user memory are checked by the library.
                let code = unsafe { function($($argument),*) };
                $runtime.check(stringify!($function), code, $stage)
            }
            None => Err($runtime.missing(stringify!($function))),
        }
    };
}
use vendor;

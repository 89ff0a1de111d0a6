//! Huawei CANN for Rust: types and functions of the ACL runtime and of one-sided HCCL, found at run time.
//!
//! Nothing links against CANN. A program built on a machine without it runs on one with any release from
//! 8.1 on, and finds out there what it has:
//!
//! ```no_run
//! use cann_sys::{Cann, Capability, LoadOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cann = Cann::load(&LoadOptions::default())?; // every path tried, if it is not there
//! cann.require(Capability::Runtime)?; // the functions and the release that has them, if some are missing
//! let set_device = cann.acl.aclrtSetDevice.ok_or_else(|| cann.missing_symbol("aclrtSetDevice"))?;
//! // SAFETY: takes a number, and answers a code for a wrong one.
//! let code = unsafe { set_device(0) };
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! - `include/cann.h`: our own declarations, the one place where a signature stands.
//! - [`bindings`]: what bindgen makes of it, committed, so that building needs no libclang; a test makes
//!   it again and compares. `layout` asserts sizes and offsets against the vendor's numbers.
//! - [`functions`]: the one list of functions: library, capability, release.
//! - [`Cann`]: the loader and the tables it fills, [`Capability`] what they amount to.
//!
//! There is no policy here: no environment variable is read, no call is retried, no code is judged.
//!
//! # Loading
//!
//! A process must have one copy of CANN, since contexts and devices are state of the library. So what the
//! process has loaded already (a framework usually has) comes first, and a path that would bring a second
//! copy is refused and told. Then come the places of [`LoadOptions`]. HCCL is looked for beside the ACL
//! runtime before anywhere else. Libraries are never closed: they have threads, exit handlers and
//! thread-local state, and the functions in the tables must stay valid.
//!
//! # Safety
//!
//! Every function is `unsafe`: pointers and handles are the caller's to keep right. The signatures are the
//! vendor's as published from 8.1 to 9.2; a library that calls itself `libascendcl.so` and exports something
//! else under these names cannot be told apart.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::undocumented_unsafe_blocks,
    reason = "made by bindgen from include/cann.h: the names are the vendor's, the words stand in the header, and \
              the unsafe blocks make zeroed values of structs that have only integers"
)]
#[rustfmt::skip]
pub mod bindings;
mod capability;
mod comm_config;
mod dynamic;
mod error;
pub mod functions;
mod layout;
mod loader;
mod options;
mod release;

pub use bindings::*;
pub use capability::{Capabilities, Capability};
pub use comm_config::CommNameError;
pub use error::{Attempt, AttemptFailure, LoadError, MissingSymbols, Provenance};
pub use functions::{Acl, Hccl, Library, Runtime, Symbol};
pub use loader::{Cann, SymbolReport};
pub use options::{LoadOptions, Place};
pub use release::{Release, Since};

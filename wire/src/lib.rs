//! The store's master RPC on the wire: struct_pack values in coro_rpc frames, in the layouts of upstream releases.
//!
//! ```text
//! bytes of a connection -- frame --> header + body -- profile --> a call of `method`, made of `model` types
//! ```
//!
//! - `frame` cuts requests and responses; `function` names what is called.
//! - `codec` and `message` are the struct_pack subset: a type's literal and hash are worked out at compile time, per
//!   profile, from its members.
//! - `model` is the one internal model and `method` the calls made of it; `profile` gives both the layout of a release.
//!   There is no second set of types: the same struct is written and read in each layout. `lists` writes the answers
//!   that a master gives most without making values of them.
//!
//! No sockets, no policy, no `unsafe`. Nothing a peer sends makes a decoder allocate more than a constant plus a small
//! multiple of the bytes that were received; every length has a limit (`limits`). A type literal in a message is
//! accepted and checked, none is sent. Upstream changes the types in nearly every release, so a mismatch of a hash is
//! the normal sign of another release; `other_releases` says which.

pub mod code;
pub mod codec;
pub mod error;
pub mod frame;
pub mod function;
pub mod limits;
pub mod lists;
pub mod literal;
mod md5;
pub mod message;
pub mod method;
pub mod model;
pub mod other_releases;
pub mod profile;
pub mod rpc_error;

pub use code::{ErrorCode, Outcome};
pub use error::{DecodeError, EncodeError};
pub use function::Function;
pub use method::Method;
pub use profile::Profile;
pub use rpc_error::RpcError;

/// The version that `ServiceReady` answers. It is upstream's, unchanged since 0.3.8: clients compare it as text.
pub const STORE_VERSION: &str = "2.0.0";

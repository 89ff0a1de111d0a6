//! Address ranges, where they lie, and the touching of memory by address.
//!
//! This is the only module of the core with `unsafe`. Addresses are plain `u64` everywhere else: an address
//! of a peer or of a device is a number here, never a pointer. A number of a caller's becomes a pointer that is read
//! or written in [`copy`] alone, under the contract written there. Memory of our own making, which peers of this host
//! can map, is [`shared`].

pub mod copy;
pub(crate) mod huge;
pub(crate) mod io;
mod location;
pub(crate) mod mapping;
pub(crate) mod owner;
pub(crate) mod placement;
pub(crate) mod process;
mod range;
pub(crate) mod sealed;
pub mod shared;
mod stream;

pub use location::{Location, MemoryKind};
pub(crate) use owner::process_id;
pub use placement::Nodes;
pub use range::ByteRange;
pub use sealed::SharedFile;
pub use shared::{HugePages, Pages, SharedMemory, SharedRange};

/// Memory that the host can give to programs now; `None` where the kernel does not say.
pub(crate) fn available_bytes() -> Option<u64> {
    let facts = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = facts.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

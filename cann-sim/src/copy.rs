//! Copies: what an address is, and how its bytes move.
//!
//! Device and pinned memory are reached through their own mappings by a plain memory copy. Memory of the program
//! that the simulator does not know is reached by `process_vm_readv` on this very process:
//! the kernel then answers a wild address with an error, where a plain copy would kill the process. Long copies
//! go in chunks, so that an abort is prompt.

use std::io;
use std::sync::Arc;

use crate::block::{self, Block, Place};
use crate::status::{Fail, Outcome, acl};

/// Bytes between two looks at the stop flag.
pub const CHUNK: usize = 1 << 20;

/// One end of a copy.
#[derive(Debug, Clone)]
pub enum End {
    /// In a block: the reachable address, kept alive by the block.
    Block {
        /// Reachable address.
        address: usize,
        /// The allocation.
        block: Arc<Block>,
    },
    /// Ordinary memory of the program.
    Plain {
        /// The user's address.
        address: usize,
    },
}

impl End {
    /// Looks up `length` bytes from `address`. A range that starts in a block and leaves it is refused.
    pub fn locate(address: usize, length: usize) -> Outcome<Self> {
        match block::find(address) {
            None => Ok(Self::Plain { address }),
            Some(block) => match block.reach(address, length) {
                Some(reached) => Ok(Self::Block { address: reached, block }),
                None => Err(Fail::new(
                    acl::PARAM_INVALID,
                    format!(
                        "{length} bytes from {address:#x} leave the allocation at {:#x} of {} bytes",
                        block.start, block.length
                    ),
                )),
            },
        }
    }

    /// The user id of the device, for device memory.
    pub fn device(&self) -> Option<u32> {
        match self {
            Self::Block { block, .. } => match block.place {
                Place::Device(user_id) => Some(user_id),
                Place::Host => None,
            },
            Self::Plain { .. } => None,
        }
    }

    /// The allocation, if the runtime knows the memory.
    pub fn block(&self) -> Option<&Block> {
        match self {
            Self::Block { block, .. } => Some(block),
            Self::Plain { .. } => None,
        }
    }

    /// Whether the runtime knows the memory (device, pinned or registered host).
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Block { .. })
    }
}

/// Why a copy ended before its last byte.
#[derive(Debug)]
pub enum Interrupted {
    /// Somebody asked it to stop.
    Stopped,
    /// The kernel refused an address.
    Refused(io::Error),
}

/// Copies `length` bytes; `stop` is asked between chunks.
pub fn transfer(
    target: &End,
    source: &End,
    length: usize,
    stop: &dyn Fn() -> bool,
) -> Result<(), Interrupted> {
    match (target, source) {
        (End::Block { address: target, .. }, End::Block { address: source, .. }) => {
            move_mapped(*target, *source, length, stop)
        }
        // The kernel checks both sides: the remote one as such, the local one as its own copy target.
        (
            End::Plain { address: target } | End::Block { address: target, .. },
            End::Plain { address: source } | End::Block { address: source, .. },
        ) => move_checked(*target, *source, length, stop),
    }
}

/// Copies between two ranges that are mapped here for as long as the caller holds their owners.
pub fn move_mapped(
    target: usize,
    source: usize,
    length: usize,
    stop: &dyn Fn() -> bool,
) -> Result<(), Interrupted> {
    let mut done = 0;
    while done < length {
        if stop() {
            return Err(Interrupted::Stopped);
        }
        let step = CHUNK.min(length - done);
        // SAFETY: both ranges lie in live mappings (checked against their blocks or regions, which the caller
        // keeps); `copy` allows them to overlap. Other devices may race on the bytes, as on hardware; they are
        // plain bytes without invariants.
        unsafe { std::ptr::copy((source + done) as *const u8, (target + done) as *mut u8, step) };
        done += step;
    }
    Ok(())
}

/// Copies inside this process where either side may be a wild address.
pub fn move_checked(
    target: usize,
    source: usize,
    length: usize,
    stop: &dyn Fn() -> bool,
) -> Result<(), Interrupted> {
    // Always a read: memory checkers then see the target as written.
    move_foreign(own_pid(), target, source, length, Direction::Read, stop)
}

/// Direction of a copy between this process and memory that only the kernel can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the other memory into ours.
    Read,
    /// From ours into the other memory.
    Write,
}

/// Copies between `local`, mapped here, and `remote` in the process `pid` (which may be this one).
pub fn move_foreign(
    pid: libc::pid_t,
    local: usize,
    remote: usize,
    length: usize,
    direction: Direction,
    stop: &dyn Fn() -> bool,
) -> Result<(), Interrupted> {
    let mut done = 0;
    while done < length {
        if stop() {
            return Err(Interrupted::Stopped);
        }
        let step = CHUNK.min(length - done);
        let local_vector = libc::iovec { iov_base: (local + done) as *mut libc::c_void, iov_len: step };
        let remote_vector =
            libc::iovec { iov_base: remote.wrapping_add(done) as *mut libc::c_void, iov_len: step };
        // SAFETY: the vectors are valid for the call; the kernel itself checks every address they name.
        let moved = unsafe {
            match direction {
                Direction::Read => {
                    libc::process_vm_readv(pid, &raw const local_vector, 1, &raw const remote_vector, 1, 0)
                }
                Direction::Write => {
                    libc::process_vm_writev(pid, &raw const local_vector, 1, &raw const remote_vector, 1, 0)
                }
            }
        };
        match usize::try_from(moved) {
            Ok(0) => return Err(Interrupted::Refused(io::Error::from_raw_os_error(libc::EFAULT))),
            Ok(bytes) => done += bytes,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(Interrupted::Refused(error));
                }
            }
        }
    }
    Ok(())
}

/// Fills `length` bytes of a block.
pub fn fill(target: &End, value: u8, length: usize) -> Outcome {
    match target {
        End::Block { address, .. } => {
            // SAFETY: the range lies in the block, whose mapping lives as long as `target`.
            unsafe { std::ptr::write_bytes(*address as *mut u8, value, length) };
            Ok(())
        }
        End::Plain { address } => {
            let chunk = vec![value; CHUNK.min(length)];
            let mut done = 0;
            while done < length {
                let step = chunk.len().min(length - done);
                let local = chunk.as_ptr() as usize;
                move_checked(address.wrapping_add(done), local, step, &|| false)
                    .map_err(|reason| refused(&reason, *address, length))?;
                done += step;
            }
            Ok(())
        }
    }
}

/// A synchronous copy with the errors of `aclrtMemcpy`.
pub fn copy_now(
    target: &End,
    source: &End,
    length: usize,
    target_address: usize,
    source_address: usize,
) -> Outcome {
    transfer(target, source, length, &|| false).map_err(|reason| {
        let mut fail = refused(&reason, target_address, length);
        fail.text = format!("{} (source {source_address:#x})", fail.text);
        fail
    })
}

fn refused(reason: &Interrupted, address: usize, length: usize) -> Fail {
    let why = match reason {
        Interrupted::Stopped => "stopped".to_owned(),
        Interrupted::Refused(error) => error.to_string(),
    };
    Fail::new(
        acl::DRV_INTERNAL_ERROR,
        format!("the driver cannot copy {length} bytes to {address:#x}: {why}"),
    )
}

/// This process; asked each time because the answer changes after a fork.
pub fn own_pid() -> libc::pid_t {
    // SAFETY: getpid has no preconditions and cannot fail.
    unsafe { libc::getpid() }
}

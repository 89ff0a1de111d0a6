//! The limit of the same-host route: bare calls of the kernel's copy, with as many threads as call.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::contender::Contender;
use super::{Cell, Measured, drive_here};
use crate::host::BUFFER_BYTES;

/// Blocks of one call.
const BLOCKS: usize = 128;

/// A loop of bare calls.
pub struct Kernel {
    target: Pid,
    remote: u64,
    /// One buffer for each calling thread, so that none needs another's.
    buffers: Vec<Mutex<Vec<u8>>>,
}

impl Kernel {
    /// To the buffer at `remote` of process `target`.
    ///
    /// # Errors
    /// When the number is none.
    pub fn new(target: u32, remote: u64, threads: u64) -> Result<Self> {
        // A cell's threads share the buffer; a single one has all of it.
        let whole = usize::try_from(BUFFER_BYTES)?;
        let part = whole / usize::try_from(threads.max(1))?;
        let buffers =
            (0..threads).map(|thread| Mutex::new(vec![1; if thread == 0 { whole } else { part }])).collect();
        Ok(Self { target: Pid::from_raw(i32::try_from(target)?), remote, buffers })
    }

    fn call(&self, cell: &Cell, thread: u64, number: u64) -> Option<()> {
        let mut buffer = self.buffers.get(usize::try_from(thread).ok()?)?.lock().ok()?;
        let block_bytes = usize::try_from(cell.block_bytes).ok()?;
        let remotes: Vec<RemoteIoVec> = cell
            .blocks(thread, number)
            .map(|(_, there)| RemoteIoVec {
                base: usize::try_from(self.remote + there).unwrap_or(0),
                len: block_bytes,
            })
            .collect();
        let room = buffer.len() / block_bytes;
        let first = usize::try_from(number).ok()?.wrapping_mul(remotes.len())
            % room.checked_sub(remotes.len() - 1)?;
        let start = first * block_bytes;
        let all = buffer.get_mut(start..start + block_bytes * remotes.len())?;
        for (mine, theirs) in all.chunks_mut(block_bytes * BLOCKS).zip(remotes.chunks(BLOCKS)) {
            let wanted = mine.len();
            let moved = if cell.write {
                let local: Vec<IoSlice<'_>> = mine.chunks(block_bytes).map(IoSlice::new).collect();
                process_vm_writev(self.target, &local, theirs).ok()?
            } else {
                let mut local: Vec<IoSliceMut<'_>> =
                    mine.chunks_mut(block_bytes).map(IoSliceMut::new).collect();
                process_vm_readv(self.target, &mut local, theirs).ok()?
            };
            if moved != wanted {
                return None;
            }
        }
        Some(())
    }
}

impl Contender for Kernel {
    fn name(&self) -> &'static str {
        "process_vm"
    }

    fn run(&mut self, cell: &Cell, limit: Duration) -> Result<Measured> {
        drive_here(cell, limit, |thread, number| self.call(cell, thread, number))
            .context("a bare call failed")
    }
}

//! The limit of the route by mapped memory: plain copies into and out of it, by as many threads as call.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mooncake::memory::{HugePages, SharedMemory};

use super::contender::Contender;
use super::{Cell, Measured, drive_here};
use crate::host::BUFFER_BYTES;

/// A loop of plain copies.
pub struct Mapped {
    memory: SharedMemory,
    /// One buffer for each calling thread, so that none needs another's.
    buffers: Vec<Mutex<Vec<u8>>>,
}

impl Mapped {
    /// With memory of its own.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(threads: u64) -> Result<Self> {
        let memory = SharedMemory::allocate(BUFFER_BYTES, HugePages::No)?;
        let whole = usize::try_from(BUFFER_BYTES)?;
        memory.write(0, &vec![1; whole])?;
        // A cell's threads share the buffer; a single one has all of it.
        let part = whole / usize::try_from(threads.max(1))?;
        let buffers =
            (0..threads).map(|thread| Mutex::new(vec![1; if thread == 0 { whole } else { part }])).collect();
        Ok(Self { memory, buffers })
    }

    fn call(&self, cell: &Cell, thread: u64, number: u64) -> Option<()> {
        let mut buffer = self.buffers.get(usize::try_from(thread).ok()?)?.lock().ok()?;
        let block_bytes = usize::try_from(cell.block_bytes).ok()?;
        let call_bytes = usize::try_from(cell.call_bytes()).ok()?;
        let slots = (buffer.len() / call_bytes).max(1);
        let start = usize::try_from(number).ok()? % slots * call_bytes;
        let mine = buffer.get_mut(start..start.checked_add(call_bytes)?)?;
        for (block, (_, there)) in mine.chunks_mut(block_bytes).zip(cell.blocks(thread, number)) {
            if cell.write {
                self.memory.write(there, block).ok()?;
            } else {
                self.memory.read(there, block).ok()?;
            }
        }
        Some(())
    }
}

impl Contender for Mapped {
    fn name(&self) -> &'static str {
        "memcpy"
    }

    fn run(&mut self, cell: &Cell, limit: Duration) -> Result<Measured> {
        drive_here(cell, limit, |thread, number| self.call(cell, thread, number))
            .context("a plain copy failed")
    }
}

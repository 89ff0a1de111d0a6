//! Blocks: the allocations this process can name, found by address.
//!
//! Every address that C passes is looked up here, once: it lies in device memory, in pinned or registered host
//! memory, or nowhere (then it is ordinary memory of the program). The map is the only truth about what an address
//! is; nothing is guessed from its value.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::arena::Arena;

/// Where a block's memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Memory of the NPU with this user id.
    Device(u32),
    /// Page-locked host memory.
    Host,
}

/// Which call made a block, and so which call ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// An allocation call.
    Heap,
    /// The program: its own memory, registered with the runtime.
    Program,
    /// Another process, which exported it under a key.
    Foreign {
        /// The device that holds the memory.
        physical_id: u32,
        /// The import itself gave the importing device access to it.
        is_granted: bool,
    },
    /// A mapping of a physical handle into reserved addresses.
    Mapped,
}

/// One allocation.
#[derive(Debug)]
pub struct Block {
    /// First address the user sees.
    pub start: usize,
    /// Bytes that are really there (the request rounded up to whole pages or grains).
    pub length: usize,
    /// Bytes that can be registered: those asked for, to the end of their last page. That the padding, which can
    /// take a page of its own, does not count, and that the rest of the last page does, is inferred from memory
    /// being shared by whole pages (facts 1.6, sharing).
    pub size: usize,
    /// Where.
    pub place: Place,
    /// 4096 or 2 MiB.
    pub page_size: usize,
    /// First address through which the bytes can be reached.
    pub alias: usize,
    /// Offset in the arena.
    pub offset: usize,
    /// The memory itself; None for host memory of the program that was registered.
    pub arena: Option<Arc<Arena>>,
    /// Who made it.
    pub owner: Owner,
}

impl Block {
    /// The reachable address of the user's `address`, when `length` bytes from it lie inside this block.
    pub fn reach(&self, address: usize, length: usize) -> Option<usize> {
        let offset = address.checked_sub(self.start)?;
        (offset.checked_add(length)? <= self.length).then(|| self.alias + offset)
    }

    /// The same for memory that is registered: it must lie inside the pages of what was asked for (facts
    /// 2.4 point 4).
    pub fn reach_allocated(&self, address: usize, length: usize) -> Option<usize> {
        let offset = address.checked_sub(self.start)?;
        (offset.checked_add(length)? <= self.size).then(|| self.alias + offset)
    }
}

static BLOCKS: RwLock<BTreeMap<usize, Arc<Block>>> = RwLock::new(BTreeMap::new());

/// Makes a block known.
pub fn insert(block: Block) -> Arc<Block> {
    let block = Arc::new(block);
    BLOCKS.write().insert(block.start, Arc::clone(&block));
    block
}

/// The block that holds `address`.
pub fn find(address: usize) -> Option<Arc<Block>> {
    let blocks = BLOCKS.read();
    let (_, block) = blocks.range(..=address).next_back()?;
    (address - block.start < block.length).then(|| Arc::clone(block))
}

/// Whether any block overlaps the range.
pub fn overlaps(address: usize, length: usize) -> bool {
    let end = address.saturating_add(length);
    BLOCKS.read().range(..end).next_back().is_some_and(|(_, block)| block.start + block.length > address)
}

/// Removes the block that starts at `address` and satisfies `accept`.
pub fn remove(address: usize, accept: impl Fn(&Block) -> bool) -> Option<Arc<Block>> {
    let mut blocks = BLOCKS.write();
    if blocks.get(&address).is_some_and(|block| accept(block)) { blocks.remove(&address) } else { None }
}

//! Device and pinned host memory of this process: arenas, rounding rules and the account against the HBM size, which
//! all processes on an NPU share (module `board`).
//!
//! Rules (facts 1.6): the size is rounded up to 32 and, except for Align32 calls, 32 more; blocks above 1 MiB and
//! HUGE_ONLY ones take 2 MiB pages and start on a multiple of 2 MiB, the others take 4 KiB pages and are aligned
//! to 512 bytes here (64 is promised). Memory is not zeroed by promise. Arenas bound the number of open files: one
//! memfd carries many blocks.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::arena::{Arena, HUGE_PAGE};
use crate::block::{self, Block, Owner, Place};
use crate::board::{self, Npu};
use crate::fault;
use crate::span::FreeRanges;
use crate::status::{Fail, Outcome, acl};

/// Length of an arena of huge pages unless one block needs more.
const HUGE_ARENA: usize = 4 << 30;
/// Length of an arena of small pages unless one block needs more.
const NORMAL_ARENA: usize = 256 << 20;
/// Length of an arena of pinned host memory unless one block needs more.
const HOST_ARENA: usize = 256 << 20;
/// Alignment and granularity of blocks on small pages.
const NORMAL_GRAIN: usize = 512;
/// Alignment and granularity of pinned host memory.
const HOST_GRAIN: usize = 64;
/// The small page of the device.
const SMALL_PAGE: usize = 4096;

/// Arenas of one kind.
struct Pool {
    grain: usize,
    arena_length: usize,
    make: fn(usize) -> std::io::Result<Arena>,
    arenas: Vec<(Arc<Arena>, FreeRanges)>,
}

impl Pool {
    const fn new(grain: usize, arena_length: usize, make: fn(usize) -> std::io::Result<Arena>) -> Self {
        Self { grain, arena_length, make, arenas: Vec::new() }
    }

    /// Takes `size` bytes (a multiple of the grain).
    fn take(&mut self, size: usize) -> std::io::Result<(Arc<Arena>, usize)> {
        for (arena, free) in &mut self.arenas {
            if let Some(offset) = free.take(size, self.grain) {
                return Ok((Arc::clone(arena), offset));
            }
        }
        // A block on small pages must not start on a huge page by the accident of being the first of its arena:
        // the rule that HCCS wants huge pages would then go untested. So the first grain stays unused.
        let lead = if self.grain == NORMAL_GRAIN { self.grain } else { 0 };
        let length = (size + lead).max(self.arena_length).next_multiple_of(HUGE_PAGE);
        let arena = Arc::new((self.make)(length)?);
        let mut free = FreeRanges::new(length);
        if lead > 0 {
            free.take(lead, self.grain);
        }
        let offset = free.take(size, self.grain).ok_or(std::io::ErrorKind::OutOfMemory)?;
        self.arenas.push((Arc::clone(&arena), free));
        Ok((arena, offset))
    }

    fn give_back(&mut self, arena: &Arc<Arena>, offset: usize, size: usize) {
        if let Some(index) = self.arenas.iter().position(|(candidate, _)| Arc::ptr_eq(candidate, arena)) {
            if let Some((arena, free)) = self.arenas.get_mut(index) {
                free.give_back(offset, size);
                if free.is_whole() && arena.length() > self.arena_length.next_multiple_of(HUGE_PAGE) {
                    self.arenas.swap_remove(index);
                    return;
                }
            }
            arena.discard(offset, size);
        }
    }
}

/// What a device holds for this process.
struct DeviceState {
    used_bytes: usize,
    huge: Pool,
    normal: Pool,
}

/// The memory of one NPU for this process.
pub struct DeviceHeap {
    user_id: u32,
    npu: Npu,
    size_bytes: usize,
    state: Mutex<DeviceState>,
}

impl DeviceHeap {
    /// An empty heap of an NPU with `size_bytes`, which other processes use too.
    pub fn new(user_id: u32, npu: Npu, size_bytes: usize) -> Self {
        Self {
            user_id,
            npu,
            size_bytes,
            state: Mutex::new(DeviceState {
                used_bytes: 0,
                huge: Pool::new(HUGE_PAGE, HUGE_ARENA.min(size_bytes), Arena::device),
                normal: Pool::new(NORMAL_GRAIN, NORMAL_ARENA.min(size_bytes), Arena::device),
            }),
        }
    }

    /// Allocates `size` bytes by `policy` (facts 1.4) and answers the user's address. `pad` adds the 32 bytes.
    pub fn allocate(&self, user_id: u32, size: usize, policy: i32, pad: bool) -> Outcome<usize> {
        let refused = || {
            Fail::new(
                acl::MEMORY_ALLOCATION,
                format!(
                    "out of device memory: {size} bytes asked of device {user_id}, which has {}",
                    self.size_bytes
                ),
            )
        };
        let rounded = size.checked_next_multiple_of(32).ok_or_else(refused)?;
        // Pages of 1 GiB are not padded (facts 1.6).
        let pad = pad && !matches!(policy & 0xff, 6 | 7);
        let rounded = if pad { rounded.checked_add(32) } else { Some(rounded) }.ok_or_else(refused)?;
        // The band-width and read-only bits above the low byte do not choose the page.
        let huge = match policy & 0xff {
            0 | 3 => size > 1 << 20,
            1 | 4 | 6 | 7 => true,
            2 | 5 => false,
            _ => {
                return Err(Fail::new(
                    acl::PARAM_INVALID,
                    format!("{policy:#x} is not an allocation policy"),
                ));
            }
        };
        let (page_size, grain) = if huge { (HUGE_PAGE, HUGE_PAGE) } else { (SMALL_PAGE, NORMAL_GRAIN) };
        let length = rounded.checked_next_multiple_of(grain).ok_or_else(refused)?;
        let mut state = self.state.lock();
        if !self.admit(&mut state, length) {
            return Err(refused());
        }
        let pool = if huge { &mut state.huge } else { &mut state.normal };
        let (arena, offset) = match pool.take(length) {
            Ok(place) => place,
            Err(error) => {
                self.dismiss(&mut state, length);
                return Err(Fail::new(
                    acl::MEMORY_ALLOCATION,
                    format!("the host cannot back {length} bytes of device memory: {error}"),
                ));
            }
        };
        drop(state);
        let block = block::insert(Block {
            start: arena.user_base() + offset,
            length,
            size: size.next_multiple_of(page_size).min(length),
            place: Place::Device(user_id),
            page_size,
            alias: arena.alias_base() + offset,
            offset,
            arena: Some(arena),
            owner: Owner::Heap,
        });
        Ok(block.start)
    }

    /// Frees what a removed block held.
    pub fn release(&self, block: &Block) {
        let Some(arena) = &block.arena else { return };
        let mut state = self.state.lock();
        self.dismiss(&mut state, block.length);
        let pool = if block.page_size == HUGE_PAGE { &mut state.huge } else { &mut state.normal };
        pool.give_back(arena, block.offset, block.length);
    }

    /// Charges memory that holds no bytes (a link's buffers); false when there is not enough.
    pub fn charge(&self, bytes: usize) -> bool {
        self.admit(&mut self.state.lock(), bytes)
    }

    /// Gives a charge back.
    pub fn discharge(&self, bytes: usize) {
        self.dismiss(&mut self.state.lock(), bytes);
    }

    /// Free and total bytes of the NPU, with what other processes hold.
    pub fn memory_info(&self) -> (usize, usize) {
        let own = self.state.lock().used_bytes;
        let used = board::used_bytes(self.npu).map_or(own, |all| usize::try_from(all).unwrap_or(usize::MAX));
        (self.limit().saturating_sub(used), self.size_bytes)
    }

    /// Bytes that can be given, all processes together.
    fn limit(&self) -> usize {
        self.size_bytes.saturating_sub(fault::taken_bytes(self.user_id))
    }

    /// Accounts for `bytes` more if the NPU has them.
    fn admit(&self, state: &mut DeviceState, bytes: usize) -> bool {
        let limit = self.limit();
        let word = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        if bytes > limit.saturating_sub(state.used_bytes)
            || board::charge(self.npu, word(bytes), word(limit)) == Some(false)
        {
            return false;
        }
        state.used_bytes += bytes;
        true
    }

    /// Undoes `admit`.
    fn dismiss(&self, state: &mut DeviceState, bytes: usize) {
        state.used_bytes = state.used_bytes.saturating_sub(bytes);
        board::discharge(self.npu, u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

static HOST: Mutex<Pool> = Mutex::new(Pool::new(HOST_GRAIN, HOST_ARENA, Arena::host));

/// Allocates pinned host memory and answers its address.
pub fn allocate_host(size: usize) -> Outcome<usize> {
    let refused = |error: std::io::Error| {
        Fail::new(acl::MEMORY_ALLOCATION, format!("cannot pin {size} bytes: {error}"))
    };
    let length = size
        .checked_next_multiple_of(HOST_GRAIN)
        .filter(|length| *length <= 1 << 46)
        .ok_or_else(|| refused(std::io::ErrorKind::OutOfMemory.into()))?;
    let (arena, offset) = HOST.lock().take(length).map_err(refused)?;
    let start = arena.user_base() + offset;
    block::insert(Block {
        start,
        length,
        size: length,
        place: Place::Host,
        page_size: SMALL_PAGE,
        alias: start,
        offset,
        arena: Some(arena),
        owner: Owner::Heap,
    });
    Ok(start)
}

/// Frees what a removed block of pinned host memory held.
pub fn release_host(block: &Block) {
    if let Some(arena) = &block.arena {
        HOST.lock().give_back(arena, block.offset, block.length);
    }
}

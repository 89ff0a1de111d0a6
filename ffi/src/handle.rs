//! Handles: tickets that C code holds in place of pointers.
//!
//! A handle is `generation << 32 | slot << 8 | tag`: never NULL, and odd, so that no aligned pointer passes
//! for one. It is looked up, never followed, so that a NULL, closed, foreign or stale one is an error. A slot
//! that is used again has the next generation.
//!
//! Fork: a child has the tickets of its parent but not the threads behind them, so they are dead there. The
//! table's lock is taken around the fork, which is why it is the standard one: its guard can be kept by the
//! forking thread and dropped on both sides, and it has no table of waiting threads that the fork could tear.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock, RwLockWriteGuard};

use mooncake::error::{Code, Error, Result, Stage};

use crate::boundary::invalid;
use crate::engine::EngineEntry;
use crate::store::StoreEntry;

const _: () = assert!(size_of::<*mut c_void>() == 8, "a handle needs 64 bits");

/// What a handle stands for; part of its value, odd so that handles are odd.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// A `transfer_engine_t`.
    Engine = 0x35,
    /// A `transport_t`.
    Transport = 0x3b,
    /// A `mooncake_store_t`.
    Store = 0x47,
}

/// Most handles alive at a time; an engine has threads and sockets, so more is a leak.
const MAX_SLOTS: usize = 1 << 16;

/// The engines of this process.
pub(crate) static ENGINES: Table<EngineEntry> = Table::new(Tag::Engine);

/// The stores of this process.
pub(crate) static STORES: Table<StoreEntry> = Table::new(Tag::Store);

/// How many forks lie between the first process that loaded the library and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The locks on both tables, held by the forking thread from before the fork until after it.
    static HELD: RefCell<Option<HeldLocks>> = const { RefCell::new(None) };
}

/// A table's lock, held.
type HeldLock<T> = RwLockWriteGuard<'static, Vec<Slot<T>>>;

/// The locks on the engines and the stores, taken in that order.
type HeldLocks = (HeldLock<EngineEntry>, HeldLock<StoreEntry>);

/// A place of the table.
struct Slot<T> {
    generation: u32,
    forks: u32,
    entry: Option<Arc<T>>,
}

/// Everything of one kind that C code holds a handle of.
pub(crate) struct Table<T> {
    tag: Tag,
    slots: RwLock<Vec<Slot<T>>>,
}

impl<T> Table<T> {
    const fn new(tag: Tag) -> Self {
        Self { tag, slots: RwLock::new(Vec::new()) }
    }

    /// Gives `entry` a handle.
    pub(crate) fn insert(&self, entry: Arc<T>) -> Result<*mut c_void> {
        watch_forks();
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let forks = FORKS.load(Ordering::Relaxed);
        // A slot whose generations are used up stays empty for ever.
        let free = slots.iter().position(|slot| slot.entry.is_none() && slot.generation < u32::MAX);
        let number = match free {
            Some(number) => number,
            None if slots.len() < MAX_SLOTS => {
                slots.push(Slot { generation: 0, forks, entry: None });
                slots.len().saturating_sub(1)
            }
            None => {
                let message = format!("{MAX_SLOTS} handles are alive already");
                return Err(Error::new(Code::TooManyRequests, Stage::Configure, message));
            }
        };
        let slot = slots
            .get_mut(number)
            .ok_or_else(|| Error::new(Code::Internal, Stage::Configure, "the handle table lost a slot"))?;
        slot.generation = slot.generation.saturating_add(1);
        slot.forks = forks;
        slot.entry = Some(entry);
        Ok(encode(self.tag, slot.generation, number))
    }

    /// What the handle stands for.
    pub(crate) fn get(&self, handle: *mut c_void) -> Result<Arc<T>> {
        let (generation, number) = decode(self.tag, handle)?;
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(number).ok_or_else(|| foreign(handle))?;
        slot.check(generation, handle)?;
        slot.entry.clone().ok_or_else(|| closed(handle))
    }

    /// Makes the handle dead and returns what it stood for.
    pub(crate) fn remove(&self, handle: *mut c_void) -> Result<Arc<T>> {
        let (generation, number) = decode(self.tag, handle)?;
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get_mut(number).ok_or_else(|| foreign(handle))?;
        slot.check(generation, handle)?;
        slot.entry.take().ok_or_else(|| closed(handle))
    }
}

impl<T> Slot<T> {
    fn check(&self, generation: u32, handle: *mut c_void) -> Result<()> {
        if generation > self.generation || generation == 0 {
            return Err(foreign(handle));
        }
        if generation < self.generation || self.entry.is_none() {
            return Err(closed(handle));
        }
        if self.forks != FORKS.load(Ordering::Relaxed) {
            let message = format!("handle {handle:p} was made before this process was forked");
            return Err(Error::new(Code::StaleHandle, Stage::Configure, message)
                .advice("make a new one in the child process"));
        }
        Ok(())
    }
}

/// The handle with the parts given; also used for transports, which need no table.
pub(crate) fn encode(tag: Tag, generation: u32, number: usize) -> *mut c_void {
    let number = u64::try_from(number).unwrap_or(u64::MAX) & 0x00ff_ffff;
    let value = u64::from(generation) << 32 | number << 8 | u64::from(tag as u8);
    std::ptr::without_provenance_mut(usize::try_from(value).unwrap_or(usize::MAX))
}

/// The handle of a transport: the engine's own with the other tag and the transport's number in the high bits
/// of the slot.
pub(crate) fn encode_transport(engine: *mut c_void, kind: u8) -> Result<*mut c_void> {
    let (generation, number) = decode(Tag::Engine, engine)?;
    Ok(encode(Tag::Transport, generation, number | usize::from(kind) << 16))
}

fn decode(tag: Tag, handle: *mut c_void) -> Result<(u32, usize)> {
    if handle.is_null() {
        return Err(invalid(Stage::Configure, "the handle is NULL"));
    }
    let value = u64::try_from(handle.addr()).unwrap_or(0);
    if value & 0xff != u64::from(tag as u8) {
        return Err(foreign(handle));
    }
    let generation = u32::try_from(value >> 32).map_err(|_| foreign(handle))?;
    let number = usize::try_from(value >> 8 & 0x00ff_ffff).map_err(|_| foreign(handle))?;
    Ok((generation, number))
}

fn foreign(handle: *mut c_void) -> Error {
    invalid(Stage::Configure, format!("{handle:p} is not a handle that this library made"))
}

fn closed(handle: *mut c_void) -> Error {
    Error::new(Code::StaleHandle, Stage::Configure, format!("handle {handle:p} is closed"))
}

/// Asks the C library, once, to tell of forks.
fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the three functions live as long as the process and do not unwind.
        let code = unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
        if code != 0 {
            log::warn!("pthread_atfork returned {code}: handles of a parent are not recognised after a fork");
        }
    });
}

extern "C" fn before_fork() {
    let engines = ENGINES.slots.write().unwrap_or_else(PoisonError::into_inner);
    let stores = STORES.slots.write().unwrap_or_else(PoisonError::into_inner);
    // A thread that is ending has no thread-local values any more: then the locks are not held across the fork.
    let _kept = HELD.try_with(|held| held.replace(Some((engines, stores))));
}

extern "C" fn after_fork() {
    let _dropped = HELD.try_with(RefCell::take);
}

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    after_fork();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<Arc<u32>>) -> Code {
        result.unwrap_err().code()
    }

    #[test]
    fn a_handle_is_odd_and_leads_back() {
        let table = Table::new(Tag::Engine);
        let handle = table.insert(Arc::new(7_u32)).unwrap();
        assert_eq!(handle.addr() & 1, 1);
        assert_eq!(*table.get(handle).unwrap(), 7);
    }

    #[test]
    fn null_foreign_and_closed_handles_are_told_apart() {
        let table = Table::new(Tag::Engine);
        let handle = table.insert(Arc::new(7_u32)).unwrap();
        assert_eq!(code(table.get(std::ptr::null_mut())), Code::InvalidArgument);
        let local = 5_u64;
        assert_eq!(code(table.get((&raw const local).cast_mut().cast())), Code::InvalidArgument);
        assert_eq!(code(table.get(encode(Tag::Transport, 1, 0))), Code::InvalidArgument);
        assert_eq!(code(table.get(encode(Tag::Engine, 1, 9))), Code::InvalidArgument);
        assert_eq!(code(table.get(encode(Tag::Engine, 2, 0))), Code::InvalidArgument);
        assert_eq!(*table.remove(handle).unwrap(), 7);
        assert_eq!(code(table.get(handle)), Code::StaleHandle);
        assert_eq!(code(table.remove(handle)), Code::StaleHandle);
    }

    #[test]
    fn a_slot_used_again_does_not_revive_the_old_handle() {
        let table = Table::new(Tag::Engine);
        let first = table.insert(Arc::new(1_u32)).unwrap();
        table.remove(first).unwrap();
        let second = table.insert(Arc::new(2_u32)).unwrap();
        assert_ne!(first, second);
        assert_eq!(code(table.get(first)), Code::StaleHandle);
        assert_eq!(*table.get(second).unwrap(), 2);
    }

    #[test]
    fn many_handles_at_once() {
        let table = Table::new(Tag::Engine);
        let handles: Vec<_> = (0..1000_u32).map(|number| table.insert(Arc::new(number)).unwrap()).collect();
        for (number, handle) in (0..1000_u32).zip(handles) {
            assert_eq!(*table.get(handle).unwrap(), number);
        }
    }

    #[test]
    fn transports_of_two_engines_differ() {
        let table = Table::new(Tag::Engine);
        let first = table.insert(Arc::new(1_u32)).unwrap();
        let second = table.insert(Arc::new(2_u32)).unwrap();
        let transport = encode_transport(first, 1).unwrap();
        assert_eq!(transport, encode_transport(first, 1).unwrap());
        assert_ne!(transport, encode_transport(second, 1).unwrap());
        assert_ne!(transport, encode_transport(first, 2).unwrap());
        assert_eq!(code(table.get(transport)), Code::InvalidArgument);
    }
}

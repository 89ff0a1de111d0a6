//! Opaque handles: numbers that C holds as `void *`, each used once, so that a stale or foreign one is an error
//! and never reaches another object.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

/// The live objects of one type, by handle.
pub struct Handles<T> {
    next: AtomicUsize,
    live: LazyLock<RwLock<HashMap<usize, Arc<T>>>>,
}

impl<T> Handles<T> {
    /// An empty table; `tag` keeps the handles of different types apart.
    pub const fn new(tag: usize) -> Self {
        Self { next: AtomicUsize::new(tag << 40), live: LazyLock::new(RwLock::default) }
    }

    /// A new handle.
    pub fn reserve(&self) -> usize {
        self.next.fetch_add(16, Ordering::Relaxed) + 16
    }

    /// Makes the object reachable.
    pub fn insert(&self, handle: usize, object: Arc<T>) {
        self.live.write().insert(handle, object);
    }

    /// The object, while it is live.
    pub fn get(&self, handle: usize) -> Option<Arc<T>> {
        self.live.read().get(&handle).cloned()
    }

    /// Ends the handle.
    pub fn remove(&self, handle: usize) -> Option<Arc<T>> {
        self.live.write().remove(&handle)
    }

    /// Ends the handle when `accept` says so, under the table's lock.
    pub fn remove_if<E>(
        &self,
        handle: usize,
        accept: impl FnOnce(&T) -> Result<(), E>,
    ) -> Option<Result<Arc<T>, E>> {
        let mut live = self.live.write();
        let verdict = accept(live.get(&handle)?);
        match verdict {
            Err(refusal) => Some(Err(refusal)),
            Ok(()) => live.remove(&handle).map(Ok),
        }
    }

    /// All live objects.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.live.read().values().cloned().collect()
    }
}

/// A handle as C sees it.
pub fn to_pointer(handle: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(handle)
}

//! The engines of this process, by incarnation.
//!
//! "Same process" is a fact here and never a guess from an address: a peer is in this process when its
//! incarnation is in this table. Entries are weak; an engine that is gone is not found.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

use super::Shared;
use crate::batch::Batch;
use crate::endpoint::Incarnation;
use crate::memory::ByteRange;
use crate::registry::Pin;

static ENGINES: LazyLock<Mutex<HashMap<u128, Weak<Shared>>>> = LazyLock::new(Mutex::default);

/// Makes an engine known to the other engines of the process.
pub(super) fn enter(engine: &Arc<Shared>) {
    let mut engines = ENGINES.lock();
    engines.retain(|_, engine| engine.strong_count() > 0);
    engines.insert(engine.incarnation.id, Arc::downgrade(engine));
}

/// Takes an engine out of the table.
pub(super) fn leave(incarnation: &Incarnation) {
    ENGINES.lock().remove(&incarnation.id);
}

/// The engine of this process with that incarnation.
pub(super) fn find(incarnation: &Incarnation) -> Option<Arc<Shared>> {
    if incarnation.pid != std::process::id() {
        return None;
    }
    ENGINES.lock().get(&incarnation.id).and_then(Weak::upgrade)
}

/// All engines of this process.
pub(super) fn all() -> Vec<Arc<Shared>> {
    ENGINES.lock().values().filter_map(Weak::upgrade).collect()
}

/// Pins a range that some engine of this process has registered, for a batch of another; the pin makes the owner's
/// unregister answer "busy", and its end stops the batch.
pub(super) fn pin(range: ByteRange, batch: &Arc<Batch>) -> Option<Pin> {
    all().iter().find_map(|engine| {
        let region = engine.registry.find_containing(range)?;
        engine.guests.add(batch);
        region.pin()
    })
}

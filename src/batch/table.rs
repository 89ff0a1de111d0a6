//! Batches by handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::batch::id::{INDEX_BITS, next_tag};
use crate::batch::{Batch, BatchId};
use crate::error::{Code, Error, Result, Stage};

/// Most batches at one time.
pub const MAX_BATCHES: u32 = 1 << 16;

/// Parts of the table, so that threads with batches of their own do not share a lock.
const SHARDS: u32 = 16;

#[derive(Debug, Default)]
struct Shard {
    places: Vec<Place>,
    /// Places to use again; the last freed first, since its memory is warm.
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Place {
    /// How often it was given out; a place whose number is used up is never given out again.
    generation: u32,
    batch: Option<Arc<Batch>>,
}

/// The batches of one engine; see [`BatchId`] for how a stale or foreign handle is told.
#[derive(Debug)]
pub struct BatchTable {
    tag: u32,
    limit: u32,
    live: AtomicU32,
    next: AtomicU32,
    shards: Vec<RwLock<Shard>>,
}

impl BatchTable {
    /// An empty table for at most `limit` batches at one time ([`MAX_BATCHES`] if that is less).
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            tag: next_tag(),
            limit: limit.min(MAX_BATCHES),
            live: AtomicU32::new(0),
            next: AtomicU32::new(0),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }

    /// Makes a batch with room for `capacity` tasks.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] when the table is full or the capacity too large; [`Code::Memory`].
    pub fn allocate(&self, capacity: u32) -> Result<BatchId> {
        let batch = Arc::new(Batch::new(capacity)?);
        self.live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| (live < self.limit).then(|| live + 1))
            .map_err(|live| {
                Error::new(
                    Code::TooManyRequests,
                    Stage::Submit,
                    format!("{live} batches are allocated already"),
                )
                .advice("free batches that are finished")
            })?;
        let number = self.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let id = self.shard(number).and_then(|shard| shard.write().put(self.tag, number, batch));
        id.ok_or_else(|| {
            self.live.fetch_sub(1, Ordering::Relaxed);
            Error::new(Code::TooManyRequests, Stage::Submit, "batch handles are used up")
        })
    }

    /// The batch of a handle.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] when the handle was freed or is not of this table.
    pub fn get(&self, id: BatchId) -> Result<Arc<Batch>> {
        self.find(id).ok_or_else(|| stale(id))
    }

    /// Frees a batch whose tasks were all observed finished; the handle is stale afterwards.
    ///
    /// # Errors
    /// [`Code::Busy`] while a task was not observed finished; [`Code::StaleHandle`].
    pub fn free(&self, id: BatchId) -> Result<()> {
        self.get(id)?.close()?;
        self.take(id).map(drop)
    }

    /// Takes a batch out whatever its state, for a caller that gives up on it. What runs goes on.
    ///
    /// # Errors
    /// [`Code::StaleHandle`].
    pub fn abandon(&self, id: BatchId) -> Result<Arc<Batch>> {
        let batch = self.take(id)?;
        batch.abandon();
        Ok(batch)
    }

    /// Takes every batch out, for the end of the engine.
    pub fn clear(&self) -> Vec<Arc<Batch>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.write();
            let shard = &mut *shard;
            for (index, place) in (0..).zip(&mut shard.places) {
                if let Some(batch) = place.batch.take() {
                    batch.abandon();
                    shard.free.push(index);
                    self.live.fetch_sub(1, Ordering::Relaxed);
                    all.push(batch);
                }
            }
        }
        all
    }

    /// Number of batches.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.live.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, number: u32) -> Option<&RwLock<Shard>> {
        self.shards.get(usize::try_from(number).ok()?)
    }

    fn find(&self, id: BatchId) -> Option<Arc<Batch>> {
        let shard = self.shard(id.index() % SHARDS).filter(|_| id.tag() == self.tag)?.read();
        let place = shard.places.get(usize::try_from(id.index() / SHARDS).ok()?)?;
        place.batch.clone().filter(|_| place.generation == id.generation())
    }

    fn take(&self, id: BatchId) -> Result<Arc<Batch>> {
        let take = || {
            let mut shard = self.shard(id.index() % SHARDS).filter(|_| id.tag() == self.tag)?.write();
            let index = id.index() / SHARDS;
            let place = shard.places.get_mut(usize::try_from(index).ok()?)?;
            if place.generation != id.generation() {
                return None;
            }
            let batch = place.batch.take()?;
            shard.free.push(index);
            Some(batch)
        };
        let batch = take().ok_or_else(|| stale(id))?;
        self.live.fetch_sub(1, Ordering::Relaxed);
        Ok(batch)
    }
}

impl Shard {
    fn put(&mut self, tag: u32, number: u32, batch: Arc<Batch>) -> Option<BatchId> {
        let index = loop {
            let Some(index) = self.free.pop() else {
                let index = u32::try_from(self.places.len()).ok()?;
                self.places.push(Place::default());
                break index;
            };
            let used_up = |place: &Place| place.generation == u32::MAX;
            if !self.places.get(usize::try_from(index).ok()?).is_some_and(used_up) {
                break index;
            }
        };
        let global =
            index.checked_mul(SHARDS)?.checked_add(number).filter(|&index| index >> INDEX_BITS == 0)?;
        let place = self.places.get_mut(usize::try_from(index).ok()?)?;
        place.generation += 1;
        place.batch = Some(batch);
        Some(BatchId::compose(tag, place.generation, global))
    }
}

fn stale(id: BatchId) -> Error {
    Error::new(Code::StaleHandle, Stage::Submit, format!("{id} is no batch of this engine, or was freed"))
}

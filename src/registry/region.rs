//! One registered range and who is using it.

use std::sync::Arc;

use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, Location, MemoryKind};
use crate::sync::{AtomicU32, Ordering};

/// Not open: being added, being removed, or removed.
const SHUT: u32 = 1 << 31;
/// Most pins of a region at one time; one job takes one pin, so nothing real comes near.
const MAX_PINS: u32 = SHUT - 1;

/// A registered range.
#[derive(Debug)]
pub struct Region {
    range: ByteRange,
    location: Location,
    kind: MemoryKind,
    /// Small number that no other region of the registry has at the same time.
    place: u32,
    /// Grows with each registration, so that snapshots keep the order of registration.
    sequence: u64,
    /// Pins, and [`SHUT`].
    state: AtomicU32,
}

impl Region {
    pub(super) fn shut(
        range: ByteRange,
        location: Location,
        kind: MemoryKind,
        place: u32,
        sequence: u64,
    ) -> Self {
        Self { range, location, kind, place, sequence, state: AtomicU32::new(SHUT) }
    }

    /// The addresses.
    #[must_use]
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// The location, as the caller gave it or as it was found out.
    #[must_use]
    pub fn location(&self) -> Location {
        self.location
    }

    /// What memory it is.
    #[must_use]
    pub fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// A small number that no other region of the registry has at the same time.
    #[must_use]
    pub fn place(&self) -> u32 {
        self.place
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether it can be pinned.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) & SHUT == 0
    }

    /// Number of pins held.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.state.load(Ordering::Acquire) & MAX_PINS
    }

    /// Keeps the region registered as long as the pin lives; `None` when it is not open.
    #[must_use]
    pub fn pin(self: &Arc<Self>) -> Option<Pin> {
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state & SHUT == 0 && state < MAX_PINS).then(|| state + 1)
            })
            .ok()?;
        Some(Pin(Arc::clone(self)))
    }

    pub(super) fn open(&self) {
        self.state.store(0, Ordering::Release);
    }

    /// Keeps new pins out, for good; those that there are stay.
    pub(super) fn shut_in_use(&self) {
        self.state.fetch_or(SHUT, Ordering::AcqRel);
    }

    /// Keeps new pins out; refuses when there are pins, or when somebody else has shut it.
    pub(super) fn shut_idle(&self) -> Result<()> {
        // Acquire: what the pins' holders did happened before the removal goes on.
        match self.state.compare_exchange(0, SHUT, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(state) if state & SHUT != 0 => Err(self.refuse(Code::Busy, "the range is being removed")),
            Err(pins) => Err(self
                .refuse(Code::Busy, &format!("{pins} transfers are in flight on the range"))
                .advice("wait for the transfers that use it, then unregister again")),
        }
    }

    fn refuse(&self, code: Code, message: &str) -> Error {
        Error::new(code, Stage::Register, message).range(self.range.start(), self.range.length_bytes())
    }
}

/// A region in use.
#[derive(Debug)]
pub struct Pin(Arc<Region>);

impl Pin {
    /// The region.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.0
    }
}

impl Clone for Pin {
    /// One more pin of a region that is pinned already, hence open.
    fn clone(&self) -> Self {
        let before = self.0.state.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before & MAX_PINS != 0, "a pin of an unpinned region");
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.state.fetch_sub(1, Ordering::Release);
    }
}

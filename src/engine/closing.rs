//! Ranges that are about to be withdrawn, while peers are asked to stop using them.
//!
//! From the moment a withdrawal begins nobody can pin the range in the registry, so that no new transfer of ours
//! starts on it. A peer, though, may be in the middle of a transfer whose next request is still on its way: it is
//! served until the peer has answered. Then the range is shut for good, unless something is still under way on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, MemoryKind};

/// No more holds.
const SHUT: u32 = 1 << 31;
/// How often an end looks whether what is under way is over.
const POLL: std::time::Duration = std::time::Duration::from_millis(1);

/// One range on its way out.
struct Entry {
    range: ByteRange,
    kind: MemoryKind,
    /// Holds, and [`SHUT`].
    state: AtomicU32,
}

/// A request under way on a closing range.
struct Held(Arc<Entry>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state.fetch_sub(1, Ordering::Release);
    }
}

/// The ranges of one engine.
#[derive(Default)]
pub(super) struct Closing(Mutex<Vec<Arc<Entry>>>);

impl Closing {
    /// From now on peers' requests on the range are served by [`Closing::hold`].
    pub(super) fn begin(&self, range: ByteRange, kind: MemoryKind) -> Withdrawal<'_> {
        let entry = Arc::new(Entry { range, kind, state: AtomicU32::new(0) });
        self.0.lock().push(Arc::clone(&entry));
        Withdrawal { closing: self, entry }
    }

    /// Keeps a closing range that holds all of `range` from being shut; the whole of it, and what memory it is.
    pub(super) fn hold(&self, range: ByteRange) -> Option<(ByteRange, MemoryKind, Arc<dyn Send + Sync>)> {
        let entries = self.0.lock();
        let entry = entries.iter().find(|entry| entry.range.contains(range))?;
        entry
            .state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state & SHUT == 0).then_some(state + 1)
            })
            .ok()?;
        Some((entry.range, entry.kind, Arc::new(Held(Arc::clone(entry)))))
    }
}

/// A withdrawal that is under way. Dropping it ends the serving.
pub(super) struct Withdrawal<'a> {
    closing: &'a Closing,
    entry: Arc<Entry>,
}

impl Withdrawal<'_> {
    /// Shuts the range once nothing is under way on it.
    ///
    /// # Errors
    /// [`Code::Busy`] when something still is at the deadline.
    pub(super) fn finish(&self, deadline: Deadline) -> Result<()> {
        loop {
            match self.entry.state.compare_exchange(0, SHUT, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(_) if !deadline.expired() => std::thread::sleep(POLL),
                Err(holds) => {
                    let range = self.entry.range;
                    let text = format!("{holds} requests of peers are under way on the range");
                    return Err(Error::new(Code::Busy, Stage::Register, text)
                        .range(range.start(), range.length_bytes())
                        .advice("wait for the transfers that use it, then unregister again"));
                }
            }
        }
    }
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        self.closing.0.lock().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn range(start: u64, length_bytes: u64) -> ByteRange {
        ByteRange::new(start, length_bytes).unwrap()
    }

    #[test]
    fn a_request_under_way_keeps_the_range() {
        let closing = Closing::default();
        assert!(closing.hold(range(100, 10)).is_none(), "nothing is closing");
        let withdrawal = closing.begin(range(100, 100), MemoryKind::Host);
        assert!(closing.hold(range(150, 51)).is_none(), "outside");
        let held = closing.hold(range(150, 50)).unwrap();
        let busy = withdrawal.finish(Deadline::after(Duration::from_millis(5))).unwrap_err();
        assert_eq!(busy.code(), Code::Busy);
        drop(withdrawal);
        assert!(closing.hold(range(150, 50)).is_none(), "the withdrawal is over");
        let withdrawal = closing.begin(range(100, 100), MemoryKind::Host);
        drop(held);
        withdrawal.finish(Deadline::after(Duration::from_millis(5))).unwrap();
        assert!(closing.hold(range(100, 1)).is_none());
    }
}

//! Sees to it that the memory of removed objects goes back to the system, also when nothing else happens.
//!
//! The allocator gives freed pages back some time after they were freed, and looks whether that time is over only
//! when a page is freed. A master that became idle after a removal would keep its peak. So for a while after objects
//! were removed, a block that is a page of its own is taken and freed, untouched, now and then.

use crate::moment::Moment;

/// Larger than any block that shares a page with others.
const PAGE_BYTES: usize = 64 << 20;
/// How often it is looked.
const EVERY_MS: u64 = 500;
/// How many looks after a removal free a page: longer than the allocator's delay, also on a machine that is short of time.
const LOOKS: u32 = 60;

/// Watches objects being removed.
#[derive(Debug, Default)]
pub struct Returner {
    seen: u64,
    left: u32,
    next: Moment,
}

impl Returner {
    /// To be called again and again; `removed`, the number of objects that were removed so far, is called when it is
    /// time to look.
    pub fn look(&mut self, now: Moment, removed: impl FnOnce() -> u64) {
        if now < self.next {
            return;
        }
        self.next = now.after_ms(EVERY_MS);
        let removed = removed();
        if removed != self.seen {
            self.left = LOOKS;
        }
        self.seen = removed;
        if self.left > 0 {
            self.left -= 1;
            drop(std::hint::black_box(Vec::<u8>::with_capacity(PAGE_BYTES)));
        }
    }
}

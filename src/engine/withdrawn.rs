//! What a peer has taken back, for descriptors that were on their way meanwhile.
//!
//! A descriptor of an epoch up to that of a withdrawal may still name the range. Each such range is remembered until
//! a newer descriptor comes, at most [`MAX_WITHDRAWN`] of them. Beyond that the oldest are summed up by their epoch:
//! a descriptor that is as old as that is too old to be believed at all.

use std::collections::VecDeque;

use crate::memory::ByteRange;

/// Withdrawn ranges of one peer that are remembered one by one.
pub const MAX_WITHDRAWN: usize = 1024;

/// The ranges, by epoch, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Withdrawn {
    ranges: VecDeque<(ByteRange, u64)>,
    /// Descriptors up to this epoch name too much.
    floor: Option<u64>,
}

impl Withdrawn {
    /// The peer took a range back at `epoch`.
    pub(super) fn add(&mut self, range: ByteRange, epoch: u64) {
        if self.ranges.iter().any(|(known, since)| known.contains(range) && *since >= epoch) {
            return;
        }
        self.ranges.retain(|(known, since)| !(range.contains(*known) && *since <= epoch));
        let place = self.ranges.partition_point(|(_, since)| *since <= epoch);
        self.ranges.insert(place, (range, epoch));
        while self.ranges.len() > MAX_WITHDRAWN {
            let Some((_, oldest)) = self.ranges.pop_front() else { return };
            self.floor = self.floor.max(Some(oldest));
        }
    }

    /// Whether a descriptor of that epoch can be believed.
    pub(super) fn believes(&self, epoch: u64) -> bool {
        self.floor.is_none_or(|floor| epoch > floor)
    }

    /// A descriptor of that epoch came: it knows of all withdrawals before it.
    pub(super) fn forget_before(&mut self, epoch: u64) {
        self.ranges.retain(|(_, since)| *since >= epoch);
    }

    /// Whether some of the range was taken back.
    pub(super) fn overlaps(&self, range: ByteRange) -> bool {
        self.ranges.iter().any(|(gone, _)| gone.overlaps(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, length_bytes: u64) -> ByteRange {
        ByteRange::new(start, length_bytes).unwrap()
    }

    #[test]
    fn a_range_is_remembered_until_a_newer_descriptor_comes() {
        let mut withdrawn = Withdrawn::default();
        withdrawn.add(range(0, 10), 3);
        withdrawn.add(range(20, 10), 5);
        withdrawn.forget_before(3);
        assert!(withdrawn.overlaps(range(9, 1)) && withdrawn.overlaps(range(25, 100)));
        withdrawn.forget_before(4);
        assert!(!withdrawn.overlaps(range(0, 20)) && withdrawn.overlaps(range(20, 1)));
        withdrawn.forget_before(6);
        assert!(!withdrawn.overlaps(range(0, 100)));
    }

    #[test]
    fn the_same_memory_again_and_again_takes_one_place() {
        let mut withdrawn = Withdrawn::default();
        for epoch in 0..5000 {
            withdrawn.add(range(0, 10), epoch);
            withdrawn.add(range(4, 2), epoch);
        }
        assert_eq!(withdrawn.ranges, [(range(0, 10), 4999)]);
        assert!(withdrawn.believes(0), "nothing was summed up");
    }

    #[test]
    fn too_many_are_summed_up_and_none_comes_back() {
        let mut withdrawn = Withdrawn::default();
        let count = 3 * MAX_WITHDRAWN as u64;
        for epoch in 0..count {
            withdrawn.add(range(epoch * 10, 5), epoch);
        }
        assert_eq!(withdrawn.ranges.len(), MAX_WITHDRAWN);
        for epoch in 0..count {
            let descriptor = epoch;
            let comes_back = withdrawn.believes(descriptor) && !withdrawn.overlaps(range(epoch * 10, 5));
            assert!(!comes_back, "a descriptor of epoch {epoch} brings its range back");
        }
        assert!(withdrawn.believes(count), "a fresh descriptor is believed");
    }
}

//! The free space of one segment.
//!
//! An allocator of ours, for two reasons that the known offset allocators do not meet: only *free* extents take memory
//! (an allocated range is remembered by its object and nowhere else), and a replayed journal claims exact ranges.
//! Best fit over an ordered set; neighbours merge when they are freed. What is left of the extent that was last cut
//! stands beside the set: a run of puts cuts the same one again and again, and then changes two numbers, not two trees.
//!
//! Invariants: free extents neither overlap nor touch; `used + sum of free = size`; no extent is empty; every extent starts at a multiple
//! of `GRANULE_BYTES`, and only the one that ends the segment may end elsewhere.

use std::collections::{BTreeMap, BTreeSet};

/// Ranges start at multiples of this: one cache line, so that no two objects share one.
pub const GRANULE_BYTES: u64 = 64;

/// The free extents of a segment of a known size.
#[derive(Debug)]
pub struct Extents {
    size: u64,
    free_bytes: u64,
    /// The extent that was last cut, offset and length; not in the trees.
    cut: Option<(u64, u64)>,
    by_offset: BTreeMap<u64, u64>,
    by_length: BTreeSet<(u64, u64)>,
}

impl Extents {
    /// A segment of `size` bytes, all free.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let mut extents =
            Self { size, free_bytes: 0, cut: None, by_offset: BTreeMap::new(), by_length: BTreeSet::new() };
        extents.put(0, size);
        extents
    }

    /// Bytes that are allocated, rounding included.
    #[must_use]
    pub const fn used_bytes(&self) -> u64 {
        self.size - self.free_bytes
    }

    /// Length of the longest object that fits now.
    #[must_use]
    pub fn largest_free_bytes(&self) -> u64 {
        let cut = self.cut.map_or(0, |(_, length)| length);
        self.by_length.last().map_or(cut, |(length, _)| cut.max(*length))
    }

    /// What an object of `length` bytes at `offset` takes: whole granules, except at the end of the segment.
    fn taken(&self, offset: u64, length: u64) -> Option<u64> {
        let room = self.size.checked_sub(offset)?;
        if length == 0 || length > room || !offset.is_multiple_of(GRANULE_BYTES) {
            return None;
        }
        Some(length.checked_next_multiple_of(GRANULE_BYTES).unwrap_or(room).min(room))
    }

    fn put(&mut self, offset: u64, length: u64) {
        if length > 0 {
            self.by_offset.insert(offset, length);
            self.by_length.insert((length, offset));
            self.free_bytes += length;
        }
    }

    /// Puts the extent that was last cut among the others.
    fn lay_back(&mut self) {
        if let Some((offset, length)) = self.cut.take() {
            self.by_offset.insert(offset, length);
            self.by_length.insert((length, offset));
        }
    }

    fn take(&mut self, offset: u64, length: u64) {
        self.by_offset.remove(&offset);
        self.by_length.remove(&(length, offset));
        self.free_bytes -= length;
    }

    /// Takes the smallest extent that holds `length` bytes, and returns its offset.
    pub fn allocate(&mut self, length: u64) -> Option<u64> {
        let cut = self.cut.map(|(offset, extent)| (extent, offset)).filter(|(extent, _)| *extent >= length);
        let other = self.by_length.range((length, 0)..).next().copied();
        let (extent, offset) = cut.into_iter().chain(other).min()?;
        let taken = self.taken(offset, length)?;
        if cut != Some((extent, offset)) {
            self.lay_back();
            self.by_offset.remove(&offset);
            self.by_length.remove(&(extent, offset));
        }
        self.cut = Some((offset + taken, extent - taken)).filter(|(_, rest)| *rest > 0);
        self.free_bytes -= taken;
        Some(offset)
    }

    /// Takes exactly the range of an object that is known from before; false if any of it is not free.
    pub fn claim(&mut self, offset: u64, length: u64) -> bool {
        self.lay_back();
        let Some(taken) = self.taken(offset, length) else {
            return false;
        };
        let Some((&start, &extent)) = self.by_offset.range(..=offset).next_back() else {
            return false;
        };
        let end = start + extent;
        if offset + taken > end {
            return false;
        }
        self.take(start, extent);
        self.put(start, offset - start);
        self.put(offset + taken, end - offset - taken);
        true
    }

    /// Gives back what an object of `length` bytes at `offset` took; false, and no change, if it was not allocated.
    pub fn free(&mut self, offset: u64, length: u64) -> bool {
        let Some(taken) = self.taken(offset, length) else {
            return false;
        };
        self.lay_back();
        let before = self.by_offset.range(..=offset).next_back().map(|(start, extent)| (*start, *extent));
        let after = self.by_offset.range(offset..).next().map(|(start, extent)| (*start, *extent));
        if before.is_some_and(|(start, extent)| start + extent > offset)
            || after.is_some_and(|(start, _)| start < offset + taken)
        {
            return false;
        }
        let (mut start, mut end) = (offset, offset + taken);
        if let Some((neighbour, extent)) = before.filter(|(neighbour, extent)| neighbour + extent == offset) {
            self.take(neighbour, extent);
            start = neighbour;
        }
        if let Some((neighbour, extent)) = after.filter(|(neighbour, _)| *neighbour == end) {
            self.take(neighbour, extent);
            end += extent;
        }
        self.put(start, end - start);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Extents, GRANULE_BYTES};
    use proptest::prelude::*;

    #[test]
    fn a_segment_is_filled_to_the_last_byte() {
        let mut extents = Extents::new(64 << 20);
        let offsets: Vec<u64> = (0..64).map(|_| extents.allocate(1 << 20).expect("space")).collect();
        assert_eq!(extents.used_bytes(), 64 << 20);
        assert_eq!(extents.allocate(1), None);
        for offset in offsets {
            assert!(extents.free(offset, 1 << 20));
        }
        assert_eq!((extents.used_bytes(), extents.largest_free_bytes()), (0, 64 << 20));
    }

    #[test]
    fn an_odd_size_is_used_whole() {
        // The size of the deployment guide plus one: not a multiple of anything.
        let size = 30_000_000_001;
        let mut extents = Extents::new(size);
        let offset = extents.allocate(size).expect("all of it");
        assert_eq!((offset, extents.used_bytes()), (0, size));
        assert!(extents.free(offset, size));
        let first = extents.allocate(100).expect("space");
        let rest = extents.allocate(size - 128).expect("the rest");
        assert_eq!((first, rest, extents.used_bytes()), (0, 128, size));
    }

    #[test]
    fn foreign_and_repeated_frees_change_nothing() {
        let mut extents = Extents::new(1024);
        let offset = extents.allocate(128).expect("space");
        assert!(
            !extents.free(64, 128)
                && !extents.free(512, 64)
                && !extents.free(2048, 64)
                && !extents.free(3, 1)
        );
        assert!(extents.free(offset, 128));
        assert!(!extents.free(offset, 128));
        assert!(extents.claim(256, 100));
        assert!(!extents.claim(256, 1) && !extents.claim(320, 64) && extents.claim(384, 64));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a plain map of what is allocated: no overlap, and the sum is right to the byte.
        #[test]
        fn like_a_map_of_ranges(size in 1u64..5000, steps in prop::collection::vec((any::<bool>(), 1u64..600, any::<prop::sample::Index>()), 1..120)) {
            let mut extents = Extents::new(size);
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (allocate, length, pick) in steps {
                if allocate || live.is_empty() {
                    let largest = extents.largest_free_bytes();
                    match extents.allocate(length) {
                        Some(offset) => {
                            prop_assert!(offset + length <= size && offset % GRANULE_BYTES == 0);
                            live.push((offset, length));
                        }
                        None => prop_assert!(length > largest),
                    }
                } else {
                    let (offset, length) = live.swap_remove(pick.index(live.len()));
                    prop_assert!(extents.free(offset, length));
                }
                live.sort_unstable();
                for pair in live.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
                }
                let used: u64 = live.iter().map(|(offset, length)| length.next_multiple_of(GRANULE_BYTES).min(size - offset)).sum();
                prop_assert_eq!(extents.used_bytes(), used);
                let mut replayed = Extents::new(size);
                prop_assert!(live.iter().all(|(offset, length)| replayed.claim(*offset, *length)));
                let mut whole = Extents { by_offset: extents.by_offset.clone(), by_length: extents.by_length.clone(), ..extents };
                whole.lay_back();
                prop_assert_eq!(&replayed.by_offset, &whole.by_offset);
                prop_assert_eq!(replayed.by_length, whole.by_length);
            }
        }
    }
}

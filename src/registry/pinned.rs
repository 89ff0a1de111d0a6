//! Disjoint segments that several owners share: what a process has registered with a vendor on one device.

use std::collections::BTreeMap;

use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::registry::planner;

/// What a range meets in a [`PinnedSet`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Segments that hold part of it, in order.
    pub existing: Vec<ByteRange>,
    /// Parts that no segment holds, in order.
    pub gaps: Vec<ByteRange>,
}

#[derive(Debug)]
struct Segment<T> {
    range: ByteRange,
    owners: u64,
    handle: T,
}

/// Disjoint ranges, each with a handle and a number of owners.
///
/// A segment is never cut or widened, since vendor regions cannot be. It has no lock: the owner of the set
/// keeps it behind one, and does the vendor's calls between [`PinnedSet::cover`] and [`PinnedSet::insert`].
#[derive(Debug)]
pub struct PinnedSet<T> {
    segments: BTreeMap<u64, Segment<T>>,
}

impl<T> Default for PinnedSet<T> {
    fn default() -> Self {
        Self { segments: BTreeMap::new() }
    }
}

impl<T> PinnedSet<T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What holds `range`, and what of it nobody holds. Changes nothing.
    #[must_use]
    pub fn cover(&self, range: ByteRange) -> Coverage {
        let existing = self.meeting(range);
        let gaps = planner::gaps(range, &existing);
        Coverage { existing, gaps }
    }

    /// All segments, sorted.
    #[must_use]
    pub fn ranges(&self) -> Vec<ByteRange> {
        self.segments.values().map(|segment| segment.range).collect()
    }

    /// The handle of the segment that holds all of `range`.
    #[must_use]
    pub fn find_containing(&self, range: ByteRange) -> Option<(ByteRange, &T)> {
        let (_, segment) = self.segments.range(..=range.start()).next_back()?;
        segment.range.contains(range).then_some((segment.range, &segment.handle))
    }

    /// The segments with their handles, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (ByteRange, &T)> {
        self.segments.values().map(|segment| (segment.range, &segment.handle))
    }

    /// Adds a segment with one owner.
    ///
    /// # Errors
    /// [`Code::AddressOverlapped`] when it overlaps another, [`Code::InvalidArgument`] when it is empty; the
    /// handle comes back with the error, so that it can be given back to the vendor.
    pub fn insert(&mut self, range: ByteRange, handle: T) -> Result<(), (Error, T)> {
        let refuse = |code, message| {
            Error::new(code, Stage::Register, message).range(range.start(), range.length_bytes())
        };
        if range.is_empty() {
            return Err((refuse(Code::InvalidArgument, "an empty segment"), handle));
        }
        if !self.meeting(range).is_empty() {
            return Err((refuse(Code::AddressOverlapped, "the segment overlaps another"), handle));
        }
        self.segments.insert(range.start(), Segment { range, owners: 1, handle });
        Ok(())
    }

    /// One more owner for each segment that `range` meets. Returns their starts, to be released later.
    ///
    /// # Errors
    /// [`Code::AddressNotRegistered`] when a part of `range` is held by nobody; nothing is changed then.
    pub fn hold(&mut self, range: ByteRange) -> Result<Vec<u64>> {
        let coverage = self.cover(range);
        if let Some(gap) = coverage.gaps.first() {
            return Err(Error::new(
                Code::AddressNotRegistered,
                Stage::Register,
                format!("{gap} is not registered with the device"),
            )
            .range(range.start(), range.length_bytes()));
        }
        let starts: Vec<u64> = coverage.existing.iter().map(|existing| existing.start()).collect();
        for start in &starts {
            if let Some(segment) = self.segments.get_mut(start) {
                segment.owners = segment.owners.saturating_add(1);
            }
        }
        Ok(starts)
    }

    /// One owner less for the segment that starts at `start`. When it was the last one the segment leaves the
    /// set, and its handle is returned, to be given back to the vendor.
    pub fn release(&mut self, start: u64) -> Option<(ByteRange, T)> {
        let segment = self.segments.get_mut(&start)?;
        segment.owners = segment.owners.saturating_sub(1);
        if segment.owners > 0 {
            return None;
        }
        self.segments.remove(&start).map(|segment| (segment.range, segment.handle))
    }

    /// Number of owners of the segment that starts at `start`; 0 when there is none.
    #[must_use]
    pub fn owners(&self, start: u64) -> u64 {
        self.segments.get(&start).map_or(0, |segment| segment.owners)
    }

    /// Number of segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    fn meeting(&self, range: ByteRange) -> Vec<ByteRange> {
        let first =
            self.segments.range(..=range.start()).next_back().map_or(range.start(), |(&start, _)| start);
        if first > range.end() {
            return Vec::new();
        }
        self.segments
            .range(first..range.end().max(first))
            .map(|(_, segment)| segment.range)
            .filter(|other| other.overlaps(range))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, length_bytes: u64) -> ByteRange {
        ByteRange::new(start, length_bytes).unwrap()
    }

    #[test]
    fn the_last_owner_gets_the_handle_back() {
        let mut set = PinnedSet::new();
        set.insert(range(0, 10), "a").unwrap();
        set.insert(range(10, 10), "b").unwrap();
        assert_eq!(set.hold(range(5, 10)).unwrap(), [0, 10]);
        assert_eq!(set.release(0), None);
        assert_eq!(set.release(0), Some((range(0, 10), "a")));
        assert_eq!(set.release(0), None);
        assert_eq!(set.owners(10), 2);
    }

    #[test]
    fn a_gap_holds_nothing() {
        let mut set = PinnedSet::new();
        set.insert(range(0, 10), ()).unwrap();
        set.insert(range(20, 10), ()).unwrap();
        let error = set.hold(range(5, 20)).unwrap_err();
        assert_eq!(error.code(), Code::AddressNotRegistered);
        assert_eq!((set.owners(0), set.owners(20)), (1, 1));
        assert_eq!(
            set.cover(range(5, 30)),
            Coverage { existing: vec![range(0, 10), range(20, 10)], gaps: vec![range(10, 10), range(30, 5)] }
        );
    }

    #[test]
    fn a_refused_handle_comes_back() {
        let mut set = PinnedSet::new();
        set.insert(range(0, 10), 1).unwrap();
        let (error, handle) = set.insert(range(9, 2), 2).unwrap_err();
        assert_eq!((error.code(), handle), (Code::AddressOverlapped, 2));
        assert_eq!(set.insert(range(9, 0), 3).unwrap_err().0.code(), Code::InvalidArgument);
    }

    proptest! {
        /// Owners come and go as they like; the set always equals a count kept byte by byte.
        #[test]
        fn agrees_with_counting(steps in prop::collection::vec((0u64..60, 1u64..20, any::<bool>()), 1..40)) {
            let mut set = PinnedSet::new();
            let mut held: Vec<(ByteRange, Vec<u64>)> = Vec::new();
            let mut bytes: HashMap<u64, u64> = HashMap::new();
            for (start, length, take) in steps {
                let wanted = range(start, length);
                if take || held.is_empty() {
                    let coverage = set.cover(wanted);
                    let mut starts = Vec::new();
                    for existing in &coverage.existing {
                        let cut = existing.intersection(wanted).unwrap();
                        starts.extend(set.hold(cut).unwrap());
                    }
                    for gap in &coverage.gaps {
                        set.insert(*gap, gap.start()).unwrap();
                        starts.push(gap.start());
                    }
                    for address in wanted.start()..wanted.end() {
                        *bytes.entry(address).or_default() += 1;
                    }
                    held.push((wanted, starts));
                } else {
                    let (gone, starts) = held.swap_remove(usize::try_from(start).unwrap() % held.len());
                    for start in starts {
                        set.release(start);
                    }
                    for address in gone.start()..gone.end() {
                        *bytes.get_mut(&address).unwrap() -= 1;
                    }
                }
                for (address, count) in &bytes {
                    let covered = set.find_containing(range(*address, 1)).is_some();
                    prop_assert!(*count == 0 || covered, "{} has owners and is not held", address);
                }
            }
            for (_, starts) in held {
                for start in starts {
                    set.release(start);
                }
            }
            prop_assert!(set.is_empty());
        }
    }
}

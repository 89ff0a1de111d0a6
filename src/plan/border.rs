//! How far a copy may go before it meets the border of a registered region.

use crate::memory::ByteRange;

/// One side's borders.
pub trait Border {
    /// Number of bytes from `address` to the end of the region that it lies in, at least 1; `None` when it
    /// lies in no region. Takes `&mut self`, so that an implementation can remember where it looked last.
    fn room_bytes(&mut self, address: u64) -> Option<u64>;
}

/// A side without borders, for transports that take any address.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBorder;

impl Border for NoBorder {
    fn room_bytes(&mut self, _address: u64) -> Option<u64> {
        Some(u64::MAX)
    }
}

/// Borders of a sorted list of disjoint ranges; looks first where it found the last address, then one further: blocks
/// come tensor by tensor, or through all tensors again and again.
#[derive(Clone, Debug)]
pub struct Regions<'a> {
    sorted: &'a [ByteRange],
    hint: usize,
}

impl<'a> Regions<'a> {
    /// Over ranges that are sorted by start and disjoint.
    #[must_use]
    pub fn new(sorted: &'a [ByteRange]) -> Self {
        debug_assert!(sorted.is_sorted_by(|a, b| a.end() <= b.start()), "unsorted regions");
        Self { sorted, hint: 0 }
    }
}

impl Border for Regions<'_> {
    fn room_bytes(&mut self, address: u64) -> Option<u64> {
        let found = |index: usize| self.sorted.get(index).filter(|range| range.contains_address(address));
        let (index, range) = match (found(self.hint), found(self.hint + 1)) {
            (Some(range), _) => (self.hint, range),
            (None, Some(range)) => (self.hint + 1, range),
            (None, None) => {
                let index = self.sorted.partition_point(|range| range.start() <= address).checked_sub(1)?;
                (index, found(index)?)
            }
        };
        self.hint = index;
        Some(range.end() - address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_with_the_region() {
        let ranges =
            [(10, 10), (20, 5), (100, 1)].map(|(start, length)| ByteRange::new(start, length).unwrap());
        let mut regions = Regions::new(&ranges);
        let rooms: Vec<_> = [9, 10, 19, 20, 24, 25, 100, 101, 10].map(|at| regions.room_bytes(at)).to_vec();
        assert_eq!(rooms, [None, Some(10), Some(1), Some(5), Some(1), None, Some(1), None, Some(10)]);
        assert_eq!(Regions::new(&[]).room_bytes(0), None);
        assert_eq!(NoBorder.room_bytes(u64::MAX), Some(u64::MAX));
    }
}

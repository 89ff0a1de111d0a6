//! Free ranges of one arena: first fit with alignment, neighbours merged when given back.

use std::collections::BTreeMap;

/// The free ranges of an arena, by offset.
#[derive(Debug)]
pub struct FreeRanges {
    ranges: BTreeMap<usize, usize>,
    length: usize,
}

impl FreeRanges {
    /// All of `length` bytes are free.
    pub fn new(length: usize) -> Self {
        Self { ranges: BTreeMap::from([(0, length)]), length }
    }

    /// Takes `size` bytes at a multiple of `alignment`.
    pub fn take(&mut self, size: usize, alignment: usize) -> Option<usize> {
        let (start, length, offset) = self.ranges.iter().find_map(|(start, length)| {
            let offset = start.checked_next_multiple_of(alignment)?;
            (offset.checked_add(size)? <= start + length).then_some((*start, *length, offset))
        })?;
        self.ranges.remove(&start);
        if offset > start {
            self.ranges.insert(start, offset - start);
        }
        if offset + size < start + length {
            self.ranges.insert(offset + size, start + length - offset - size);
        }
        Some(offset)
    }

    /// Gives a range back that `take` answered.
    pub fn give_back(&mut self, offset: usize, size: usize) {
        let (mut start, mut length) = (offset, size);
        if let Some((before, before_length)) =
            self.ranges.range(..offset).next_back().map(|(key, value)| (*key, *value))
            && before + before_length == start
        {
            self.ranges.remove(&before);
            start = before;
            length += before_length;
        }
        if let Some(after_length) = self.ranges.remove(&(offset + size)) {
            length += after_length;
        }
        self.ranges.insert(start, length);
    }

    /// Whether nothing is taken.
    pub fn is_whole(&self) -> bool {
        self.ranges.get(&0) == Some(&self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_aligned_and_merge_again() {
        let mut free = FreeRanges::new(1 << 20);
        let first = free.take(100, 64).unwrap();
        let second = free.take(4096, 4096).unwrap();
        let third = free.take(10, 64).unwrap();
        assert_eq!((first, second), (0, 4096));
        assert_eq!(third, 128);
        assert!(free.take(1 << 20, 64).is_none());
        free.give_back(second, 4096);
        free.give_back(first, 100);
        free.give_back(third, 10);
        assert!(free.is_whole());
    }
}

//! A range of addresses that cannot wrap around.

use std::fmt;

use crate::error::{Code, Error, Result, Stage};

/// `length_bytes` bytes from `start`; never past the end of the address space.
///
/// The order is by start, then by length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    length_bytes: u64,
}

impl ByteRange {
    /// A range, or `None` when it would pass the end of the address space.
    #[must_use]
    pub const fn checked(start: u64, length_bytes: u64) -> Option<Self> {
        match start.checked_add(length_bytes) {
            Some(_) => Some(Self { start, length_bytes }),
            None => None,
        }
    }

    /// A range.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when it would pass the end of the address space.
    pub fn new(start: u64, length_bytes: u64) -> Result<Self> {
        Self::checked(start, length_bytes).ok_or_else(|| {
            Error::new(Code::InvalidArgument, Stage::Resolve, "the range passes the end of the address space")
                .range(start, length_bytes)
        })
    }

    /// From `start` up to, not including, `end`; `None` when `end` lies before `start`.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Option<Self> {
        match end.checked_sub(start) {
            Some(length_bytes) => Some(Self { start, length_bytes }),
            None => None,
        }
    }

    /// First address.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Number of bytes.
    #[must_use]
    pub const fn length_bytes(self) -> u64 {
        self.length_bytes
    }

    /// First address after the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.wrapping_add(self.length_bytes) // cannot wrap: every constructor has checked it
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.length_bytes == 0
    }

    /// Whether all of `other` lies inside. An empty range lies inside wherever its start is inside or at the end.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// Whether the address lies inside.
    #[must_use]
    pub const fn contains_address(self, address: u64) -> bool {
        self.start <= address && address < self.end()
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start < other.end() && other.start < self.end()
    }

    /// The bytes that both have, if any.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        if !self.overlaps(other) {
            return None;
        }
        Self::between(self.start.max(other.start), self.end().min(other.end()))
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{}", self.start, self.length_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, length_bytes: u64) -> ByteRange {
        ByteRange::new(start, length_bytes).unwrap()
    }

    #[test]
    fn a_range_cannot_wrap() {
        assert_eq!(ByteRange::new(u64::MAX, 1).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(range(u64::MAX, 0).end(), u64::MAX);
        assert_eq!(ByteRange::between(2, 1), None);
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!range(0, 8).overlaps(range(8, 8)));
        assert!(range(0, 9).overlaps(range(8, 8)));
        assert!(!range(4, 0).overlaps(range(0, 8)));
        assert!(range(0, 8).contains(range(8, 0)));
        assert!(!range(0, 8).contains_address(8));
    }

    proptest! {
        #[test]
        fn overlap_means_a_common_byte(a in 0u64..40, b in 0u64..40, m in 0u64..12, n in 0u64..12) {
            let (first, second) = (range(a, m), range(b, n));
            let common: Vec<u64> =
                (0..64).filter(|&x| first.contains_address(x) && second.contains_address(x)).collect();
            prop_assert_eq!(first.overlaps(second), !common.is_empty());
            let cut = first.intersection(second);
            prop_assert_eq!(cut.map(ByteRange::start), common.first().copied());
            prop_assert_eq!(cut.map_or(0, ByteRange::length_bytes), common.len() as u64);
            if !second.is_empty() {
                prop_assert_eq!(first.contains(second), common.len() as u64 == second.length_bytes());
            }
        }
    }
}

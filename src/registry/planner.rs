//! What to register with a vendor so that given ranges are usable: a pure function.
//!
//! A vendor region has a size limit, and a link may demand that it begins and ends on a boundary (HCCS: 2 MiB,
//! `facts`: CANN's IPC registration). Overlapping vendor regions are an error there, so what is registered
//! already is left as it is and only the gaps are filled.

use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// What the link and the memory allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Regions begin and end on multiples of this; a power of two, 1 for no demand.
    pub alignment_bytes: u64,
    /// Size of the pages that the memory is made of; a power of two, 1 when unknown. A range may be widened to
    /// whole pages, because a page belongs to one allocation, and no further.
    pub page_bytes: u64,
    /// Longest region; at least `alignment_bytes`.
    pub chunk_limit_bytes: u64,
    /// Where a cut may stand, counted from the start of what is registered in one piece: the caller's block
    /// size, so that no block is cut; 0 for anywhere. Given up where the chunk limit is smaller.
    pub granule_bytes: u64,
}

impl Rules {
    /// No demands, no limit.
    pub const FREE: Self =
        Self { alignment_bytes: 1, page_bytes: 1, chunk_limit_bytes: u64::MAX, granule_bytes: 0 };
}

/// A range that the link cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misaligned {
    /// The range, with its neighbours if it touched any.
    pub range: ByteRange,
    /// Bytes by which its start is past a boundary.
    pub start_remainder_bytes: u64,
    /// Bytes by which its end is past a boundary.
    pub end_remainder_bytes: u64,
}

impl Misaligned {
    /// As an error, for when no other link remains.
    #[must_use]
    pub fn error(&self, alignment_bytes: u64) -> Error {
        Error::new(
            Code::InvalidArgument,
            Stage::Register,
            format!(
                "the link needs memory aligned to {alignment_bytes} bytes; the start is {} past a boundary, \
                 the end {}",
                self.start_remainder_bytes, self.end_remainder_bytes
            ),
        )
        .range(self.range.start(), self.range.length_bytes())
        .advice("allocate with huge pages (2 MiB) and register whole pages, or let the link be RoCE")
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Regions to register, sorted, disjoint, and disjoint from those that exist.
    pub registrations: Vec<ByteRange>,
    /// What the link cannot take.
    pub misaligned: Vec<Misaligned>,
}

/// Plans the registration of `ranges`, given the vendor regions that exist (sorted and disjoint).
///
/// Ranges are sorted; those that overlap or touch become one; each is widened to boundaries where its pages
/// allow it; what exists is subtracted, and the rest is cut at the limit.
///
/// # Errors
/// [`Code::InvalidArgument`] when the rules contradict each other.
pub fn plan(ranges: &[ByteRange], existing: &[ByteRange], rules: &Rules) -> Result<Plan> {
    check(rules)?;
    let mut plan = Plan::default();
    let mut whole: Vec<ByteRange> = Vec::new();
    for range in merged(ranges) {
        match aligned(range, rules) {
            Ok(range) => whole.push(range),
            Err(misaligned) => plan.misaligned.push(misaligned),
        }
    }
    for range in merged(&whole) {
        for gap in gaps(range, existing) {
            cut(gap, range.start(), rules, &mut plan.registrations);
        }
    }
    Ok(plan)
}

fn check(rules: &Rules) -> Result<()> {
    let powers = rules.alignment_bytes.is_power_of_two() && rules.page_bytes.is_power_of_two();
    if powers && rules.chunk_limit_bytes >= rules.alignment_bytes {
        return Ok(());
    }
    Err(Error::new(
        Code::InvalidArgument,
        Stage::Configure,
        format!("registration rules without sense: {rules:?}"),
    ))
}

/// Sorted; what overlaps or touches made one; empty ranges left out.
fn merged(ranges: &[ByteRange]) -> Vec<ByteRange> {
    let mut sorted: Vec<_> = ranges.iter().copied().filter(|range| !range.is_empty()).collect();
    sorted.sort_unstable();
    let mut result: Vec<ByteRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match result.last_mut() {
            Some(last) if range.start() <= last.end() => {
                let end = last.end().max(range.end());
                *last = ByteRange::between(last.start(), end).unwrap_or(*last);
            }
            _ => result.push(range),
        }
    }
    result
}

/// Widened to boundaries, if they are no further than the pages reach.
fn aligned(range: ByteRange, rules: &Rules) -> Result<ByteRange, Misaligned> {
    let mask = rules.alignment_bytes - 1;
    let (start_remainder_bytes, end_remainder_bytes) = (range.start() & mask, range.end() & mask);
    if start_remainder_bytes == 0 && end_remainder_bytes == 0 {
        return Ok(range);
    }
    let refused = Misaligned { range, start_remainder_bytes, end_remainder_bytes };
    if rules.alignment_bytes > rules.page_bytes {
        return Err(refused);
    }
    let end = range.end().checked_next_multiple_of(rules.alignment_bytes).ok_or(refused)?;
    ByteRange::between(range.start() & !mask, end).ok_or(refused)
}

/// What of `range` no existing region covers.
pub(super) fn gaps(range: ByteRange, existing: &[ByteRange]) -> Vec<ByteRange> {
    let first = existing.partition_point(|other| other.end() <= range.start());
    let mut result = Vec::new();
    let mut from = range.start();
    for other in existing.iter().skip(first).take_while(|other| other.start() < range.end()) {
        result.extend(ByteRange::between(from, other.start()).filter(|gap| !gap.is_empty()));
        from = from.max(other.end());
    }
    result.extend(ByteRange::between(from, range.end()).filter(|gap| !gap.is_empty()));
    result
}

/// Cuts `gap` into pieces within the limit, at multiples of the granule from `origin` where that is possible.
fn cut(gap: ByteRange, origin: u64, rules: &Rules, pieces: &mut Vec<ByteRange>) {
    let mask = rules.alignment_bytes - 1;
    let limit_bytes = rules.chunk_limit_bytes & !mask;
    let mut from = gap.start();
    while from < gap.end() {
        let mut to = match from.checked_add(limit_bytes) {
            Some(to) if to < gap.end() => to & !mask,
            _ => gap.end(),
        };
        if to < gap.end()
            && rules.granule_bytes > 0
            && rules.granule_bytes.is_multiple_of(rules.alignment_bytes)
        {
            let whole = origin + (to - origin) / rules.granule_bytes * rules.granule_bytes;
            if whole > from {
                to = whole;
            }
        }
        if to <= from {
            to = gap.end().min(from.saturating_add(limit_bytes)); // a gap that begins off a boundary
        }
        pieces.extend(ByteRange::between(from, to));
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const HCCS: Rules = Rules {
        alignment_bytes: 2 * MIB,
        page_bytes: 2 * MIB,
        chunk_limit_bytes: 64 * MIB,
        granule_bytes: 0,
    };

    fn range(start: u64, length_bytes: u64) -> ByteRange {
        ByteRange::new(start, length_bytes).unwrap()
    }

    #[test]
    fn touching_ranges_become_one_and_are_cut_at_the_limit() {
        let plan = plan(&[range(64 * MIB, 40 * MIB), range(24 * MIB, 40 * MIB)], &[], &HCCS).unwrap();
        assert_eq!(plan.registrations, [range(24 * MIB, 64 * MIB), range(88 * MIB, 16 * MIB)]);
        assert_eq!(plan.misaligned, []);
    }

    #[test]
    fn widened_to_pages_and_no_further() {
        let given = range(4 * MIB + 512, 3 * MIB);
        let wide = plan(&[given], &[], &HCCS).unwrap();
        assert_eq!(wide.registrations, [range(4 * MIB, 4 * MIB)]);
        let small_pages = Rules { page_bytes: 4096, ..HCCS };
        let refused = plan(&[given], &[], &small_pages).unwrap();
        assert_eq!(refused.registrations, []);
        assert_eq!(
            refused.misaligned,
            [Misaligned { range: given, start_remainder_bytes: 512, end_remainder_bytes: MIB + 512 }]
        );
        let text = refused.misaligned[0].error(HCCS.alignment_bytes).to_string();
        assert!(text.contains("512") && text.contains("0x400200") && text.contains("2097152"), "{text}");
    }

    #[test]
    fn two_halves_of_a_page_are_one_aligned_range() {
        let rules = Rules { page_bytes: 1, ..HCCS };
        let plan = plan(&[range(2 * MIB, MIB), range(3 * MIB, MIB)], &[], &rules).unwrap();
        assert_eq!(plan.registrations, [range(2 * MIB, 2 * MIB)]);
    }

    #[test]
    fn what_exists_is_left_alone() {
        let existing = [range(0, 2 * MIB), range(4 * MIB, 2 * MIB)];
        let plan = plan(&[range(MIB, 7 * MIB)], &existing, &HCCS).unwrap();
        assert_eq!(plan.registrations, [range(2 * MIB, 2 * MIB), range(6 * MIB, 2 * MIB)]);
    }

    #[test]
    fn a_block_is_not_cut_when_the_limit_allows() {
        let rules = Rules { chunk_limit_bytes: 1000, granule_bytes: 300, ..Rules::FREE };
        let plan = plan(&[range(7, 2000)], &[], &rules).unwrap();
        assert_eq!(plan.registrations, [range(7, 900), range(907, 900), range(1807, 200)]);
    }

    #[test]
    fn senseless_rules_are_refused() {
        for rules in [
            Rules { alignment_bytes: 3, ..Rules::FREE },
            Rules { page_bytes: 0, ..Rules::FREE },
            Rules { alignment_bytes: 4096, chunk_limit_bytes: 100, ..Rules::FREE },
        ] {
            assert_eq!(plan(&[range(0, 1)], &[], &rules).unwrap_err().code(), Code::InvalidArgument);
        }
    }

    fn small_ranges() -> impl Strategy<Value = Vec<ByteRange>> {
        prop::collection::vec((0u64..500, 0u64..80).prop_map(|(start, length)| range(start, length)), 0..8)
    }

    proptest! {
        #[test]
        fn every_byte_is_covered_once_or_reported(
            ranges in small_ranges(),
            earlier in small_ranges(),
            alignment in 0u32..5,
            page in 0u32..6,
            limit in 16u64..100,
            granule in 0u64..40,
        ) {
            let rules = Rules {
                alignment_bytes: 1 << alignment,
                page_bytes: 1 << page,
                chunk_limit_bytes: limit,
                granule_bytes: granule,
            };
            let existing = plan(&earlier, &[], &rules).unwrap().registrations;
            let plan = plan(&ranges, &existing, &rules).unwrap();
            let mask = rules.alignment_bytes - 1;
            for (index, piece) in plan.registrations.iter().enumerate() {
                prop_assert!(!piece.is_empty() && piece.length_bytes() <= limit);
                prop_assert_eq!((piece.start() | piece.end()) & mask, 0, "{} is not aligned", piece);
                prop_assert!(existing.iter().all(|other| !other.overlaps(*piece)));
                if let Some(next) = plan.registrations.get(index + 1) {
                    prop_assert!(piece.end() <= next.start());
                }
            }
            let page_mask = rules.page_bytes.max(rules.alignment_bytes) - 1;
            for address in 0..700u64 {
                let asked = ranges.iter().any(|range| range.contains_address(address));
                let refused = plan.misaligned.iter().any(|item| item.range.contains_address(address));
                let added = plan.registrations.iter().any(|piece| piece.contains_address(address));
                let existed = existing.iter().any(|piece| piece.contains_address(address));
                prop_assert!(!asked || refused || added || existed, "{address} is lost");
                if added && !asked {
                    let page = (address & !page_mask)..=(address | page_mask);
                    prop_assert!(
                        page.clone().any(|near| ranges.iter().any(|range| range.contains_address(near))),
                        "{} is registered and its page was not asked for", address
                    );
                    prop_assert!(rules.alignment_bytes <= rules.page_bytes);
                }
            }
            for item in &plan.misaligned {
                prop_assert!(rules.alignment_bytes > rules.page_bytes);
                prop_assert!(item.start_remainder_bytes | item.end_remainder_bytes != 0);
            }
        }
    }
}

//! Blocks, extents, and the pass that turns the first into the second.

use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::plan::Border;

/// Longest extent; RoCE splits a work request there (CANN, `HcclBatchPut`), and a count of bytes stays a `u32`.
pub const MAX_EXTENT_BYTES: u64 = 1 << 31;

/// Most descriptors of one `HcclBatchPut` or `HcclBatchGet` call (CANN refuses 257).
pub const MAX_EXTENTS_PER_CALL: usize = 256;

/// Which way the bytes go, as seen from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the peer into local memory.
    Read,
    /// From local memory to the peer.
    Write,
}

impl Direction {
    /// Upstream's `opcode`: 1 writes, and everything else reads.
    #[must_use]
    pub const fn from_opcode(opcode: i32) -> Self {
        if opcode == 1 { Self::Write } else { Self::Read }
    }

    /// As printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// One request of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Address in this process.
    pub local: u64,
    /// Address in the peer.
    pub remote: u64,
    /// Number of bytes; none is allowed and gives no extent.
    pub length_bytes: u64,
    /// Index of its task in the submission.
    pub task: u32,
}

/// One contiguous copy: a run of whole or partial blocks that are contiguous on both sides.
///
/// It covers the tasks `first_task .. first_task + task_count` of its submission. It begins `skip_bytes` into
/// the first of them, covers those between wholly, and ends somewhere in the last.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Address in this process.
    pub local: u64,
    /// Address in the peer.
    pub remote: u64,
    /// Number of bytes, never 0.
    pub length_bytes: u64,
    /// Index in the submission of the first task that it covers.
    pub first_task: u32,
    /// Number of tasks that it covers, never 0.
    pub task_count: u32,
    /// Where in the first task it begins.
    pub skip_bytes: u64,
}

impl Extent {
    /// The local side.
    #[must_use]
    pub fn local_range(&self) -> Option<ByteRange> {
        ByteRange::checked(self.local, self.length_bytes)
    }

    /// The remote side.
    #[must_use]
    pub fn remote_range(&self) -> Option<ByteRange> {
        ByteRange::checked(self.remote, self.length_bytes)
    }
}

/// Appends the extents of `blocks` to `extents`.
///
/// Blocks are taken in order; one joins the extent before it when its task follows the extent's last task and
/// both its sides follow the extent's. `local` and `remote` say how far an extent may go on their side.
///
/// # Errors
/// [`Code::InvalidArgument`] for a block that passes the end of the address space, and
/// [`Code::AddressNotRegistered`] for one that a border does not let through; `extents` is then as it was.
pub fn coalesce(
    blocks: &[Block],
    local: &mut impl Border,
    remote: &mut impl Border,
    extents: &mut Vec<Extent>,
) -> Result<()> {
    let kept = extents.len();
    let done = append(blocks, local, remote, extents);
    if done.is_err() {
        extents.truncate(kept);
    }
    done
}

fn append(
    blocks: &[Block],
    local: &mut impl Border,
    remote: &mut impl Border,
    extents: &mut Vec<Extent>,
) -> Result<()> {
    let mut open: Option<Extent> = None;
    let mut room_bytes = 0; // how much longer `open` may become
    for block in blocks {
        ByteRange::new(block.local, block.length_bytes)?;
        ByteRange::new(block.remote, block.length_bytes)?;
        let mut skip_bytes = 0;
        while skip_bytes < block.length_bytes {
            let left_bytes = block.length_bytes - skip_bytes;
            let (from, to) = (block.local + skip_bytes, block.remote + skip_bytes);
            if let Some(extent) = open.as_mut().filter(|extent| {
                room_bytes > 0
                    && extent.local + extent.length_bytes == from
                    && extent.remote + extent.length_bytes == to
                    && skip_bytes == 0
                    && block.task.checked_sub(extent.first_task) == Some(extent.task_count)
            }) {
                let taken_bytes = left_bytes.min(room_bytes);
                extent.length_bytes += taken_bytes;
                extent.task_count += 1;
                room_bytes -= taken_bytes;
                skip_bytes += taken_bytes;
                continue;
            }
            extents.extend(open.take());
            let limit_bytes = MAX_EXTENT_BYTES
                .min(local.room_bytes(from).ok_or_else(|| uncovered("local", from, left_bytes))?)
                .min(remote.room_bytes(to).ok_or_else(|| uncovered("remote", to, left_bytes))?);
            let length_bytes = left_bytes.min(limit_bytes);
            open = Some(Extent {
                local: from,
                remote: to,
                length_bytes,
                first_task: block.task,
                task_count: 1,
                skip_bytes,
            });
            room_bytes = limit_bytes - length_bytes;
            skip_bytes += length_bytes;
        }
    }
    extents.extend(open);
    Ok(())
}

fn uncovered(side: &str, address: u64, length_bytes: u64) -> Error {
    Error::new(
        Code::AddressNotRegistered,
        Stage::Submit,
        format!("no registered region covers the {side} address {address:#x}"),
    )
    .range(address, length_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{NoBorder, Regions};

    fn range(start: u64, length_bytes: u64) -> ByteRange {
        ByteRange::new(start, length_bytes).unwrap()
    }

    fn blocks(list: &[(u64, u64, u64)]) -> Vec<Block> {
        (0..)
            .zip(list)
            .map(|(task, &(local, remote, length_bytes))| Block { local, remote, length_bytes, task })
            .collect()
    }

    fn free(list: &[(u64, u64, u64)]) -> Vec<Extent> {
        let mut extents = Vec::new();
        coalesce(&blocks(list), &mut NoBorder, &mut NoBorder, &mut extents).unwrap();
        extents
    }

    #[test]
    fn contiguous_on_both_sides_becomes_one() {
        let extents = free(&[(0, 100, 10), (10, 110, 10), (20, 120, 5), (30, 125, 5), (35, 131, 5)]);
        let seen: Vec<_> =
            extents.iter().map(|e| (e.local, e.length_bytes, e.first_task, e.task_count)).collect();
        assert_eq!(seen, [(0, 25, 0, 3), (30, 5, 3, 1), (35, 5, 4, 1)]);
    }

    #[test]
    fn order_is_kept_and_only_following_blocks_join() {
        assert_eq!(free(&[(10, 110, 10), (0, 100, 10), (20, 120, 10)]).len(), 3);
        assert_eq!(free(&[(0, 0, 0), (0, 0, 0)]), []);
    }

    #[test]
    fn more_than_the_longest_is_cut() {
        let gib = 1u64 << 30;
        let extents = free(&[(0, 0, 5 * gib), (5 * gib, 5 * gib, gib)]);
        let seen: Vec<_> = extents
            .iter()
            .map(|e| (e.length_bytes / gib, e.first_task, e.task_count, e.skip_bytes / gib))
            .collect();
        assert_eq!(seen, [(2, 0, 1, 0), (2, 0, 1, 2), (2, 0, 2, 4)]);
    }

    #[test]
    fn borders_of_either_side_cut() {
        let (local, remote) = ([range(0, 30), range(30, 100)], [range(1000, 50), range(1050, 100)]);
        let mut extents = Vec::new();
        let list = blocks(&[(10, 1010, 25), (35, 1035, 25)]);
        coalesce(&list, &mut Regions::new(&local), &mut Regions::new(&remote), &mut extents).unwrap();
        let seen: Vec<_> = extents
            .iter()
            .map(|e| (e.local, e.length_bytes, e.first_task, e.task_count, e.skip_bytes))
            .collect();
        assert_eq!(seen, [(10, 20, 0, 1, 0), (30, 20, 0, 2, 20), (50, 10, 1, 1, 15)]);
    }

    #[test]
    fn what_no_region_covers_is_refused_and_leaves_nothing() {
        let local = [range(0, 30)];
        let mut extents = free(&[(0, 0, 1)]);
        let list = blocks(&[(0, 0, 10), (20, 20, 11)]);
        let error = coalesce(&list, &mut Regions::new(&local), &mut NoBorder, &mut extents).unwrap_err();
        assert_eq!((error.code(), error.record().range), (Code::AddressNotRegistered, Some((30, 1))));
        assert_eq!(extents.len(), 1);
        let wrap = blocks(&[(u64::MAX, 0, 2)]);
        let error = coalesce(&wrap, &mut NoBorder, &mut NoBorder, &mut extents).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }

    #[test]
    fn an_opcode_other_than_one_reads() {
        let seen = [0, 1, 2, -1].map(Direction::from_opcode);
        assert_eq!(seen, [Direction::Read, Direction::Write, Direction::Read, Direction::Read]);
    }

    proptest! {
        /// Every byte of every block is in exactly one extent, at the right place, within the borders.
        #[test]
        fn extents_are_the_blocks(
            list in prop::collection::vec((0u64..300, 0u64..300, 0u64..40, any::<bool>()), 0..30),
            local_cuts in prop::collection::btree_set(1u64..1500, 0..6),
            remote_cuts in prop::collection::btree_set(1u64..1500, 0..6),
        ) {
            let mut planned: Vec<Block> = Vec::new();
            for (task, &(local, remote, length_bytes, follow)) in (0u32..).zip(&list) {
                let (local, remote) = match planned.last() {
                    Some(last) if follow => (last.local + last.length_bytes, last.remote + last.length_bytes),
                    _ => (local, remote),
                };
                planned.push(Block { local, remote, length_bytes, task });
            }
            let regions = |cuts: &std::collections::BTreeSet<u64>| -> Vec<ByteRange> {
                let mut from = 0;
                let ends = cuts.iter().copied().chain([4000]);
                ends.map(|end| {
                    let cut = range(from, end - from);
                    from = end;
                    cut
                }).collect()
            };
            let (local, remote) = (regions(&local_cuts), regions(&remote_cuts));
            let mut extents = Vec::new();
            coalesce(&planned, &mut Regions::new(&local), &mut Regions::new(&remote), &mut extents).unwrap();

            let bytes_of_blocks: Vec<_> = planned
                .iter()
                .flat_map(|block| (0..block.length_bytes).map(|at| (block.local + at, block.remote + at)))
                .collect();
            let bytes_of_extents: Vec<_> = extents
                .iter()
                .flat_map(|extent| (0..extent.length_bytes).map(|at| (extent.local + at, extent.remote + at)))
                .collect();
            prop_assert_eq!(bytes_of_blocks, bytes_of_extents);
            for extent in &extents {
                prop_assert!(extent.length_bytes > 0);
                prop_assert!(local.iter().any(|region| region.contains(extent.local_range().unwrap())));
                prop_assert!(remote.iter().any(|region| region.contains(extent.remote_range().unwrap())));
                let first = planned[usize::try_from(extent.first_task).unwrap()];
                prop_assert_eq!(first.local + extent.skip_bytes, extent.local);
                let last = planned[usize::try_from(extent.first_task + extent.task_count - 1).unwrap()];
                let end = extent.local + extent.length_bytes;
                prop_assert!(last.local < end && end <= last.local + last.length_bytes);
            }
        }
    }
}

//! From requests to what a transport is asked to do.
//!
//! A request of the caller is a [`Block`]; [`Groups`] sorts blocks by where they go, and [`coalesce`] turns
//! the blocks of one group into [`Extent`]s: neighbours that are contiguous on both sides become one, and what
//! a vendor limit forbids is cut (the border of a registered region on either side, 2 GiB, a call of 256).
//!
//! Invariants: an extent never crosses a border that it was planned with; extents cover every byte of every
//! block exactly once, in the order of the blocks; nothing is allocated per block beyond the output's growth.
//! Which transport runs them, and by which route, is for `engine` and `transport`.

mod border;
mod extent;
mod group;

pub use border::{Border, NoBorder, Regions};
pub use extent::{Block, Direction, Extent, MAX_EXTENT_BYTES, MAX_EXTENTS_PER_CALL, coalesce};
pub use group::Groups;

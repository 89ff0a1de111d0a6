//! From requests to what a transport is asked to do.
//!
//! A request of the caller is a [`Block`]; [`Groups`] sorts blocks by where they go, and [`coalesce`] turns
//! the blocks of one group into [`Extent`]s: neighbours that are contiguous on both sides become one, and what
//! a vendor limit forbids is cut (the border of a registered region on either side, 2 GiB, a call of 256).
//!
//! Invariants: an extent never crosses a border that it was planned with; extents cover every byte of every
//! block exactly once, in the order of the blocks; nothing is allocated per block beyond the output's growth.
//! Which transport runs them is for `engine` and `transport`.
//!
//! Between two processes' NPUs there are two routes. [`choose`] says which is faster for a group, by a table of costs
//! ([`CostTable`]) that says where each of its numbers is from, can be printed, and can be changed by a file.
//! [`gain`] derives what the slower way round can give at best.

mod border;
mod choice;
mod cost;
mod cost_table;
mod extent;
mod fill;
pub mod gain;
mod group;

pub use border::{Border, NoBorder, Regions};
pub use choice::{Allowed, Choice, Group, MIN_FILL_BYTES, PREFERENCE, Route, Slots, choose};
pub use cost::{CopyCost, DescriptorCost, LinkClass, LinkCosts, Side};
pub use cost_table::{CostTable, MAX_TABLE_BYTES};
pub use extent::{Block, Direction, Extent, MAX_EXTENT_BYTES, MAX_EXTENTS_PER_CALL, coalesce};
pub use fill::Fill;
pub use group::Groups;

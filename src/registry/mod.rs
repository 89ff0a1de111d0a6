//! Memory that takes part in transfers.
//!
//! A [`Registry`] holds what one engine has registered, as [`Region`]s: disjoint ranges with a location, a
//! kind and a count of transfers in flight. A [`Pin`] keeps a region from being removed; a removal keeps new
//! pins out while it runs. [`PinnedSet`] and [`planner`] serve transports that must register memory with a
//! vendor, whose regions have limits of their own and are shared by all engines of the process.
//!
//! Invariants: registered ranges never overlap and are never empty; a region that is being added or removed
//! cannot be pinned or found; once a removal has succeeded no pin exists and none can be made; the epoch
//! grows with every change that a peer would see. No lock is held while a caller's code runs, except by a
//! [`Resolver`], which is for the length of one planning pass.

#[cfg(all(loom, test))]
mod models;
mod pinned;
pub mod planner;
mod region;
mod table;
#[cfg(test)]
mod tests;

pub use pinned::{Coverage, PinnedSet};
pub use region::{Pin, Region};
pub use table::{MAX_REGIONS, Registration, Registry, Removal, Resolver};

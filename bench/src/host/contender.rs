//! The face of whoever takes part.

use std::time::Duration;

use anyhow::Result;

use super::{Cell, Measured};

/// Somebody who can move the blocks of a cell.
pub trait Contender {
    /// Name in the record.
    fn name(&self) -> &'static str;

    /// Whether it can do the cell at all.
    fn takes(&self, _cell: &Cell) -> bool {
        true
    }

    /// Moves blocks for so long.
    ///
    /// # Errors
    /// When a transfer failed.
    fn run(&mut self, cell: &Cell, limit: Duration) -> Result<Measured>;
}

//! One request of a lane, from its header to its answer.

use std::time::Instant;

use crate::batch::Batch;
use crate::transport::tcp::transfer::Piece;
use crate::transport::tcp::wire::{HEADER_BYTES, Header};

/// One request of this lane.
pub(super) struct Request {
    /// `None` once it was given up and reported.
    pub(super) piece: Option<Piece>,
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) write: bool,
    pub(super) local: u64,
    pub(super) length_bytes: u64,
    pub(super) taken_at: Instant,
}

impl Request {
    pub(super) fn new(piece: Piece, confirmed: bool) -> Self {
        let (write, local, length_bytes) = (piece.transfer.is_write(), piece.local, piece.length_bytes);
        let header = Header { length_bytes, address: piece.remote, write, confirmed }.encode();
        Self { piece: Some(piece), header, write, local, length_bytes, taken_at: Instant::now() }
    }

    /// Whether somebody who waits for the batch waits for this.
    pub(super) fn is_of(&self, batch: &Batch) -> bool {
        self.piece.as_ref().is_some_and(|piece| std::ptr::eq(piece.transfer.batch(), batch))
    }

    pub(super) fn wire_bytes(&self) -> u64 {
        let header_bytes = u64::try_from(HEADER_BYTES).unwrap_or_default();
        if self.write { header_bytes.saturating_add(self.length_bytes) } else { header_bytes }
    }
}

//! The memory that this client lends to the pool.
//!
//! A segment is made once and keeps its id, its address and its memory until the store is closed: that is how a
//! master that was restarted can count the objects in it again. Its memory is given back only when the engine has
//! withdrawn it; memory that somebody may still use stays mapped instead.

use mooncake_wire::model::{Segment, Uuid};
use parking_lot::Mutex;

use crate::config::Config;
use crate::endpoint::random_bytes;
use crate::engine::Engine;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{HugePages, SharedMemory, available_bytes, placement};

/// Most segments of one client.
pub const MAX_SEGMENTS: usize = 64;
/// Largest segment; a client that lends more lends several.
pub const MAX_SEGMENT_BYTES: u64 = 4 << 40;

/// A random id in the shape that upstream's have.
pub(super) fn new_id() -> Result<Uuid> {
    let bytes: [u8; 16] = random_bytes()?;
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let first = (u64::from_le_bytes([a, b, c, d, e, f, g, h]) & !0xf000) | 0x4000;
    let second = (u64::from_le_bytes(rest) & !(0xc0 << 56)) | (0x80 << 56);
    Ok(Uuid { first, second })
}

/// What all segments of a client have in common.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// The client's host name: the name of its segments.
    pub(super) name: String,
    /// Where its engine listens.
    pub(super) endpoint: String,
    /// Its protocol.
    pub(super) protocol: String,
    /// Host part of the name; empty for loopback.
    pub(super) host_id: String,
}

struct Lent {
    wire: Segment,
    memory: SharedMemory,
}

/// The segments of one client.
#[derive(Default)]
pub(super) struct Segments(Mutex<Vec<Lent>>);

impl Segments {
    /// Takes memory and makes it known to the engine's peers; the caller mounts what is returned.
    pub(super) fn create(
        &self,
        engine: &Engine,
        owner: &Owner,
        total_bytes: u64,
        config: &Config,
    ) -> Result<Vec<Segment>> {
        let huge = if config.store_huge_pages { HugePages::Try } else { HugePages::No };
        if config.store_prefault {
            enough(total_bytes)?;
        }
        let mut made = Vec::new();
        let mut left = total_bytes;
        while left > 0 {
            let length_bytes = left.min(MAX_SEGMENT_BYTES);
            left -= length_bytes;
            // Of huge pages it may be more than was asked for; the rest is not lent.
            let memory = SharedMemory::allocate(length_bytes, huge)?;
            placement::place(memory.range(), config.store_nodes)?;
            if config.store_prefault {
                placement::populate(memory.range())?;
            }
            // What it is, we know: no vendor library has to be asked.
            engine.register(memory.address(), length_bytes, "cpu:0")?;
            let wire = Segment {
                id: new_id()?,
                name: owner.name.clone(),
                base: memory.address(),
                size: length_bytes,
                te_endpoint: owner.endpoint.clone(),
                protocol: owner.protocol.clone(),
                host_id: owner.host_id.clone(),
            };
            made.push(wire.clone());
            self.0.lock().push(Lent { wire, memory });
        }
        Ok(made)
    }

    /// What is lent now.
    pub(super) fn list(&self) -> Vec<Segment> {
        self.0.lock().iter().map(|lent| lent.wire.clone()).collect()
    }

    /// Withdraws all from the engine and gives the memory back. The master must have been told before.
    pub(super) fn release(&self, engine: &Engine) {
        for lent in std::mem::take(&mut *self.0.lock()) {
            match engine.unregister(lent.wire.base) {
                Ok(()) => drop(lent.memory),
                // Closed with the engine: its listeners are gone, so nobody reaches the memory any more.
                Err(error) if error.code() == Code::StaleHandle => drop(lent.memory),
                Err(error) => {
                    log::warn!("segment {} stays in memory: {error}", lent.wire.name);
                    std::mem::forget(lent.memory);
                }
            }
        }
    }
}

/// Memory that is to be had at once has to be there: the kernel would end some process otherwise.
fn enough(total_bytes: u64) -> Result<()> {
    match available_bytes() {
        Some(available) if available < total_bytes => Err(Error::new(
            Code::Memory,
            Stage::Register,
            format!("{total_bytes} bytes are to be taken at once, and the host has {available} free"),
        )
        .advice("lend less, or unset MOONCAKE_TRANSFER_STORE_PREFAULT")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_and_marked_as_such() {
        let (a, b) = (new_id().unwrap(), new_id().unwrap());
        assert_ne!(a, b);
        assert_eq!((a.first >> 12) & 15, 4);
        assert_eq!(a.second >> 62, 2);
    }
}

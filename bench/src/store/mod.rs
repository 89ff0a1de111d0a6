//! The store between two processes of one host: this client beside upstream's released one, each at the master of
//! its own kind, cell by cell and interleaved in one run.
//!
//! One process lends the pool's memory, the other one puts and gets; none of the values lies in the caller's own
//! memory. A cell is an operation, a value's size and the keys of a call. Puts take new keys, of which at most
//! [`PUT_BYTES`] are made before they are removed again; gets walk through keys that were put before. The exist
//! cells have a floor: a program that sends a request of that size to a thread that answers, both waiting in the
//! kernel.

pub mod floor;
pub mod ours;
pub mod upstream;

use std::time::Duration;

use anyhow::Result;

use crate::statistics::Sample;

/// What one process lends.
pub const LENT_BYTES: u64 = 1536 << 20;
/// What the puts of a turn may store.
pub const PUT_BYTES: u64 = 1 << 30;
/// The caller's buffer.
pub const BUFFER_BYTES: u64 = 512 << 20;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// One value from the caller's bytes.
    Put,
    /// One value into new bytes.
    Get,
    /// Values from addresses.
    BatchPutFrom,
    /// Values to addresses.
    BatchGetInto,
    /// Whether keys exist.
    Exist,
}

impl Operation {
    /// Name in the record and on the wire to the other process.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::BatchPutFrom => "batch_put_from",
            Self::BatchGetInto => "batch_get_into",
            Self::Exist => "exist",
        }
    }

    /// Whether it makes new keys.
    #[must_use]
    pub fn stores(self) -> bool {
        matches!(self, Self::Put | Self::BatchPutFrom)
    }
}

/// What is measured at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What is called.
    pub operation: Operation,
    /// Bytes of a value; 0 where none moves.
    pub size_bytes: u64,
    /// Keys of a call.
    pub batch: u64,
}

impl Cell {
    /// The cells of a run.
    #[must_use]
    pub fn all(sizes: &[u64], batches: &[u64]) -> Vec<Self> {
        let mut cells = Vec::new();
        for &size_bytes in sizes {
            for operation in [Operation::Put, Operation::Get] {
                cells.push(Self { operation, size_bytes, batch: 1 });
            }
            for &batch in batches.iter().filter(|batch| *batch * size_bytes <= BUFFER_BYTES) {
                for operation in [Operation::BatchPutFrom, Operation::BatchGetInto] {
                    cells.push(Self { operation, size_bytes, batch });
                }
            }
        }
        for batch in [1, 1000] {
            cells.push(Self { operation: Operation::Exist, size_bytes: 0, batch });
        }
        cells
    }

    /// Bytes of a call.
    #[must_use]
    pub fn call_bytes(&self) -> u64 {
        self.size_bytes * self.batch
    }

    /// Calls of a turn, so that what is put fits the pool.
    #[must_use]
    pub fn most_calls(&self) -> u64 {
        if self.operation.stores() {
            (PUT_BYTES / self.call_bytes().max(1)).clamp(1, 100_000)
        } else {
            1_000_000
        }
    }

    /// Keys that reads walk through.
    #[must_use]
    pub fn keys(&self) -> u64 {
        let most = BUFFER_BYTES.checked_div(self.size_bytes).map_or(1000, |count| count.min(1024));
        most.max(self.batch)
    }

    /// The cell whose first call puts what this one reads.
    #[must_use]
    pub fn preparation(&self) -> Self {
        let size_bytes = if self.size_bytes == 0 { 64 } else { self.size_bytes };
        Self { operation: Operation::BatchPutFrom, size_bytes, batch: self.keys() }
    }
}

/// What one contender did in one cell.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Time of each call.
    pub calls: Vec<Duration>,
    /// From the first call's start to the last one's end.
    pub elapsed: Duration,
    /// Processor time of client, owner and master.
    pub processor: Duration,
}

impl Measured {
    /// Keys per second.
    #[must_use]
    pub fn keys_per_second(&self, cell: &Cell) -> f64 {
        cell.batch as f64 * self.calls.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Processor time per key, in microseconds.
    #[must_use]
    pub fn processor_us_per_key(&self, cell: &Cell) -> f64 {
        self.processor.as_secs_f64() * 1e6 / (cell.batch as f64 * self.calls.len() as f64)
    }

    /// The times of the calls, sorted.
    #[must_use]
    pub fn sample(&self) -> Sample {
        Sample::new(self.calls.clone())
    }
}

/// Somebody who can run a cell.
pub trait Contender {
    /// Name in the record.
    fn name(&self) -> &'static str;

    /// Whether it takes part in a cell.
    fn takes(&self, _cell: &Cell) -> bool {
        true
    }

    /// Runs a cell for so long, with keys that begin with `name`.
    ///
    /// # Errors
    /// When a call failed.
    fn run(&mut self, cell: &Cell, name: &str, limit: Duration) -> Result<Measured>;

    /// Removes all objects.
    ///
    /// # Errors
    /// When they cannot be removed.
    fn clear(&mut self) -> Result<()>;

    /// Closes the client; gives the times of its set-up and of its end.
    ///
    /// # Errors
    /// When it cannot be closed.
    fn close(&mut self) -> Result<Option<(Duration, Duration)>>;
}

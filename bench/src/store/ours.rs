//! This store client, at a master of ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mooncake::config::Config;
use mooncake::store::{ReplicateConfig, Store, StoreOptions};

use super::{BUFFER_BYTES, Cell, Contender, Measured, Operation};
use crate::host::processor_time_of;

const PAGE_BYTES: u64 = 4096;

/// A store at a master.
///
/// # Errors
/// When it cannot be set up.
pub fn store(master: &str, lent_bytes: u64) -> Result<Arc<Store>> {
    Ok(Store::setup(StoreOptions {
        local_hostname: "127.0.0.1".into(),
        global_segment_size_bytes: lent_bytes,
        master_server_address: master.into(),
        config: Config::from_env(),
        ..StoreOptions::default()
    })?)
}

/// The client.
pub struct Ours {
    store: Arc<Store>,
    set_up: Duration,
    /// Memory for the values, and where in it their page begins.
    buffer: Vec<u8>,
    offset: usize,
    config: ReplicateConfig,
    /// Owner and master.
    others: [u32; 2],
}

impl Ours {
    /// A client of a master, whose memory another process lends.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn new(master: &str, others: [u32; 2]) -> Result<Self> {
        let begun = Instant::now();
        let store = store(master, 0)?;
        let set_up = begun.elapsed();
        let mut buffer = vec![0; usize::try_from(BUFFER_BYTES + PAGE_BYTES)?];
        for (page, bytes) in buffer.chunks_mut(4096).enumerate() {
            if let Some(first) = bytes.first_mut() {
                *first = u8::try_from(1 + page % 251)?;
            }
        }
        // A page's start, as tensors and upstream's buffer have it.
        let start = address_of(&buffer);
        let offset = usize::try_from(start.next_multiple_of(PAGE_BYTES) - start)?;
        store.register_buffer(start.next_multiple_of(PAGE_BYTES), BUFFER_BYTES)?;
        Ok(Self { store, set_up, buffer, offset, config: ReplicateConfig::default(), others })
    }

    fn call(&self, cell: &Cell, keys: &[&[u8]], pieces: &[(u64, u64)]) -> Result<bool> {
        let good = match (cell.operation, keys) {
            (Operation::Put, [key, ..]) => {
                let end = self.offset + usize::try_from(cell.size_bytes)?;
                let value = self.buffer.get(self.offset..end).unwrap_or_default();
                self.store.put(key, value, &self.config).is_ok()
            }
            (Operation::Get, [key, ..]) => self
                .store
                .get(key)
                .is_ok_and(|value| u64::try_from(value.len()).is_ok_and(|length| length == cell.size_bytes)),
            (Operation::BatchPutFrom, _) => {
                self.store.batch_put_from(keys, pieces, &self.config).iter().all(Result::is_ok)
            }
            (Operation::BatchGetInto, _) => {
                let read = self.store.batch_get_into(keys, pieces);
                read.iter().all(|bytes| bytes.as_ref().is_ok_and(|bytes| *bytes == cell.size_bytes))
            }
            (Operation::Exist, [key]) => self.store.is_exist(key).unwrap_or(false),
            _ => self.store.batch_is_exist(keys).iter().all(|found| matches!(found, Ok(true))),
        };
        Ok(good)
    }

    fn processor(&self) -> Duration {
        [std::process::id(), self.others[0], self.others[1]].iter().map(|pid| processor_time_of(*pid)).sum()
    }
}

fn address_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.as_ptr().expose_provenance()).unwrap_or_default()
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn run(&mut self, cell: &Cell, name: &str, limit: Duration) -> Result<Measured> {
        let base = address_of(&self.buffer).next_multiple_of(PAGE_BYTES);
        let pieces: Vec<_> =
            (0..cell.batch).map(|index| (base + index * cell.size_bytes, cell.size_bytes)).collect();
        let count = cell.keys();
        let mut calls = Vec::new();
        let before = self.processor();
        let start = Instant::now();
        for call in 0..cell.most_calls() {
            let names: Vec<String> = (0..cell.batch)
                .map(|index| {
                    let number = call * cell.batch + index;
                    format!("{name}/{}", if cell.operation.stores() { number } else { number % count })
                })
                .collect();
            let keys: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            let begun = Instant::now();
            if !self.call(cell, &keys, &pieces)? {
                bail!("a call of ours failed in {cell:?}");
            }
            calls.push(begun.elapsed());
            if start.elapsed() >= limit {
                break;
            }
        }
        let elapsed = start.elapsed();
        Ok(Measured { calls, elapsed, processor: self.processor().saturating_sub(before) })
    }

    fn clear(&mut self) -> Result<()> {
        self.store.remove_all(true)?;
        Ok(())
    }

    fn close(&mut self) -> Result<Option<(Duration, Duration)>> {
        let begun = Instant::now();
        self.store.close();
        Ok(Some((self.set_up, begun.elapsed())))
    }
}

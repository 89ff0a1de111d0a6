//! Our functions that move objects: any number of keys, any number of buffers for each.

use std::ffi::{c_char, c_int};

use mooncake::error::Stage;
use mooncake::store::{Outcome, Range, ReplicateConfig, Store};

use super::arguments::{Buffers, Piece, Results, count, keys, numbers, replication, rows};
use super::{Answer, code, store, store_export};
use crate::abi::{Handle, StoreReplication};
use crate::boundary::{array, invalid};

/// `MOONCAKE_TRANSFER_STORE_UPSERT`.
const UPSERT: u32 = 1;
/// `MOONCAKE_TRANSFER_STORE_STAGED`.
const STAGED: u32 = 2;
/// `MOONCAKE_TRANSFER_STORE_EXACT`.
const EXACT: u32 = 1;

/// Refuses bits that have no meaning, so that they can get one.
fn check_flags(flags: u32, known: u32) -> Answer<()> {
    if flags & !known != 0 {
        return Err(invalid(Stage::Submit, format!("flags are {flags:#x}; {known:#x} have a meaning")).into());
    }
    Ok(())
}

/// The bytes of the buffers, for the calls that take values.
///
/// # Safety
/// Each buffer is readable memory of this process that nobody changes for `'a`.
unsafe fn values<'a>(pieces: &[Piece]) -> Answer<Vec<&'a [u8]>> {
    pieces
        .iter()
        .map(|&(address, length)| {
            let address = usize::try_from(address).unwrap_or(0);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let start = std::ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: the caller vouches for the memory.
            Ok(unsafe { array(start, length, "addresses", Stage::Submit) }?)
        })
        .collect()
}

/// Stores values by way of the local buffer: those of one part at once, others one after the other.
///
/// # Safety
/// As [`values`].
unsafe fn put_staged(
    store: &Store,
    keys: &[&[u8]],
    buffers: &Buffers,
    config: &ReplicateConfig,
    upsert: bool,
) -> Answer<Vec<Outcome<()>>> {
    // SAFETY: the caller vouches for the memory.
    let values = unsafe { values(buffers.pieces()) }?;
    if buffers.counts().iter().all(|count| *count == 1) {
        return Ok(if upsert {
            store.batch_upsert(keys, &values, config)
        } else {
            store.batch_put(keys, &values, config)
        });
    }
    let parts = rows(&values, buffers.counts());
    let each = keys.iter().zip(parts).map(|(key, parts)| match (parts, upsert) {
        // No part is a value of no bytes, which is refused as such.
        ([], false) => store.put(key, &[], config),
        ([], true) => store.upsert(key, &[], config),
        (parts, false) => store.put_parts(key, parts, config),
        (parts, true) => store.upsert_parts(key, parts, config),
    });
    Ok(each.collect())
}

store_export! {
    /// Stores objects.
    fn mooncake_transfer_store_put(
        store: Handle,
        keys: *const c_char,
        key_lengths_bytes: *const u64,
        key_count: usize,
        buffer_counts: *const u64,
        addresses: *const u64,
        lengths_bytes: *const u64,
        replication: *const StoreReplication,
        flags: u32,
        results: *mut i64,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results, key_count) }?;
        // SAFETY: the header asks for arrays of those lengths.
        let keys = unsafe { self::keys(keys, key_lengths_bytes, key_count) }?;
        // SAFETY: as above.
        let buffers = unsafe { Buffers::read(key_count, buffer_counts, addresses, lengths_bytes) }?;
        // SAFETY: the header asks for NULL or a struct whose struct_size is set.
        let config = unsafe { self::replication(replication) }?;
        check_flags(flags, UPSERT | STAGED)?;
        let store = self::store(store)?;
        let upsert = flags & UPSERT != 0;
        let outcomes = if flags & STAGED != 0 {
            // SAFETY: the header asks for memory that can be read.
            unsafe { put_staged(&store, &keys, &buffers, &config, upsert) }?
        } else if upsert {
            store.batch_upsert_from_multi_buffers(&keys, &buffers.rows(), &config)
        } else {
            store.batch_put_from_multi_buffers(&keys, &buffers.rows(), &config)
        };
        results.write(numbers(&outcomes, |()| 0).into_iter());
        Ok(0)
    }
}

store_export! {
    /// Reads objects into buffers.
    fn mooncake_transfer_store_get(
        store: Handle,
        keys: *const c_char,
        key_lengths_bytes: *const u64,
        key_count: usize,
        buffer_counts: *const u64,
        addresses: *const u64,
        lengths_bytes: *const u64,
        flags: u32,
        results: *mut i64,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results, key_count) }?;
        // SAFETY: the header asks for arrays of those lengths.
        let keys = unsafe { self::keys(keys, key_lengths_bytes, key_count) }?;
        // SAFETY: as above.
        let buffers = unsafe { Buffers::read(key_count, buffer_counts, addresses, lengths_bytes) }?;
        check_flags(flags, EXACT)?;
        let store = self::store(store)?;
        let outcomes = if flags & EXACT != 0 {
            store.batch_get_into_multi_buffers(&keys, &buffers.rows())
        } else if buffers.counts().iter().all(|count| *count == 1) {
            store.batch_get_into(&keys, buffers.pieces())
        } else {
            let message = "several buffers for a key are read with MOONCAKE_TRANSFER_STORE_EXACT";
            return Err(invalid(Stage::Submit, message).into());
        };
        results.write(numbers(&outcomes, count).into_iter());
        Ok(0)
    }
}

store_export! {
    /// Reads parts of objects.
    fn mooncake_transfer_store_get_ranges(
        store: Handle,
        keys: *const c_char,
        key_lengths_bytes: *const u64,
        key_count: usize,
        buffer_counts: *const u64,
        addresses: *const u64,
        lengths_bytes: *const u64,
        source_offsets_bytes: *const u64,
        results: *mut i64,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for arrays of those lengths.
        let keys = unsafe { self::keys(keys, key_lengths_bytes, key_count) }?;
        // SAFETY: as above.
        let buffers = unsafe { Buffers::read(key_count, buffer_counts, addresses, lengths_bytes) }?;
        let part_count = buffers.pieces().len();
        // SAFETY: as above.
        let results = unsafe { Results::new(results, part_count) }?;
        // SAFETY: as above.
        let offsets = unsafe { array(source_offsets_bytes, part_count, "source_offsets_bytes", Stage::Submit) }?;
        let ranges: Vec<Range> = buffers
            .pieces()
            .iter()
            .zip(offsets)
            .map(|(&(address, length_bytes), &offset_bytes)| Range { address, offset_bytes, length_bytes })
            .collect();
        let outcomes = self::store(store)?.batch_get_into_ranges(&keys, &rows(&ranges, buffers.counts()));
        let of_keys = numbers(&outcomes, |_| 0);
        // A part has its own length, or the failure of its key.
        let each = of_keys.iter().zip(rows(&ranges, buffers.counts())).flat_map(|(&code, parts)| {
            parts.iter().map(move |part| if code < 0 { code } else { count(&part.length_bytes) })
        });
        results.write(each);
        Ok(0)
    }
}

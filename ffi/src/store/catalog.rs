//! Our functions that ask about keys and remove them.

use std::collections::HashSet;
use std::ffi::{c_char, c_int};

use mooncake::error::Stage;
use mooncake::store::{ErrorCode, Failure, Outcome, Placement, Replica};

use super::arguments::{Results, count, keys, numbers};
use super::{Answer, Refusal, code, store, store_export};
use crate::abi::Handle;
use crate::boundary::{invalid, output, text, write_cut};

store_export! {
    /// Whether objects are there.
    fn mooncake_transfer_store_exist(
        store: Handle,
        keys: *const c_char,
        key_lengths_bytes: *const u64,
        key_count: usize,
        results: *mut i64,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results, key_count) }?;
        // SAFETY: the header asks for arrays of those lengths.
        let keys = unsafe { self::keys(keys, key_lengths_bytes, key_count) }?;
        let outcomes = self::store(store)?.batch_is_exist(&keys);
        results.write(numbers(&outcomes, |there| i64::from(*there)).into_iter());
        Ok(0)
    }
}

store_export! {
    /// Lengths of objects.
    fn mooncake_transfer_store_sizes(
        store: Handle,
        keys: *const c_char,
        key_lengths_bytes: *const u64,
        key_count: usize,
        results: *mut i64,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results, key_count) }?;
        // SAFETY: the header asks for arrays of those lengths.
        let keys = unsafe { self::keys(keys, key_lengths_bytes, key_count) }?;
        let store = self::store(store)?;
        let outcomes: Vec<Outcome<u64>> = match keys.as_slice() {
            [key] => vec![store.get_size(key)],
            keys => store.batch_replicas(keys).into_iter().map(|found| found.and_then(|list| size(&list))).collect(),
        };
        results.write(numbers(&outcomes, count).into_iter());
        Ok(0)
    }
}

/// The length of an object, from its complete copies.
fn size(replicas: &[Replica]) -> Outcome<u64> {
    let complete =
        replicas.iter().filter(|replica| replica.status == mooncake::store::ReplicaStatus::Complete);
    let length = |replica: &Replica| match &replica.placement {
        Placement::Memory(buffer) | Placement::NvmeOverFabrics(buffer) => Some(buffer.size),
        Placement::Disk(file) => Some(file.size),
        Placement::LocalDisk(disk) => Some(disk.size),
        Placement::DistributedFile(file) => Some(file.size),
    };
    complete.filter_map(length).next().ok_or_else(|| ErrorCode::REPLICA_IS_NOT_READY.into())
}

store_export! {
    /// Removes objects.
    fn mooncake_transfer_store_remove(
        store: Handle,
        keys: *const c_char,
        key_lengths_bytes: *const u64,
        key_count: usize,
        force: c_int,
        results: *mut i64,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results, key_count) }?;
        // SAFETY: the header asks for arrays of those lengths.
        let keys = unsafe { self::keys(keys, key_lengths_bytes, key_count) }?;
        let store = self::store(store)?;
        let outcomes = match keys.as_slice() {
            // The call for one key is known to every master.
            [key] => vec![store.remove(key, force != 0)],
            keys => store.batch_remove(keys, force != 0),
        };
        results.write(numbers(&outcomes, |()| 0).into_iter());
        Ok(0)
    }
}

store_export! {
    /// Drops copies of objects.
    fn mooncake_transfer_store_clear(
        store: Handle,
        keys: *const c_char,
        key_lengths_bytes: *const u64,
        key_count: usize,
        segment_name: *const c_char,
        results: *mut i64,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results, key_count) }?;
        // SAFETY: the header asks for arrays of those lengths.
        let keys = unsafe { self::keys(keys, key_lengths_bytes, key_count) }?;
        // SAFETY: the header asks for a text closed by NUL.
        let segment = unsafe { text(segment_name, "segment_name", Stage::Submit) }?;
        let cleared = self::store(store)?.batch_replica_clear(&keys, &segment)?;
        let cleared: HashSet<Vec<u8>> = cleared.into_iter().collect();
        results.write(keys.iter().map(|key| i64::from(cleared.contains(*key))));
        Ok(0)
    }
}

/// A text as JSON has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(letter);
            }
            control if u32::from(control) < 0x20 => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A copy as JSON.
fn described(replica: &Replica) -> String {
    let place = match &replica.placement {
        Placement::Memory(buffer) => format!(
            "\"kind\":\"memory\",\"size\":{},\"address\":{},\"endpoint\":{}",
            buffer.size,
            buffer.address,
            quoted(&buffer.endpoint)
        ),
        Placement::NvmeOverFabrics(buffer) => format!("\"kind\":\"nof\",\"size\":{}", buffer.size),
        Placement::Disk(file) => {
            format!("\"kind\":\"disk\",\"size\":{},\"path\":{}", file.size, quoted(&file.path))
        }
        Placement::LocalDisk(disk) => {
            format!("\"kind\":\"local_disk\",\"size\":{},\"endpoint\":{}", disk.size, quoted(&disk.endpoint))
        }
        Placement::DistributedFile(file) => {
            format!("\"kind\":\"dfs\",\"size\":{},\"path\":{}", file.size, quoted(&file.path))
        }
    };
    format!("{{\"id\":{},\"status\":{},{place}}}", replica.id, replica.status as u8)
}

/// All copies of all keys as JSON. A failure that is not about one key is the call's.
fn listing(found: &[Outcome<Vec<Replica>>]) -> Answer<String> {
    let mut text = String::from("[");
    for (index, outcome) in found.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match outcome {
            Ok(replicas) => {
                let each: Vec<String> = replicas.iter().map(described).collect();
                text.push_str(&format!("[{}]", each.join(",")));
            }
            Err(failure)
                if matches!(
                    failure.code(),
                    ErrorCode::OBJECT_NOT_FOUND | ErrorCode::REPLICA_IS_NOT_READY
                ) =>
            {
                text.push_str("null");
            }
            Err(failure) => return Err(Refusal(failure.clone())),
        }
    }
    text.push(']');
    Ok(text)
}

store_export! {
    /// Where the copies of objects are.
    fn mooncake_transfer_store_replicas(
        store: Handle,
        keys: *const c_char,
        key_lengths_bytes: *const u64,
        key_count: usize,
        text: *mut c_char,
        capacity: usize,
        length_bytes: *mut usize,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for a place of the caller's.
        let length = unsafe { output(length_bytes, "length_bytes", Stage::Submit) }?;
        // SAFETY: the header asks for arrays of those lengths.
        let keys = unsafe { self::keys(keys, key_lengths_bytes, key_count) }?;
        let listing = listing(&self::store(store)?.batch_replicas(&keys))?;
        length.write(listing.len());
        if listing.len() >= capacity {
            let message = format!("the text takes {} bytes, the buffer has {capacity}", listing.len() + 1);
            return Err(Refusal(Failure::new(ErrorCode::BUFFER_OVERFLOW, invalid(Stage::Submit, message))));
        }
        // SAFETY: the header asks for a buffer of that length.
        unsafe { write_cut(&listing, text, capacity, Stage::Submit) }?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_json_has_it() {
        assert_eq!(quoted("a\"b\\c\n\u{1f}é"), "\"a\\\"b\\\\c\\u000a\\u001fé\"");
    }

    #[test]
    fn absent_objects_are_null_and_other_failures_are_the_calls() {
        let found = [Err(ErrorCode::OBJECT_NOT_FOUND.into()), Ok(Vec::new())];
        assert_eq!(listing(&found).ok().unwrap(), "[null,[]]");
        let failed = [Ok(Vec::new()), Err(Failure::from(ErrorCode::RPC_FAIL))];
        assert_eq!(listing(&failed).err().unwrap().0.code(), ErrorCode::RPC_FAIL);
    }
}

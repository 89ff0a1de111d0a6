//! The functions of `store_c.h`.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use mooncake::error::{Error, Stage};
use mooncake::store::{ErrorCode, Failure, Health};

use super::arguments::{Results, buffers, count, narrow, numbers, piece, text, texts, upstream_replication};
use super::{Answer, Refusal, StoreEntry, code, entry, set_up, store, store_export, wide_code};
use crate::abi::{self, Handle, StoreOptions};
use crate::boundary::{array, invalid, null, write_cut};
use crate::handle::STORES;

export! {
    /// Makes a store that is not set up.
    fn mooncake_store_create() -> Handle,
    failure null, {
        STORES.insert(Arc::new(StoreEntry::default()))
    }
}

store_export! {
    /// Leaves the pool and ends the handle.
    fn mooncake_store_destroy(store: Handle) -> (),
    failure |_| (), {
        STORES.remove(store)?.leave();
        Ok(())
    }
}

store_export! {
    /// Joins a pool.
    fn mooncake_store_setup(
        store: Handle,
        local_hostname: *const c_char,
        metadata_server: *const c_char,
        global_segment_size: u64,
        local_buffer_size: u64,
        protocol: *const c_char,
        device_name: *const c_char,
        master_server_addr: *const c_char,
    ) -> c_int,
    failure code, {
        let options = StoreOptions {
            struct_size: size_of::<StoreOptions>(),
            local_hostname,
            metadata_server,
            protocol,
            device_names: device_name,
            master_address: master_server_addr,
            tenant: std::ptr::null(),
            global_segment_size_bytes: global_segment_size,
            local_buffer_size_bytes: local_buffer_size,
            engine: std::ptr::null_mut(),
        };
        // SAFETY: the header asks for texts closed by NUL.
        unsafe { set_up(store, &options) }?;
        Ok(0)
    }
}

store_export! {
    /// Not offered.
    fn mooncake_store_init_all(
        store: Handle, protocol: *const c_char, device_name: *const c_char, mount_segment_size: u64,
    ) -> c_int,
    failure code, {
        entry(store)?;
        let _ignored = (protocol, device_name, mount_segment_size);
        Err(invalid(Stage::Configure, "init_all is not offered").advice("call mooncake_store_setup").into())
    }
}

store_export! {
    /// Whether the store can be used.
    fn mooncake_store_health_check(store: Handle) -> c_int,
    failure |_| Health::Closed.code(), {
        Ok(entry(store)?.store().map_or(Health::Closed, |store| store.health()).code())
    }
}

/// The one outcome of a call with one key; its failure becomes the call's.
fn only<T>(outcome: mooncake::store::Outcome<T>) -> Answer<T> {
    Ok(outcome?)
}

store_export! {
    /// Stores a value.
    fn mooncake_store_put(
        store: Handle,
        key: *const c_char,
        value: *const c_void,
        size: usize,
        config: *const abi::ReplicateConfig,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for a text closed by NUL.
        let key = unsafe { text(key) }?;
        // SAFETY: the header asks for that many bytes.
        let value = unsafe { array(value.cast::<u8>(), size, "value", Stage::Submit) }?;
        // SAFETY: the header asks for NULL or a struct of ours.
        let config = unsafe { upstream_replication(config) }?;
        only(self::store(store)?.put(key, value, &config))?;
        Ok(0)
    }
}

store_export! {
    /// Stores memory of the host or of an NPU.
    fn mooncake_store_put_from(
        store: Handle,
        key: *const c_char,
        buffer: *mut c_void,
        size: usize,
        config: *const abi::ReplicateConfig,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for a text closed by NUL.
        let key = unsafe { text(key) }?;
        // SAFETY: the header asks for NULL or a struct of ours.
        let config = unsafe { upstream_replication(config) }?;
        let (address, length_bytes) = piece(buffer.cast_const(), size);
        only(self::store(store)?.put_from(key, address, length_bytes, &config))?;
        Ok(0)
    }
}

store_export! {
    /// Stores one buffer for each key.
    fn mooncake_store_batch_put_from(
        store: Handle,
        keys: *mut *const c_char,
        buffers: *mut *mut c_void,
        sizes: *const usize,
        count: usize,
        config: *const abi::ReplicateConfig,
        results_out: *mut c_int,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results_out, count) }?;
        // SAFETY: the header asks for texts closed by NUL.
        let keys = unsafe { texts(keys.cast_const(), count) }?;
        // SAFETY: the header asks for arrays of that length.
        let pieces = unsafe { self::buffers(buffers.cast_const(), sizes, count) }?;
        // SAFETY: the header asks for NULL or a struct of ours.
        let config = unsafe { upstream_replication(config) }?;
        let outcomes = self::store(store)?.batch_put_from(&keys, &pieces, &config);
        results.write(numbers(&outcomes, |()| 0).into_iter().map(narrow));
        Ok(0)
    }
}

store_export! {
    /// Reads a value.
    fn mooncake_store_get_into(store: Handle, key: *const c_char, buffer: *mut c_void, size: usize) -> i64,
    failure wide_code, {
        // SAFETY: the header asks for a text closed by NUL.
        let key = unsafe { text(key) }?;
        let (address, length_bytes) = piece(buffer.cast_const(), size);
        Ok(count(&only(self::store(store)?.get_into(key, address, length_bytes))?))
    }
}

store_export! {
    /// Reads one buffer for each key.
    fn mooncake_store_batch_get_into(
        store: Handle,
        keys: *mut *const c_char,
        buffers: *mut *mut c_void,
        sizes: *const usize,
        count: usize,
        results_out: *mut i64,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results_out, count) }?;
        // SAFETY: the header asks for texts closed by NUL.
        let keys = unsafe { texts(keys.cast_const(), count) }?;
        // SAFETY: the header asks for arrays of that length.
        let pieces = unsafe { self::buffers(buffers.cast_const(), sizes, count) }?;
        let outcomes = self::store(store)?.batch_get_into(&keys, &pieces);
        results.write(numbers(&outcomes, self::count).into_iter());
        Ok(0)
    }
}

store_export! {
    /// Whether an object is there.
    fn mooncake_store_is_exist(store: Handle, key: *const c_char) -> c_int,
    failure code, {
        // SAFETY: the header asks for a text closed by NUL.
        let key = unsafe { text(key) }?;
        Ok(c_int::from(only(self::store(store)?.is_exist(key))?))
    }
}

store_export! {
    /// Whether objects are there.
    fn mooncake_store_batch_is_exist(
        store: Handle, keys: *mut *const c_char, count: usize, results_out: *mut c_int,
    ) -> c_int,
    failure code, {
        // SAFETY: the header asks for an array of that length.
        let results = unsafe { Results::new(results_out, count) }?;
        // SAFETY: the header asks for texts closed by NUL.
        let keys = unsafe { texts(keys.cast_const(), count) }?;
        let outcomes = self::store(store)?.batch_is_exist(&keys);
        results.write(numbers(&outcomes, |there| i64::from(*there)).into_iter().map(narrow));
        Ok(0)
    }
}

store_export! {
    /// Length of an object.
    fn mooncake_store_get_size(store: Handle, key: *const c_char) -> i64,
    failure wide_code, {
        // SAFETY: the header asks for a text closed by NUL.
        let key = unsafe { text(key) }?;
        Ok(count(&only(self::store(store)?.get_size(key))?))
    }
}

store_export! {
    /// Writes this client's name.
    fn mooncake_store_get_hostname(store: Handle, buf_out: *mut c_char, buf_len: usize) -> c_int,
    failure |_| -1, {
        let store = self::store(store)?;
        let name = store.hostname();
        if name.len() >= buf_len {
            let message = format!("the name takes {} bytes, the buffer has {buf_len}", name.len() + 1);
            let error: Error = invalid(Stage::Configure, message);
            return Err(Refusal(Failure::new(ErrorCode::BUFFER_OVERFLOW, error)));
        }
        // SAFETY: the header asks for a buffer of that length.
        unsafe { write_cut(name, buf_out, buf_len, Stage::Configure) }?;
        Ok(0)
    }
}

store_export! {
    /// Removes an object.
    fn mooncake_store_remove(store: Handle, key: *const c_char, force: c_int) -> c_int,
    failure code, {
        // SAFETY: the header asks for a text closed by NUL.
        let key = unsafe { text(key) }?;
        only(self::store(store)?.remove(key, force != 0))?;
        Ok(0)
    }
}

store_export! {
    /// Removes the objects that a pattern finds.
    fn mooncake_store_remove_by_regex(store: Handle, pattern: *const c_char, force: c_int) -> i64,
    failure wide_code, {
        // SAFETY: the header asks for a text closed by NUL.
        let pattern = unsafe { crate::boundary::text(pattern, "pattern", Stage::Submit) }?;
        only(self::store(store)?.remove_by_regex(&pattern, force != 0))
    }
}

store_export! {
    /// Removes every object.
    fn mooncake_store_remove_all(store: Handle, force: c_int) -> i64,
    failure wide_code, {
        only(self::store(store)?.remove_all(force != 0))
    }
}

store_export! {
    /// Makes memory known.
    fn mooncake_store_register_buffer(store: Handle, buffer: *mut c_void, size: usize) -> c_int,
    failure code, {
        let (address, length_bytes) = piece(buffer.cast_const(), size);
        only(self::store(store)?.register_buffer(address, length_bytes))?;
        Ok(0)
    }
}

store_export! {
    /// Forgets memory.
    fn mooncake_store_unregister_buffer(store: Handle, buffer: *mut c_void) -> c_int,
    failure code, {
        let (address, _) = piece(buffer.cast_const(), 0);
        only(self::store(store)?.unregister_buffer(address))?;
        Ok(0)
    }
}

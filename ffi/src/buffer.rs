//! Registered memory.

use std::ffi::{c_char, c_int, c_void};

use mooncake::error::{Result, Stage};

use crate::abi::{BufferEntry, Handle};
use crate::boundary::{array, invalid, negative, text};
use crate::engine::engine;

/// The address as a number; NULL is an error.
fn address(pointer: *mut c_void) -> Result<u64> {
    if pointer.is_null() {
        return Err(invalid(Stage::Register, "the address is NULL"));
    }
    number(pointer.addr())
}

fn number(value: usize) -> Result<u64> {
    u64::try_from(value).map_err(|_| invalid(Stage::Register, format!("{value} does not fit 64 bits")))
}

export! {
    /// Makes a range reachable by peers.
    fn registerLocalMemory(
        engine: Handle, addr: *mut c_void, length: usize, location: *const c_char, remote_accessible: c_int,
    ) -> c_int,
    failure negative, {
        // Every registered range is reachable; upstream's TCP and Ascend transports ignore it as well.
        let _ignored = remote_accessible;
        let entry = self::engine(engine)?;
        let start = address(addr)?;
        // SAFETY: the header asks for a text closed by NUL.
        let location = unsafe { text(location, "location", Stage::Register) }?;
        entry.engine.register(start, number(length)?, &location)?;
        Ok(0)
    }
}

export! {
    /// Withdraws a range.
    fn unregisterLocalMemory(engine: Handle, addr: *mut c_void) -> c_int,
    failure negative, {
        let entry = self::engine(engine)?;
        entry.engine.unregister(address(addr)?)?;
        Ok(0)
    }
}

export! {
    /// Makes all ranges reachable, or none.
    fn registerLocalMemoryBatch(
        engine: Handle, buffer_list: *mut BufferEntry, buffer_len: usize, location: *const c_char,
    ) -> c_int,
    failure negative, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for an array of that length.
        let buffers = unsafe { array(buffer_list.cast_const(), buffer_len, "buffer_list", Stage::Register) }?;
        // SAFETY: the header asks for a text closed by NUL.
        let location = unsafe { text(location, "location", Stage::Register) }?;
        let buffers = buffers
            .iter()
            .map(|buffer| Ok((address(buffer.address)?, number(buffer.length_bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        entry.engine.register_batch(&buffers, &location)?;
        Ok(0)
    }
}

export! {
    /// Withdraws all ranges; the first failure is returned.
    fn unregisterLocalMemoryBatch(engine: Handle, addr_list: *mut *mut c_void, addr_len: usize) -> c_int,
    failure negative, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for an array of that length.
        let addresses = unsafe { array(addr_list.cast_const(), addr_len, "addr_list", Stage::Register) }?;
        let addresses = addresses.iter().map(|pointer| number(pointer.addr())).collect::<Result<Vec<_>>>()?;
        entry.engine.unregister_batch(&addresses)?;
        Ok(0)
    }
}

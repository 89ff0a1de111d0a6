//! Texts about the machine and the engine.

use std::ffi::{c_char, c_int};

use mooncake::error::{Code, Error, Result, Stage};

use crate::abi::Handle;
use crate::boundary::{invalid, minus_one, output, write_cut};
use crate::code;
use crate::engine::engine;

export! {
    /// Writes what links there are.
    fn showLinks(engine: Handle, buf_out: *mut c_char, buf_len: usize, json: c_int) -> c_int,
    failure minus_one, {
        let entry = self::engine(engine)?;
        if buf_out.is_null() || buf_len == 0 {
            return Err(invalid(Stage::Configure, "the buffer is NULL or empty"));
        }
        // SAFETY: the header asks for a buffer of that length.
        unsafe { write_cut(&entry.engine.links(json != 0), buf_out, buf_len, Stage::Configure) }?;
        Ok(0)
    }
}

/// Writes a text that may be longer than the caller's buffer: its length in any case, the text when it fits.
///
/// # Safety
/// `text` may be written for `capacity` bytes, `length_bytes` may be written; either may be NULL.
unsafe fn write_whole(
    report: &str,
    text: *mut c_char,
    capacity: usize,
    length_bytes: *mut usize,
) -> Result<()> {
    // SAFETY: the caller vouches for it.
    unsafe { output(length_bytes, "length_bytes", Stage::Configure) }?.write(report.len());
    if report.len() >= capacity {
        let message = format!("the text takes {} bytes, the buffer has {capacity}", report.len() + 1);
        return Err(Error::new(Code::TooManyRequests, Stage::Configure, message));
    }
    // SAFETY: the caller vouches for the buffer.
    unsafe { write_cut(report, text, capacity, Stage::Configure) }
}

export! {
    /// Writes the engine's counters.
    fn mooncake_transfer_counters(
        engine: Handle, text: *mut c_char, capacity: usize, length_bytes: *mut usize,
    ) -> c_int,
    failure code::of, {
        let counters = self::engine(engine)?.engine.metrics_text();
        // SAFETY: the header asks for a buffer of that length and a place for the length.
        unsafe { write_whole(&counters, text, capacity, length_bytes) }?;
        Ok(0)
    }
}

export! {
    /// Writes the engine's topology.
    fn mooncake_transfer_topology(
        engine: Handle, text: *mut c_char, capacity: usize, length_bytes: *mut usize,
    ) -> c_int,
    failure code::of, {
        let topology = self::engine(engine)?.engine.topology_json();
        // SAFETY: the header asks for a buffer of that length and a place for the length.
        unsafe { write_whole(&topology, text, capacity, length_bytes) }?;
        Ok(0)
    }
}

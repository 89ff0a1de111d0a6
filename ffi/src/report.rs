//! Texts about the machine and the engine.

use std::ffi::{c_char, c_int};

use mooncake::error::{Code, Error, Stage};

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

export! {
    /// Writes the engine's counters.
    fn mooncake_transfer_counters(
        engine: Handle, text: *mut c_char, capacity: usize, length_bytes: *mut usize,
    ) -> c_int,
    failure code::of, {
        // SAFETY: the header asks for a place of the caller's.
        let length_bytes = unsafe { output(length_bytes, "length_bytes", Stage::Configure) }?;
        let counters = self::engine(engine)?.engine.metrics_text();
        length_bytes.write(counters.len());
        if counters.len() >= capacity {
            let message = format!("the text takes {} bytes, the buffer has {capacity}", counters.len() + 1);
            return Err(Error::new(Code::TooManyRequests, Stage::Configure, message));
        }
        // SAFETY: the header asks for a buffer of that length.
        unsafe { write_cut(&counters, text, capacity, Stage::Configure) }?;
        Ok(0)
    }
}

//! Texts about the state of the machine.

use std::ffi::{c_char, c_int};

use mooncake::error::Stage;

use crate::abi::Handle;
use crate::boundary::{invalid, minus_one, write_cut};
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

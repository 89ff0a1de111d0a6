//! `segment_handle_t`: peers by name and number.

use std::ffi::{c_char, c_int};

use mooncake::error::{Result, Stage};

use crate::abi::Handle;
use crate::boundary::{invalid, minus_one, negative, output, text};
use crate::code;
use crate::engine::engine;

/// The name without leading slashes; nothing left is an error.
fn trimmed(name: &str) -> Result<&str> {
    let name = name.trim_start_matches('/');
    if name.is_empty() {
        return Err(invalid(Stage::Resolve, "the segment name is empty"));
    }
    Ok(name)
}

/// Opens a segment.
///
/// # Safety
/// `name` is NULL or a text closed by NUL.
unsafe fn open(handle: Handle, name: *const c_char, use_cache: bool) -> Result<i32> {
    let entry = engine(handle)?;
    // SAFETY: the caller vouches for it.
    let name = unsafe { text(name, "segment_name", Stage::Resolve) }?;
    entry.engine.open_segment(trimmed(&name)?, use_cache)
}

export! {
    /// Opens a segment by name.
    fn openSegment(engine: Handle, segment_name: *const c_char) -> i32,
    failure minus_one, {
        // SAFETY: the header asks for a text closed by NUL.
        unsafe { open(engine, segment_name, true) }
    }
}

export! {
    /// Opens a segment by name, with a fresh descriptor.
    fn openSegmentNoCache(engine: Handle, segment_name: *const c_char) -> i32,
    failure minus_one, {
        // SAFETY: the header asks for a text closed by NUL.
        unsafe { open(engine, segment_name, false) }
    }
}

export! {
    /// Writes the first address that a peer has published.
    fn mooncake_transfer_first_buffer_address(
        engine: Handle, segment_name: *const c_char, address: *mut u64,
    ) -> c_int,
    failure code::of, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for a text closed by NUL.
        let name = unsafe { text(segment_name, "segment_name", Stage::Resolve) }?;
        // SAFETY: the header asks for a place of the caller's.
        let address = unsafe { output(address, "address", Stage::Resolve) }?;
        address.write(entry.engine.first_buffer_address(trimmed(&name)?)?.unwrap_or(0));
        Ok(0)
    }
}

export! {
    /// Does nothing, successfully: segments live as long as their engine.
    fn closeSegment(engine: Handle, segment_id: i32) -> c_int,
    failure negative, {
        let _any = segment_id;
        self::engine(engine)?;
        Ok(0)
    }
}

export! {
    /// Forgets a segment's name and id.
    fn removeLocalSegment(engine: Handle, segment_name: *const c_char) -> c_int,
    failure minus_one, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for a text closed by NUL.
        let name = unsafe { text(segment_name, "segment_name", Stage::Resolve) }?;
        entry.engine.remove_segment(trimmed(&name)?)?;
        Ok(0)
    }
}

export! {
    /// Fetches every cached descriptor anew.
    fn syncSegmentCache(engine: Handle) -> c_int,
    failure negative, {
        self::engine(engine)?.engine.sync_segments()?;
        Ok(0)
    }
}

//! What upstream's interface has and this library answers without doing anything, since the hardware it is
//! about is not driven here. The answers are upstream's own on a machine without that hardware.

use std::ffi::{c_char, c_int};

use mooncake::error::Stage;

use crate::abi::{Handle, NicLoadStat};
use crate::boundary::{minus_one, negative, output, text};
use crate::engine::engine;

export! {
    /// Opens connections of EFA cards early; there is none.
    fn warmupEfaSegment(engine: Handle, segment_name: *const c_char) -> c_int,
    failure negative, {
        self::engine(engine)?;
        // SAFETY: the header asks for a text closed by NUL.
        unsafe { text(segment_name, "segment_name", Stage::Resolve) }?;
        Ok(0)
    }
}

export! {
    /// Load of RDMA cards; none is driven, so that the number is 0.
    fn getNicLoadStats(engine: Handle, stats: *mut NicLoadStat, count: *mut usize) -> c_int,
    failure minus_one, {
        self::engine(engine)?;
        // SAFETY: checked only, never written.
        unsafe { output(stats, "stats", Stage::Configure) }?;
        // SAFETY: the header asks for a place of the caller's.
        unsafe { output(count, "count", Stage::Configure) }?.write(0);
        Ok(0)
    }
}

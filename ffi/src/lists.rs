//! Requests as flat arrays of addresses and lengths: what bindings have that hold no array of structs.

use std::ffi::c_int;

use mooncake::engine::{Direction, Note, Request};
use mooncake::error::{Result, Stage};

use crate::abi::{Handle, NotifyMessage, OPCODE_WRITE};
use crate::boundary::{array, output};
use crate::code;
use crate::engine::engine;
use crate::notification::note;

/// The requests that the arrays say; all of them have one direction and one target.
///
/// # Safety
/// Each array is NULL or has `count` entries.
unsafe fn requests(
    segment_id: i32,
    opcode: c_int,
    local: *const u64,
    remote: *const u64,
    lengths_bytes: *const u64,
    count: usize,
) -> Result<Vec<Request>> {
    let direction = if opcode == OPCODE_WRITE { Direction::Write } else { Direction::Read };
    // SAFETY: the caller vouches for it.
    let local = unsafe { array(local, count, "local", Stage::Submit) }?;
    // SAFETY: as above.
    let remote = unsafe { array(remote, count, "remote", Stage::Submit) }?;
    // SAFETY: as above.
    let lengths_bytes = unsafe { array(lengths_bytes, count, "lengths_bytes", Stage::Submit) }?;
    let places = local.iter().zip(remote).zip(lengths_bytes);
    Ok(places
        .map(|((&local, &remote), &length_bytes)| Request {
            direction,
            local,
            segment: segment_id,
            remote,
            length_bytes,
        })
        .collect())
}

/// The notification, unless the pointer is NULL.
///
/// # Safety
/// `message` is NULL or points to two texts closed by NUL.
unsafe fn optional_note(message: *const NotifyMessage) -> Result<Option<Note>> {
    if message.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; the caller vouches for the rest. Texts are read through unaligned copies of pointers.
    let message = unsafe { message.read_unaligned() };
    // SAFETY: as above.
    unsafe { note(&message, Stage::Submit) }.map(Some)
}

export! {
    /// Queues requests given as arrays.
    fn mooncake_transfer_submit_lists(
        engine: Handle,
        batch_id: u64,
        segment_id: i32,
        opcode: c_int,
        local: *const u64,
        remote: *const u64,
        lengths_bytes: *const u64,
        count: usize,
        notify_msg: *const NotifyMessage,
        timeout_ms: i64,
    ) -> c_int,
    failure code::of, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for arrays of that length.
        let requests = unsafe { requests(segment_id, opcode, local, remote, lengths_bytes, count) }?;
        // SAFETY: the header asks for NULL or two texts closed by NUL.
        let note = unsafe { optional_note(notify_msg) }?;
        entry.engine.submit(batch_id, &requests, note, Some(entry.timeout(timeout_ms)))?;
        Ok(0)
    }
}

export! {
    /// Submits requests given as arrays, waits and frees.
    fn mooncake_transfer_run_lists(
        engine: Handle,
        segment_id: i32,
        opcode: c_int,
        local: *const u64,
        remote: *const u64,
        lengths_bytes: *const u64,
        count: usize,
        notify_msg: *const NotifyMessage,
        timeout_ms: i64,
        still_running: *mut u64,
    ) -> c_int,
    failure code::of, {
        // SAFETY: the header asks for a place of the caller's.
        let still_running = unsafe { output(still_running, "still_running", Stage::Submit) }?;
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for arrays of that length.
        let requests = unsafe { requests(segment_id, opcode, local, remote, lengths_bytes, count) }?;
        // SAFETY: the header asks for NULL or two texts closed by NUL.
        let note = unsafe { optional_note(notify_msg) }?;
        let outcome = entry.engine.transfer(&requests, note, Some(entry.timeout(timeout_ms)));
        outcome.map(|()| 0).map_err(|failure| {
            if let Some(batch) = failure.batch {
                still_running.write(batch);
            }
            failure.error
        })
    }
}

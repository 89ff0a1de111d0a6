//! `batch_id_t`: requests in flight.
//!
//! Requests are converted into a per-thread array that is used again, so that a submit costs no allocation
//! once a thread has submitted as many before.

use std::cell::RefCell;
use std::ffi::c_int;

use mooncake::engine::{Direction, Request, TaskStatus};
use mooncake::error::{self, Result, Stage};

use crate::abi::{
    self, Handle, INVALID_BATCH, NotifyMessage, OPCODE_WRITE, STATUS_COMPLETED, STATUS_FAILED,
    STATUS_WAITING, TransferRequest,
};
use crate::boundary::{array, invalid, output, status};
use crate::code;
use crate::engine::engine;
use crate::notification::note;

/// Most requests for which a thread keeps its array: 65,536 of them are 2.5 MiB.
const KEPT_REQUESTS: usize = 1 << 16;

thread_local! {
    static REQUESTS: RefCell<Vec<Request>> = const { RefCell::new(Vec::new()) };
}

fn request(entry: &TransferRequest) -> Request {
    Request {
        direction: if entry.opcode == OPCODE_WRITE { Direction::Write } else { Direction::Read },
        // Lossless: the library is 64 bit only, which `handle` asserts.
        local: u64::try_from(entry.source.addr()).unwrap_or(u64::MAX),
        segment: entry.target_id,
        remote: entry.target_offset,
        length_bytes: entry.length,
    }
}

/// Converts the entries and hands them to `act`.
///
/// # Safety
/// `entries` is NULL or points to `count` requests.
unsafe fn with_requests<T>(
    entries: *const TransferRequest,
    count: usize,
    act: impl FnOnce(&[Request]) -> Result<T>,
) -> Result<T> {
    // SAFETY: the caller vouches for it.
    let entries = unsafe { array(entries, count, "entries", Stage::Submit) }?;
    // Taken out while it is used: a log sink on this thread may submit, too.
    let mut requests = REQUESTS.take();
    requests.clear();
    requests.extend(entries.iter().map(request));
    let outcome = act(&requests);
    if requests.capacity() <= KEPT_REQUESTS {
        REQUESTS.replace(requests);
    }
    outcome
}

export! {
    /// Makes a batch.
    fn allocateBatchID(engine: Handle, batch_size: usize) -> u64,
    failure |_| INVALID_BATCH, {
        self::engine(engine)?.engine.allocate_batch(batch_size)
    }
}

export! {
    /// Queues requests.
    fn submitTransfer(engine: Handle, batch_id: u64, entries: *mut TransferRequest, count: usize) -> c_int,
    failure status, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for an array of that length.
        unsafe {
            with_requests(entries.cast_const(), count, |requests| {
                entry.engine.submit(batch_id, requests, None, None)
            })
        }?;
        Ok(0)
    }
}

export! {
    /// Queues requests, with a notification when the batch is complete.
    fn submitTransferWithNotify(
        engine: Handle, batch_id: u64, entries: *mut TransferRequest, count: usize, notify_msg: NotifyMessage,
    ) -> c_int,
    failure status, {
        let entry = self::engine(engine)?;
        if count == 0 {
            return Err(invalid(Stage::Submit, "a notification goes to a request's target; there is none"));
        }
        // SAFETY: the header asks for two texts closed by NUL.
        let note = unsafe { note(&notify_msg, Stage::Submit) }?;
        // SAFETY: the header asks for an array of that length.
        unsafe {
            with_requests(entries.cast_const(), count, |requests| {
                entry.engine.submit(batch_id, requests, Some(note), None)
            })
        }?;
        Ok(0)
    }
}

export! {
    /// Queues requests, with a deadline.
    fn mooncake_transfer_submit(
        engine: Handle, batch_id: u64, requests: *const TransferRequest, count: usize, timeout_ms: i64,
    ) -> c_int,
    failure code::of, {
        let entry = self::engine(engine)?;
        let timeout = entry.timeout(timeout_ms);
        // SAFETY: the header asks for an array of that length.
        unsafe {
            with_requests(requests, count, |requests| {
                entry.engine.submit(batch_id, requests, None, Some(timeout))
            })
        }?;
        Ok(0)
    }
}

export! {
    /// Looks at one task.
    fn getTransferStatus(
        engine: Handle, batch_id: u64, task_id: usize, status: *mut abi::TransferStatus,
    ) -> c_int,
    failure crate::boundary::status, {
        // SAFETY: the header asks for a place of the caller's.
        let place = unsafe { output(status, "status", Stage::Execute) }?;
        let entry = self::engine(engine)?;
        let seen = entry.engine.status(batch_id, task_id)?;
        let state = match seen.status {
            TaskStatus::Waiting => STATUS_WAITING,
            TaskStatus::Completed => STATUS_COMPLETED,
            TaskStatus::Failed => {
                if let Some(failure) = entry.engine.task_error(batch_id, task_id) {
                    error::set_last(failure);
                }
                STATUS_FAILED
            }
        };
        place.write(abi::TransferStatus { status: state, transferred_bytes: seen.transferred_bytes });
        Ok(0)
    }
}

export! {
    /// Waits for a batch.
    fn mooncake_transfer_wait(engine: Handle, batch_id: u64, timeout_ms: i64) -> c_int,
    failure code::of, {
        let entry = self::engine(engine)?;
        entry.engine.wait(batch_id, entry.timeout(timeout_ms))?;
        Ok(0)
    }
}

export! {
    /// Stops a batch.
    fn mooncake_transfer_cancel(engine: Handle, batch_id: u64) -> c_int,
    failure code::of, {
        self::engine(engine)?.engine.cancel(batch_id)?;
        Ok(0)
    }
}

export! {
    /// Ends a batch.
    fn freeBatchID(engine: Handle, batch_id: u64) -> c_int,
    failure status, {
        self::engine(engine)?.engine.free_batch(batch_id)?;
        Ok(0)
    }
}

export! {
    /// Submits, waits and frees.
    fn mooncake_transfer_run(
        engine: Handle,
        requests: *const TransferRequest,
        count: usize,
        timeout_ms: i64,
        still_running: *mut u64,
    ) -> c_int,
    failure code::of, {
        // SAFETY: the header asks for a place of the caller's.
        let still_running = unsafe { output(still_running, "still_running", Stage::Submit) }?;
        let entry = self::engine(engine)?;
        let timeout = entry.timeout(timeout_ms);
        // SAFETY: the header asks for an array of that length.
        let outcome = unsafe {
            with_requests(requests, count, |requests| {
                Ok(entry.engine.transfer(requests, None, Some(timeout)))
            })
        }?;
        outcome.map(|()| 0).map_err(|failure| {
            if let Some(batch) = failure.batch {
                still_running.write(batch);
            }
            failure.error
        })
    }
}

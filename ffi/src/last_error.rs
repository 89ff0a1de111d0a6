//! The last error of a thread, and a task's failure, as C reads them.
//!
//! Texts live in a per-thread store that is refilled by the next request for a record: a thread that does not
//! ask again keeps them until it ends.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};

use mooncake::error::{self, Code, Error, Result, Stage};

use crate::abi::{ErrorRecord, Handle};
use crate::boundary::invalid;
use crate::engine::engine;
use crate::{abi, code};

/// Smallest struct that is accepted: everything up to the vendor's code. It never grows.
const SMALLEST_BYTES: usize = std::mem::offset_of!(ErrorRecord, code_name);

/// `MOONCAKE_TRANSFER_KNOWS_DEVICE`.
const KNOWS_DEVICE: u32 = 1;
/// `MOONCAKE_TRANSFER_KNOWS_RANGE`.
const KNOWS_RANGE: u32 = 2;
/// `MOONCAKE_TRANSFER_KNOWS_VENDOR`.
const KNOWS_VENDOR: u32 = 4;

thread_local! {
    static TEXTS: RefCell<Vec<CString>> = const { RefCell::new(Vec::new()) };
}

/// Copies a text for C; a NUL inside, which C could not see past, becomes a visible mark.
pub(crate) fn c_text(text: &str) -> CString {
    let visible = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() };
    CString::new(visible).unwrap_or_default()
}

/// Fills the caller's record.
///
/// # Safety
/// `record` is NULL or points to a `struct mooncake_transfer_error` whose `struct_size` is set.
unsafe fn fill(record: *mut ErrorRecord, error: &Error) -> Result<()> {
    // SAFETY: the caller vouches for the first field at least.
    let room_bytes = unsafe { room(record) }?;
    let facts = error.record();
    let mut texts = Vec::with_capacity(9);
    let mut keep = |text: Option<&str>| -> *const c_char {
        text.map_or(std::ptr::null(), |text| {
            // The heap block of a CString stays where it is when the Vec moves or grows.
            let text = c_text(text);
            let start = text.as_ptr();
            texts.push(text);
            start
        })
    };
    let vendor = facts.vendor.as_ref();
    let mut known = 0;
    if facts.device.is_some() {
        known |= KNOWS_DEVICE;
    }
    if facts.range.is_some() {
        known |= KNOWS_RANGE;
    }
    if vendor.is_some() {
        known |= KNOWS_VENDOR;
    }
    let (range_start, range_length_bytes) = facts.range.unwrap_or_default();
    let filled = ErrorRecord {
        struct_size: room_bytes,
        code: code::number(facts.code),
        stage: code::stage_number(facts.stage),
        negative: facts.code.negative(),
        status: facts.code.status(),
        known,
        device: facts.device.unwrap_or(-1),
        range_start,
        range_length_bytes,
        vendor_code: vendor.map_or(0, |vendor| vendor.code),
        reserved: 0,
        code_name: keep(Some(facts.code.name())),
        stage_name: keep(Some(facts.stage.name())),
        message: keep(Some(&facts.message)),
        peer: keep(facts.peer.as_deref()),
        vendor_function: keep(vendor.map(|vendor| vendor.function)),
        vendor_text: keep(vendor.map(|vendor| vendor.text.as_str())),
        vendor_log: keep(vendor.and_then(|vendor| vendor.plog.as_deref())),
        advice: keep(facts.advice.as_deref()),
        text: keep(Some(&error.to_string())),
    };
    let length_bytes = room_bytes.min(size_of::<ErrorRecord>());
    // SAFETY: the caller's struct has room for `length_bytes`, and ours has as many.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const filled).cast::<u8>(), record.cast::<u8>(), length_bytes);
    }
    TEXTS.with_borrow_mut(|kept| *kept = texts);
    Ok(())
}

/// The size of the caller's struct.
///
/// # Safety
/// `record` is NULL or points to a struct whose first field, a `size_t`, is set.
unsafe fn room(record: *mut ErrorRecord) -> Result<usize> {
    if record.is_null() || !record.is_aligned() {
        return Err(invalid(Stage::Configure, format!("error is NULL or not aligned: {record:p}")));
    }
    // SAFETY: not NULL and aligned; the caller set the field.
    let room_bytes = unsafe { (&raw const (*record).struct_size).read() };
    if room_bytes < SMALLEST_BYTES {
        let message = format!("struct_size is {room_bytes}, at least {SMALLEST_BYTES} is needed");
        return Err(invalid(Stage::Configure, message).advice("set struct_size to sizeof the struct"));
    }
    Ok(room_bytes)
}

export! {
    /// Writes the calling thread's last error.
    fn mooncake_transfer_last_error(error: *mut abi::ErrorRecord) -> c_int,
    failure code::of, {
        // Asking must not change the answer, so failures of the question are returned and not kept.
        let Some(last) = error::last() else {
            return Ok(code::number(Code::Metadata));
        };
        // SAFETY: the header asks for NULL or a struct whose struct_size is set.
        match unsafe { fill(error, &last) } {
            Ok(()) => Ok(0),
            Err(error) => Ok(code::of(&error)),
        }
    }
}

export! {
    /// Forgets the calling thread's last error.
    fn mooncake_transfer_clear_error() -> (),
    failure |_| (), {
        error::clear_last();
        Ok(())
    }
}

export! {
    /// Writes why a task failed.
    fn mooncake_transfer_task_error(
        engine: Handle, batch_id: u64, task_id: usize, error: *mut abi::ErrorRecord,
    ) -> c_int,
    failure code::of, {
        // SAFETY: the header asks for NULL or a struct whose struct_size is set.
        unsafe { room(error) }?;
        let entry = self::engine(engine)?;
        let failure = entry.engine.task_error(batch_id, task_id).ok_or_else(|| {
            let message = format!("task {task_id} of batch {batch_id} has not failed, or is unknown");
            Error::new(Code::Metadata, Stage::Execute, message)
        })?;
        // SAFETY: the header asks for NULL or a struct whose struct_size is set.
        unsafe { fill(error, &failure) }?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use mooncake::error::Vendor;

    use super::*;

    fn empty() -> ErrorRecord {
        // SAFETY: every field is a number or a raw pointer, for which zero is a value.
        let mut record: ErrorRecord = unsafe { std::mem::zeroed() };
        record.struct_size = size_of::<ErrorRecord>();
        record
    }

    fn read<'a>(text: *const c_char) -> Option<&'a str> {
        // SAFETY: NULL or a text that this thread's store keeps.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().unwrap())
    }

    fn ask(record: &mut ErrorRecord) -> c_int {
        // SAFETY: a record of ours.
        unsafe { mooncake_transfer_last_error(record) }
    }

    #[test]
    fn every_fact_arrives() {
        let error = Error::new(Code::Vendor, Stage::Connect, "prepare timed out")
            .peer("10.0.0.2:15044")
            .device(3)
            .range(0x1000, 64)
            .vendor(Vendor { function: "HcclCommPrepare", code: 9, text: "EI0006".into(), plog: None })
            .advice("look at the peer");
        error::set_last(error.clone());
        let mut record = empty();
        assert_eq!(ask(&mut record), 0);
        assert_eq!((record.code, record.stage, record.negative, record.status), (-1007, 4, -202, 202));
        assert_eq!((record.known, record.device, record.vendor_code), (7, 3, 9));
        assert_eq!((record.range_start, record.range_length_bytes), (0x1000, 64));
        assert_eq!(read(record.code_name), Some("vendor"));
        assert_eq!(read(record.stage_name), Some("connect"));
        assert_eq!(read(record.message), Some("prepare timed out"));
        assert_eq!(read(record.peer), Some("10.0.0.2:15044"));
        assert_eq!(read(record.vendor_function), Some("HcclCommPrepare"));
        assert_eq!(read(record.vendor_text), Some("EI0006"));
        assert_eq!(read(record.vendor_log), None);
        assert_eq!(read(record.advice), Some("look at the peer"));
        assert_eq!(read(record.text), Some(error.to_string().as_str()));
    }

    #[test]
    fn texts_survive_later_failures_and_calls() {
        error::set_last(Error::new(Code::Dns, Stage::Resolve, "first"));
        let mut record = empty();
        assert_eq!(ask(&mut record), 0);
        error::set_last(Error::new(Code::Dns, Stage::Resolve, "second"));
        assert_eq!(read(record.message), Some("first"));
    }

    #[test]
    fn an_older_shorter_struct_is_filled_as_far_as_it_goes() {
        error::set_last(Error::new(Code::Busy, Stage::Register, "x").device(1));
        let mut record = empty();
        record.struct_size = SMALLEST_BYTES;
        record.code_name = c"untouched".as_ptr();
        assert_eq!(ask(&mut record), 0);
        assert_eq!((record.code, record.device, record.struct_size), (-4, 1, SMALLEST_BYTES));
        assert_eq!(read(record.code_name), Some("untouched"));
    }

    #[test]
    fn a_bad_question_does_not_change_the_answer() {
        error::set_last(Error::new(Code::Busy, Stage::Register, "x"));
        // SAFETY: NULL is checked.
        assert_eq!(unsafe { mooncake_transfer_last_error(std::ptr::null_mut()) }, -1);
        let mut record = empty();
        record.struct_size = 4;
        assert_eq!(ask(&mut record), -1);
        assert_eq!(error::last().unwrap().code(), Code::Busy);
        // SAFETY: no arguments.
        unsafe { mooncake_transfer_clear_error() };
        record.struct_size = size_of::<ErrorRecord>();
        assert_eq!(ask(&mut record), -200);
        assert!(error::last().is_none());
    }
}

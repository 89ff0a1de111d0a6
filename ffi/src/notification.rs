//! Notifications: texts of the caller's in, arrays from the C heap out.

use std::ffi::{CString, c_char, c_int, c_void};

use mooncake::engine::Note;
use mooncake::error::{Code, Error, Result, Stage};

use crate::abi::{Handle, NotifyMessage};
use crate::boundary::{invalid, negative, output, text};
use crate::engine::engine;
use crate::last_error::c_text;

/// Copies the caller's notification.
///
/// # Safety
/// Both texts are NULL or closed by NUL.
pub(crate) unsafe fn note(message: &NotifyMessage, stage: Stage) -> Result<Note> {
    // SAFETY: the caller vouches for it.
    let name = unsafe { text(message.name, "notify_msg.name", stage) }?;
    // SAFETY: as above.
    let message = unsafe { text(message.message, "notify_msg.msg", stage) }?;
    Ok(Note { name, message })
}

/// The part of a text that C sees: up to the first NUL, as upstream hands it out.
fn visible(text: &str) -> CString {
    c_text(text.split('\0').next().unwrap_or_default())
}

/// Copies a text to the C heap.
fn duplicate(text: &CString) -> *mut c_char {
    // SAFETY: closed by NUL; the copy is freed by `freeNotifsMsgBuf`.
    unsafe { libc::strdup(text.as_ptr()) }
}

/// Copies notes to the C heap, all or nothing.
fn export_notes(notes: &[Note]) -> Result<(*mut NotifyMessage, c_int)> {
    let count = c_int::try_from(notes.len()).map_err(|_| {
        Error::new(Code::TooManyRequests, Stage::Execute, "more notifications than an int counts")
    })?;
    let no_memory = || Error::new(Code::Memory, Stage::Execute, "no memory for notifications");
    // SAFETY: calloc checks the product itself; what it returns is aligned for any C type.
    let array =
        unsafe { libc::calloc(notes.len().max(1), size_of::<NotifyMessage>()) }.cast::<NotifyMessage>();
    if array.is_null() {
        return Err(no_memory());
    }
    for (position, note) in notes.iter().enumerate() {
        let entry = NotifyMessage {
            name: duplicate(&visible(&note.name)),
            message: duplicate(&visible(&note.message)),
        };
        let complete = !entry.name.is_null() && !entry.message.is_null();
        // SAFETY: the array has as many entries as there are notes.
        unsafe { array.add(position).write(entry) };
        if !complete {
            // SAFETY: made above; calloc set the entries not reached to NULL.
            unsafe { free_notes(array, notes.len()) };
            return Err(no_memory());
        }
    }
    Ok((array, count))
}

/// Frees an array of notes with its texts.
///
/// # Safety
/// `array` came from [`export_notes`] with `count` entries and was not freed.
unsafe fn free_notes(array: *mut NotifyMessage, count: usize) {
    for position in 0..count {
        // SAFETY: within the array; the texts are from strdup or NULL.
        unsafe {
            let entry = array.add(position).read();
            libc::free(entry.name.cast::<c_void>());
            libc::free(entry.message.cast::<c_void>());
        }
    }
    // SAFETY: from calloc.
    unsafe { libc::free(array.cast::<c_void>()) };
}

export! {
    /// Takes the notifications that arrived.
    fn getNotifsFromEngine(engine: Handle, size: *mut c_int) -> *mut NotifyMessage,
    failure crate::boundary::null, {
        // SAFETY: the header asks for a place of the caller's.
        let size = unsafe { output(size, "size", Stage::Execute) }?;
        let taken = self::engine(engine).map(|entry| entry.engine.take_notes());
        let exported = taken.and_then(|notes| {
            if notes.is_empty() { Ok((std::ptr::null_mut(), 0)) } else { export_notes(&notes) }
        });
        match exported {
            Ok((array, count)) => {
                size.write(count);
                Ok(array)
            }
            Err(failure) => {
                size.write(-1);
                Err(failure)
            }
        }
    }
}

export! {
    /// Frees what `getNotifsFromEngine` returned.
    fn freeNotifsMsgBuf(msg: *mut NotifyMessage, size: c_int) -> c_int,
    failure negative, {
        let count = usize::try_from(size)
            .map_err(|_| invalid(Stage::Execute, format!("{size} is not a number of notifications")))?;
        if !msg.is_null() {
            // SAFETY: the header asks for what `getNotifsFromEngine` returned, with its number.
            unsafe { free_notes(msg, count) };
        }
        Ok(0)
    }
}

export! {
    /// Sends a notification.
    fn genNotifyInEngine(engine: Handle, target_id: u64, notify_msg: NotifyMessage) -> c_int,
    failure negative, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for two texts closed by NUL.
        let note = unsafe { note(&notify_msg, Stage::Handshake) }?;
        let segment = i32::try_from(target_id)
            .map_err(|_| format!("no segment has id {target_id}"))
            .map_err(|message| Error::new(Code::Metadata, Stage::Resolve, message))?;
        entry.engine.send_note(segment, note)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn notes_reach_c_and_are_freed() {
        let notes = [
            Note { name: "peer".into(), message: "done \u{2713}".into() },
            Note { name: String::new(), message: "cut\0here".into() },
        ];
        let (array, count) = export_notes(&notes).unwrap();
        assert_eq!(count, 2);
        let read = |text: *mut c_char| {
            // SAFETY: closed by NUL, freed below.
            unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
        };
        // SAFETY: two entries.
        let (first, second) = unsafe { (array.read(), array.add(1).read()) };
        assert_eq!((read(first.name), read(first.message)), ("peer".into(), "done \u{2713}".into()));
        assert_eq!((read(second.name), read(second.message)), (String::new(), "cut".into()));
        // SAFETY: made above.
        assert_eq!(unsafe { freeNotifsMsgBuf(array, count) }, 0);
        // SAFETY: NULL is checked.
        assert_eq!(unsafe { freeNotifsMsgBuf(std::ptr::null_mut(), 0) }, 0);
        // SAFETY: a negative size is refused before anything is freed.
        assert_eq!(unsafe { freeNotifsMsgBuf(std::ptr::null_mut(), -1) }, -1);
    }
}

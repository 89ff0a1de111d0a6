//! How a call enters and leaves: one macro for every export, and the checked conversions of its arguments.
//!
//! Invariants: an export never unwinds; its body returns a `Result`; a failure becomes the thread's last
//! error before the failure value is returned.

use std::any::Any;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mooncake::error::{self, Code, Error, Result, Stage};

/// Makes an exported function out of a body that returns a `Result`.
///
/// `failure` turns the error into the function's failure value.
macro_rules! export {
    ($(#[$meta:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty,
     failure $failure:expr, $body:block) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// The pointers are NULL or point to what the header says, for the time of the call.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            $crate::boundary::guard($failure, || $body)
        }
    };
}

/// Runs the body of an export; see the module.
pub(crate) fn guard<T>(failure: impl FnOnce(&Error) -> T, body: impl FnOnce() -> Result<T>) -> T {
    // The state that a panic may leave half changed is the core's, whose locks do not poison and whose
    // invariants hold at every unlock.
    let outcome =
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(from_panic(panic.as_ref())));
    match outcome {
        Ok(value) => value,
        Err(error) => {
            let value = failure(&error);
            error::set_last(error);
            value
        }
    }
}

/// The failure that stands for a caught panic.
pub(crate) fn from_panic(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned());
    Error::new(Code::Internal, Stage::Configure, format!("the library panicked: {text}"))
        .advice("this is a defect of the library, please report it with this text")
}

/// An unusable argument.
pub(crate) fn invalid(stage: Stage, message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, stage, message)
}

/// Failure value of the functions that answer in upstream's negative numbers.
pub(crate) fn negative(error: &Error) -> i32 {
    error.code().negative()
}

/// Failure value of the functions that answer in upstream's status numbers.
pub(crate) fn status(error: &Error) -> i32 {
    error.code().status()
}

/// Failure value of the functions that answer -1 whatever happened.
pub(crate) fn minus_one(_error: &Error) -> i32 {
    -1
}

/// Failure value of the functions that answer NULL.
pub(crate) fn null<T>(_error: &Error) -> *mut T {
    std::ptr::null_mut()
}

/// Copies a text argument.
///
/// # Safety
/// `text` is NULL or points to a text closed by NUL that nobody changes meanwhile.
pub(crate) unsafe fn text(text: *const c_char, name: &str, stage: Stage) -> Result<String> {
    if text.is_null() {
        return Err(invalid(stage, format!("{name} is NULL")));
    }
    // SAFETY: not NULL; the caller vouches for the rest.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes
        .to_str()
        .map(str::to_owned)
        .map_err(|_| invalid(stage, format!("{name} is not UTF-8: {}", bytes.to_string_lossy())))
}

/// Views an array argument; NULL is fine when it is empty.
///
/// # Safety
/// `items` is NULL or points to `count` items that nobody changes for `'a`.
pub(crate) unsafe fn array<'a, T>(
    items: *const T,
    count: usize,
    name: &str,
    stage: Stage,
) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(invalid(stage, format!("{name} is NULL but its count is {count}")));
    }
    if !items.is_aligned() {
        return Err(invalid(stage, format!("{name} is not aligned: {items:p}")));
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(invalid(stage, format!("{name} cannot have {count} entries")));
    }
    // SAFETY: not NULL, aligned, and its size fits an isize; the caller vouches for the items.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// Checks an output argument before anything is done.
///
/// # Safety
/// `output` is NULL or may be written for `'a` by this call alone.
pub(crate) unsafe fn output<'a, T>(output: *mut T, name: &str, stage: Stage) -> Result<Output<'a, T>> {
    if output.is_null() {
        return Err(invalid(stage, format!("{name} is NULL")));
    }
    if !output.is_aligned() {
        return Err(invalid(stage, format!("{name} is not aligned: {output:p}")));
    }
    Ok(Output { place: output, lifetime: std::marker::PhantomData })
}

/// A place of the caller's that is known to be writable; it may hold garbage.
pub(crate) struct Output<'a, T> {
    place: *mut T,
    lifetime: std::marker::PhantomData<&'a mut T>,
}

impl<T> Output<'_, T> {
    /// Writes the value.
    pub(crate) fn write(self, value: T) {
        // SAFETY: made by `output`, which checked the pointer; its caller vouches for the rest.
        unsafe { self.place.write(value) }
    }
}

/// Writes `text` and a NUL to the caller's buffer, cut to fit as `snprintf` does.
///
/// # Safety
/// `buffer` is NULL or may be written for `capacity` bytes.
pub(crate) unsafe fn write_cut(text: &str, buffer: *mut c_char, capacity: usize, stage: Stage) -> Result<()> {
    if capacity == 0 {
        return Ok(());
    }
    if buffer.is_null() {
        return Err(invalid(stage, "the buffer is NULL"));
    }
    let length = text.len().min(capacity.saturating_sub(1));
    // SAFETY: `length + 1 <= capacity` bytes of the buffer are written; a text of ours does not overlap it.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), buffer, length);
        buffer.add(length).write(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_failure_value_and_a_record() {
        error::clear_last();
        let value = guard(negative, || -> Result<i32> { panic!("on purpose {}", 7) });
        assert_eq!(value, Code::Internal.negative());
        let last = error::last().unwrap();
        assert_eq!(last.code(), Code::Internal);
        assert!(last.record().message.contains("on purpose 7"), "{last}");
    }

    #[test]
    fn a_success_leaves_the_last_error_alone() {
        error::set_last(invalid(Stage::Submit, "earlier"));
        assert_eq!(guard(negative, || Ok(5)), 5);
        assert_eq!(error::last().unwrap().record().message, "earlier");
    }

    #[test]
    fn bad_arguments_are_named() {
        // SAFETY: NULL is checked.
        let error = unsafe { text(std::ptr::null(), "segment_name", Stage::Resolve) }.unwrap_err();
        assert!(error.to_string().contains("segment_name is NULL"), "{error}");
        // SAFETY: a constant text closed by NUL.
        let error = unsafe { text(c"\xff\xfe".as_ptr(), "location", Stage::Register) }.unwrap_err();
        assert!(error.to_string().contains("location is not UTF-8"), "{error}");
        // SAFETY: checked before use.
        let error = unsafe { array::<u64>(std::ptr::null(), 3, "addr_list", Stage::Register) }.unwrap_err();
        assert!(error.to_string().contains("addr_list is NULL but its count is 3"), "{error}");
        // SAFETY: refused before use.
        let error =
            unsafe { array(&raw const ERROR_SIZED, usize::MAX, "entries", Stage::Submit) }.unwrap_err();
        assert!(error.to_string().contains("cannot have"), "{error}");
    }

    static ERROR_SIZED: u64 = 0;

    #[test]
    fn a_text_is_cut_and_closed() {
        let mut buffer = [1 as c_char; 8];
        // SAFETY: the buffer is 8 bytes long.
        unsafe { write_cut("127.0.0.1", buffer.as_mut_ptr(), 5, Stage::Configure) }.unwrap();
        assert_eq!(&buffer[..6], [49, 50, 55, 46, 0, 1]);
        // SAFETY: nothing is written for a capacity of 0.
        unsafe { write_cut("x", std::ptr::null_mut(), 0, Stage::Configure) }.unwrap();
    }
}

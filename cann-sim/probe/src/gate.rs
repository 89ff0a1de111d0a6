//! A host function that holds a stream until it is let go: how a case makes a stream busy without any timing.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cann_sys::aclrtStream;

use crate::case::{Answer, Stop};
use crate::probe::{Probe, step};

static OPEN: AtomicBool = AtomicBool::new(false);
static ENTERED: AtomicBool = AtomicBool::new(false);
static NOTES: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];
static NOTED: AtomicUsize = AtomicUsize::new(0);

/// A held stream is let go after this whatever happens, so that a case that ends early does not hang.
const LIMIT: Duration = Duration::from_secs(60);

unsafe extern "C" fn hold(_argument: *mut c_void) {
    ENTERED.store(true, Ordering::Release);
    let end = Instant::now() + LIMIT;
    while !OPEN.load(Ordering::Acquire) && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(200));
    }
}

unsafe extern "C" fn take_note(argument: *mut c_void) {
    if let Some(note) = NOTES.get(NOTED.fetch_add(1, Ordering::AcqRel)) {
        note.store(argument as usize, Ordering::Release);
    }
}

/// Puts the held function on a stream and waits until it runs.
pub fn close(probe: &Probe, stream: aclrtStream) -> Answer {
    OPEN.store(false, Ordering::Release);
    ENTERED.store(false, Ordering::Release);
    step!(probe, acl aclrtLaunchHostFunc(stream, Some(hold), std::ptr::null_mut()));
    let end = Instant::now() + LIMIT;
    while !ENTERED.load(Ordering::Acquire) {
        if Instant::now() > end {
            return Err(Stop::Cannot("a host function was not started within a minute".to_owned()));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Lets the stream go.
pub fn open() {
    OPEN.store(true, Ordering::Release);
}

/// Puts a function on the stream that writes down `number`.
pub fn note(probe: &Probe, stream: aclrtStream, number: usize) -> Answer {
    step!(probe, acl aclrtLaunchHostFunc(stream, Some(take_note), number as *mut c_void));
    Ok(())
}

/// The numbers written down so far, in order.
pub fn notes() -> Vec<usize> {
    NOTES.iter().take(NOTED.load(Ordering::Acquire)).map(|note| note.load(Ordering::Acquire)).collect()
}

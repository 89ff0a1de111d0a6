//! `enableGracefulShutdown`: engines that are closed when the process is asked to end, or ends.
//!
//! A signal handler may do almost nothing, so it writes the signal's number to a pipe; a thread reads it,
//! closes the engines and ends the process with 128 + that number, as upstream does. In a forked child, which
//! has the handler but not the thread, the signal gets its default action back and is raised again.

use std::ffi::c_int;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mooncake::engine::Engine;
use mooncake::error::{Code, Error, Result, Stage};
use std::sync::{Mutex, PoisonError};

use crate::abi::Handle;
use crate::boundary::negative;
use crate::engine::engine;

/// Signals that end the process in good order.
const SIGNALS: [c_int; 2] = [libc::SIGTERM, libc::SIGINT];
/// After this long, the process ends whether or not every engine is closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Engines to close.
static ENABLED: Mutex<Vec<Weak<Engine>>> = Mutex::new(Vec::new());
/// Write end of the pipe, for the handler.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// Read end of the pipe, which the thread owns; for a child after fork, which has no such thread.
static READ_END: AtomicI32 = AtomicI32::new(-1);
/// Whether the end of the process closes the engines; a child after fork inherits that.
static EXIT_WATCHED: AtomicBool = AtomicBool::new(false);
/// The process that has the thread; 0 before there is one.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Takes a destroyed engine off the list.
pub(crate) fn forget(engine: &Arc<Engine>) {
    let gone = Arc::downgrade(engine);
    ENABLED.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !other.ptr_eq(&gone));
}

fn enable(engine: &Arc<Engine>) -> Result<()> {
    let engine = Arc::downgrade(engine);
    let mut enabled = ENABLED.lock().unwrap_or_else(PoisonError::into_inner);
    if OWNER.load(Ordering::Acquire) != std::process::id() {
        enabled.clear();
        start()?;
        OWNER.store(std::process::id(), Ordering::Release);
    }
    if !enabled.iter().any(|other| other.ptr_eq(&engine)) {
        enabled.push(engine);
    }
    Ok(())
}

/// Makes the pipe and the thread, and installs the handlers; nothing is left of a start that failed.
fn start() -> Result<()> {
    close_inherited();
    let mut reads_at = -1;
    let write_end = listen(|read_end| {
        reads_at = read_end.as_raw_fd();
        let spawned = std::thread::Builder::new()
            .name("mct-shutdown".to_owned())
            .spawn(move || wait_for_signal(&mut std::fs::File::from(read_end)));
        spawned.map(drop).map_err(|error| {
            Error::new(Code::Memory, Stage::Configure, format!("cannot start a thread: {error}"))
        })
    })?;
    // SAFETY: the function lives as long as the process and does not unwind.
    if !EXIT_WATCHED.swap(true, Ordering::AcqRel) && unsafe { libc::atexit(at_exit) } != 0 {
        EXIT_WATCHED.store(false, Ordering::Release);
        return Err(system("atexit"));
    }
    PIPE.store(write_end.as_raw_fd(), Ordering::Release);
    let mut earlier: Vec<(c_int, libc::sigaction)> = Vec::new();
    for signal in SIGNALS {
        match install(signal) {
            Ok(action) => earlier.push((signal, action)),
            Err(error) => {
                for (signal, action) in earlier {
                    // SAFETY: the action is the one that the kernel gave; a failure leaves ours, which does nothing
                    // without a pipe.
                    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
                }
                PIPE.store(-1, Ordering::Release);
                return Err(error);
            }
        }
    }
    // The handler writes to it as long as the process lives.
    let _ = write_end.into_raw_fd();
    READ_END.store(reads_at, Ordering::Release);
    Ok(())
}

/// Makes a pipe and gives its read end to `serve`. Gives the write end, whose closing ends who reads.
fn listen(serve: impl FnOnce(OwnedFd) -> Result<()>) -> Result<OwnedFd> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(system("pipe2"));
    }
    // SAFETY: both were opened just now and are nobody else's.
    let [read_end, write_end] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    serve(read_end)?;
    Ok(write_end)
}

/// Installs the handler; gives the action that was there.
fn install(signal: c_int) -> Result<libc::sigaction> {
    // SAFETY: a zeroed sigaction is a valid one, for the kernel to fill.
    let mut earlier: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above; the handler does async-signal-safe things only.
    let code = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, &raw mut earlier)
    };
    if code == 0 { Ok(earlier) } else { Err(system("sigaction")) }
}

/// A child after fork has the descriptors of its parent's pipe, and no thread that reads there.
fn close_inherited() {
    for end in [&PIPE, &READ_END] {
        let end = end.swap(-1, Ordering::AcqRel);
        if end >= 0 {
            // SAFETY: it was set by the start that succeeded, in the parent; here it is a copy that nobody owns.
            drop(unsafe { OwnedFd::from_raw_fd(end) });
        }
    }
}

fn system(function: &str) -> Error {
    let message = format!("{function} failed: {}", std::io::Error::last_os_error());
    Error::new(Code::Memory, Stage::Configure, message)
}

extern "C" fn on_signal(signal: c_int) {
    if OWNER.load(Ordering::Acquire) == std::process::id() {
        let byte = u8::try_from(signal).unwrap_or(u8::MAX);
        // SAFETY: the calling thread's errno, which what was interrupted may be about to read.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        let kept = unsafe { errno.read() };
        // SAFETY: write is async-signal-safe and reads one byte of ours. A full pipe means that one is on its
        // way.
        unsafe { libc::write(PIPE.load(Ordering::Acquire), (&raw const byte).cast(), 1) };
        // SAFETY: as above.
        unsafe { errno.write(kept) };
    } else {
        // SAFETY: both are async-signal-safe.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

fn wait_for_signal(read_end: &mut std::fs::File) {
    let mut byte = [0_u8];
    let signal = loop {
        match read_end.read(&mut byte) {
            Ok(1) => break byte[0],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // The start has failed after all.
            _ => return,
        }
    };
    log::info!("signal {signal}: closing the engines");
    let (sender, closed) = std::sync::mpsc::channel();
    let closer = std::thread::Builder::new().name("mct-close".to_owned()).spawn(move || {
        close_all();
        // The receiver is gone only when the limit passed.
        let _late = sender.send(());
    });
    if closer.is_ok() && closed.recv_timeout(CLOSE_LIMIT).is_err() {
        log::warn!("the engines are not closed after {CLOSE_LIMIT:?}; ending anyway");
    }
    // SAFETY: ends the process without running exit handlers, which may wait for threads that are gone.
    unsafe { libc::_exit(128 + c_int::from(signal)) }
}

extern "C" fn at_exit() {
    if OWNER.load(Ordering::Acquire) == std::process::id() {
        let _caught = std::panic::catch_unwind(close_all);
    }
}

fn close_all() {
    let engines = std::mem::take(&mut *ENABLED.lock().unwrap_or_else(PoisonError::into_inner));
    for engine in engines.iter().filter_map(Weak::upgrade) {
        engine.close();
    }
}

export! {
    /// Closes the engine when the process ends.
    fn enableGracefulShutdown(engine: Handle) -> c_int,
    failure negative, {
        enable(&self::engine(engine)?.engine)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_fails_leaves_no_end_of_the_pipe_open() {
        let mut kept = None;
        let failed = listen(|read_end| {
            kept = Some(read_end.try_clone().unwrap());
            Err(Error::new(Code::Memory, Stage::Configure, "no thread"))
        });
        assert!(failed.is_err());
        // All write ends are closed when a read sees the end; it would wait for ever otherwise.
        let mut reader = std::fs::File::from(kept.unwrap());
        let mut polled = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry of ours.
        assert_eq!(unsafe { libc::poll(&raw mut polled, 1, 5000) }, 1, "the write end is open");
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_closed_write_end_ends_the_thread_that_reads() {
        let (sender, ended) = std::sync::mpsc::channel();
        let write_end = listen(|read_end| {
            std::thread::spawn(move || {
                wait_for_signal(&mut std::fs::File::from(read_end));
                sender.send(()).unwrap();
            });
            Ok(())
        });
        drop(write_end.unwrap());
        ended.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

//! `enableGracefulShutdown`: engines that are closed when the process is asked to end, or ends.
//!
//! A signal handler may do almost nothing, so it writes the signal's number to a pipe; a thread reads it,
//! closes the engines and ends the process with 128 + that number, as upstream does. In a forked child, which
//! has the handler but not the thread, the signal gets its default action back and is raised again.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
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

/// Makes the pipe and the thread, and installs the handlers.
fn start() -> Result<()> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(system("pipe2"));
    }
    let [read_end, write_end] = ends;
    PIPE.store(write_end, Ordering::Release);
    std::thread::Builder::new()
        .name("mct-shutdown".to_owned())
        .spawn(move || wait_for_signal(read_end))
        .map_err(|error| {
            Error::new(Code::Memory, Stage::Configure, format!("cannot start a thread: {error}"))
        })?;
    for signal in SIGNALS {
        // SAFETY: a zeroed sigaction is a valid one; the handler does async-signal-safe things only.
        let code = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        if code != 0 {
            return Err(system("sigaction"));
        }
    }
    // SAFETY: the function lives as long as the process and does not unwind.
    if unsafe { libc::atexit(at_exit) } != 0 {
        return Err(system("atexit"));
    }
    Ok(())
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

fn wait_for_signal(read_end: c_int) {
    let mut signal = 0_u8;
    loop {
        // SAFETY: one byte of ours is filled; the descriptor is never closed.
        let count = unsafe { libc::read(read_end, (&raw mut signal).cast(), 1) };
        if count == 1 {
            break;
        }
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return;
        }
    }
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

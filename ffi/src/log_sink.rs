//! The caller's own receiver of the log.
//!
//! Invariant: the sink is called under a read lock and replaced under the write lock, so that whoever
//! replaced it knows that the old one neither runs nor will run. A sink that logs through this library, or
//! replaces itself, is told apart by a per-thread mark and cannot deadlock.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Record};
use mooncake::error::{Code, Error, Result, Stage};

use crate::abi::LogSink;
use crate::boundary::invalid;
use crate::last_error::c_text;
use crate::log_line;

/// Longest wait for the old sink to return.
const REPLACE_LIMIT: Duration = Duration::from_secs(5);

struct Sink {
    function: unsafe extern "C" fn(*mut c_void, c_int, *const std::ffi::c_char, *const std::ffi::c_char),
    user: *mut c_void,
}

// SAFETY: the header tells the caller that the sink is called from any thread with this pointer.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);
/// Whether the caller has chosen a level, which then stands above `MC_LOG_LEVEL`.
static LEVEL_CHOSEN: AtomicBool = AtomicBool::new(false);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Replaces the sink and sets the level.
pub(crate) fn set(function: LogSink, user: *mut c_void, level: c_int) -> Result<()> {
    let filter = filter(level)?;
    if INSIDE.get() {
        return Err(invalid(Stage::Configure, "a log sink cannot replace the log sink"));
    }
    log_line::install();
    let deadline = Instant::now() + REPLACE_LIMIT;
    loop {
        match SINK.try_write() {
            Ok(mut sink) => {
                *sink = function.map(|function| Sink { function, user });
                break;
            }
            Err(TryLockError::Poisoned(poisoned)) => {
                *poisoned.into_inner() = function.map(|function| Sink { function, user });
                break;
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                let message = format!("the previous log sink did not return within {REPLACE_LIMIT:?}");
                return Err(Error::new(Code::Busy, Stage::Configure, message));
            }
            // Sinks are quick; a lock that queues writers would let one slow sink stop every logging thread.
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    LEVEL_CHOSEN.store(true, Ordering::Release);
    log::set_max_level(filter);
    Ok(())
}

/// Whether the caller has chosen a level.
pub(crate) fn level_is_chosen() -> bool {
    LEVEL_CHOSEN.load(Ordering::Acquire)
}

/// Hands the record to the sink; false when there is none.
pub(crate) fn offer(record: &Record<'_>) -> bool {
    if INSIDE.get() {
        return false;
    }
    let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
    let Some(Sink { function, user }) = &*sink else {
        return false;
    };
    let module = c_text(record.target());
    let message = c_text(&record.args().to_string());
    INSIDE.set(true);
    // SAFETY: the caller's function, not replaced while the lock is held; both texts live until it returns.
    unsafe { function(*user, number(record.level()), module.as_ptr(), message.as_ptr()) };
    INSIDE.set(false);
    true
}

fn number(level: Level) -> c_int {
    match level {
        Level::Error => 1,
        Level::Warn => 2,
        Level::Info => 3,
        Level::Debug => 4,
        Level::Trace => 5,
    }
}

fn filter(level: c_int) -> Result<LevelFilter> {
    Ok(match level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        5 => LevelFilter::Trace,
        other => return Err(invalid(Stage::Configure, format!("{other} is not a log level (0 to 5)"))),
    })
}

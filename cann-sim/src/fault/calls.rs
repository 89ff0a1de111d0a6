//! What was called: counts by function and device, and the latest calls one by one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::clock;
use crate::context;

/// Calls the log keeps.
const LOG_LIMIT: usize = 8192;

/// One call of the log.
struct Call {
    at_us: u64,
    name: &'static str,
    device: Option<u32>,
    code: i32,
}

#[derive(Default)]
struct Calls {
    counts: BTreeMap<(&'static str, Option<u32>), u64>,
    latest: VecDeque<Call>,
}

static COUNTING: AtomicBool = AtomicBool::new(false);
static CALLS: LazyLock<Mutex<Calls>> = LazyLock::new(Mutex::default);

/// Starts counting.
pub fn start() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Whether calls are counted.
pub fn are_counted() -> bool {
    COUNTING.load(Ordering::Relaxed)
}

/// The device of the calling thread's context, by user id.
pub fn current_device() -> Option<u32> {
    context::current().ok().map(|context| context.device.user_id)
}

/// A call that is under way.
pub struct Running {
    name: &'static str,
    before: Option<u32>,
}

/// Counts a call for the device that is current now.
pub fn begin(name: &'static str) -> Option<Running> {
    if !are_counted() {
        return None;
    }
    let before = current_device();
    *CALLS.lock().counts.entry((name, before)).or_default() += 1;
    Some(Running { name, before })
}

impl Running {
    /// Counts the call for the device that it made current, if it did, and writes it into the log.
    pub fn end(self, code: i32) {
        let after = current_device();
        let mut calls = CALLS.lock();
        if after.is_some() && after != self.before {
            *calls.counts.entry((self.name, after)).or_default() += 1;
        }
        if calls.latest.len() >= LOG_LIMIT {
            calls.latest.pop_front();
        }
        let device = after.or(self.before);
        calls.latest.push_back(Call { at_us: clock::now_us(), name: self.name, device, code });
    }
}

fn device_word(device: Option<u32>) -> String {
    device.map_or_else(|| "-".to_owned(), |id| id.to_string())
}

/// The counts as `NAME/DEVICE COUNT` joined by `;`.
pub fn counts() -> String {
    let calls = CALLS.lock();
    let words: Vec<_> = calls
        .counts
        .iter()
        .map(|((name, device), count)| format!("{name}/{} {count}", device_word(*device)))
        .collect();
    words.join(";")
}

/// The latest `limit` calls, oldest first, as `MICROSECONDS NAME/DEVICE CODE` joined by `;`.
pub fn log(limit: usize) -> String {
    let calls = CALLS.lock();
    let words: Vec<_> = calls
        .latest
        .iter()
        .skip(calls.latest.len().saturating_sub(limit))
        .map(|call| format!("{} {}/{} {}", call.at_us, call.name, device_word(call.device), call.code))
        .collect();
    words.join(";")
}

/// Forgets counts and log.
pub fn reset() {
    *CALLS.lock() = Calls::default();
}

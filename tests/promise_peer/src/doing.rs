//! What the threads of a long command are doing, told when one of them is at it for too long.
//!
//! A run that hangs cannot be looked at once its test has killed the process. So the process tells by itself: what each
//! thread waits for and since when, the engine's counters, and where each thread of the process is in the kernel.

use std::fmt::Write;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::Peer;

/// What one thread is doing now, if anything.
#[derive(Default)]
pub struct Doing(Mutex<Option<(String, Instant)>>);

impl Doing {
    /// From now on it does this.
    pub fn now(&self, what: String) {
        *self.0.lock().unwrap() = Some((what, Instant::now()));
    }

    /// It does nothing any more.
    pub fn rest(&self) {
        *self.0.lock().unwrap() = None;
    }

    /// Since when it is at the same thing, if that is for longer than `limit`.
    fn late(&self, limit: Duration) -> Option<Instant> {
        self.0.lock().unwrap().as_ref().map(|(_, since)| *since).filter(|since| since.elapsed() > limit)
    }
}

/// Watches threads until it is told that they are done.
#[derive(Default)]
pub struct Watchdog {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Watchdog {
    /// Tells of every thread, on standard error, each time one is at the same thing for longer than `limit`.
    pub fn watch(&self, peer: &Peer, threads: &[Doing], limit: Duration) {
        let mut told = Vec::new();
        loop {
            let done = self.done.lock().unwrap();
            let (done, _) =
                self.changed.wait_timeout_while(done, Duration::from_secs(1), |done| !*done).unwrap();
            if *done {
                return;
            }
            drop(done);
            let late: Vec<Instant> = threads.iter().filter_map(|doing| doing.late(limit)).collect();
            if late.iter().any(|since| !told.contains(since)) {
                eprintln!("{}", report(peer, threads));
            }
            told = late;
        }
    }

    /// They are done.
    pub fn end(&self) {
        *self.done.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Everything that may say why nothing goes on.
fn report(peer: &Peer, threads: &[Doing]) -> String {
    let mut text = format!("process {} is late:\n", std::process::id());
    for (number, doing) in threads.iter().enumerate() {
        let what = match &*doing.0.lock().unwrap() {
            Some((what, since)) => format!("{what}, for {} ms", since.elapsed().as_millis()),
            None => "nothing".to_owned(),
        };
        writeln!(text, "  thread {number}: {what}").unwrap();
    }
    for line in peer.engine.metrics_text().lines() {
        let value = line.rsplit(' ').next();
        if !line.starts_with('#') && !line.contains("_bucket") && value != Some("0") {
            writeln!(text, "  {line}").unwrap();
        }
    }
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let (name, place, call) = (read("comm"), read("wchan"), read("syscall"));
        let call = call.split(' ').next().unwrap_or_default().trim();
        writeln!(text, "  {} {}: in {place}, call {call}", task.file_name().display(), name.trim()).unwrap();
    }
    text
}

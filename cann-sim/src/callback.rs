//! Callbacks that a thread of the program runs (facts 1.6): a stream is subscribed to one thread, which loops over
//! `aclrtProcessReport`; the stream hands it functions in order and, for blocking ones, waits until they ran.
//!
//! A blocking callback that its thread has not begun goes with an abort of the stream. One that does not block has
//! left the stream when it is handed over: an abort after that does not call it back.
//!
//! A thread is named by what `pthread_self` answers in it. Locks: the table and a thread's queue are leaves; no lock
//! is held while a function of the program runs.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::clock::Deadline;
use crate::context;
use crate::status::{Fail, Outcome, acl};
use crate::stream::Stream;
use crate::task::{HostFunction, Task, Work};

/// How often a stream that waits for its callback looks whether it was aborted.
const ABORT_LOOK: Duration = Duration::from_millis(10);

/// A function on its way to its thread.
struct Report {
    call: HostFunction,
    done: Arc<AtomicBool>,
}

/// What one thread has to run.
#[derive(Default)]
struct Reports {
    queue: Mutex<VecDeque<Report>>,
    /// Told when a report arrives, and when one is done.
    changed: Condvar,
}

#[derive(Default)]
struct Subscriptions {
    /// Thread by stream handle.
    streams: HashMap<usize, u64>,
    threads: HashMap<u64, Arc<Reports>>,
}

static SUBSCRIPTIONS: LazyLock<Mutex<Subscriptions>> = LazyLock::new(Mutex::default);

/// `aclrtSubscribeReport`: one thread may serve many streams, a stream has one thread.
pub fn subscribe(thread_id: u64, stream: usize) -> Outcome {
    let stream = context::resolve_stream(stream)?;
    let mut subscriptions = SUBSCRIPTIONS.lock();
    if subscriptions.streams.contains_key(&stream.handle) {
        return Err(Fail::new(acl::STREAM_SUBSCRIBE, "a thread is subscribed to the stream already"));
    }
    subscriptions.streams.insert(stream.handle, thread_id);
    subscriptions.threads.entry(thread_id).or_default();
    Ok(())
}

/// `aclrtUnSubscribeReport`.
pub fn unsubscribe(thread_id: u64, stream: usize) -> Outcome {
    let stream = context::resolve_stream(stream)?;
    let mut subscriptions = SUBSCRIPTIONS.lock();
    if subscriptions.streams.get(&stream.handle) != Some(&thread_id) {
        return Err(Fail::new(acl::STREAM_SUBSCRIBE, "this thread is not subscribed to the stream"));
    }
    subscriptions.streams.remove(&stream.handle);
    if !subscriptions.streams.values().any(|thread| *thread == thread_id) {
        subscriptions.threads.remove(&thread_id);
    }
    Ok(())
}

/// Forgets a stream that ended.
pub fn forget(stream: usize) {
    let mut subscriptions = SUBSCRIPTIONS.lock();
    if let Some(thread_id) = subscriptions.streams.remove(&stream)
        && !subscriptions.streams.values().any(|thread| *thread == thread_id)
    {
        subscriptions.threads.remove(&thread_id);
    }
}

/// `aclrtProcessReport` on the calling thread: waits for functions and runs what is there.
pub fn process(deadline: Deadline) -> Outcome {
    // SAFETY: pthread_self has no preconditions.
    let thread_id = unsafe { libc::pthread_self() };
    let reports = SUBSCRIPTIONS.lock().threads.get(&thread_id).cloned().ok_or_else(|| {
        Fail::new(acl::THREAD_SUBSCRIBE, "the calling thread is not subscribed to any stream")
    })?;
    let mut queue = reports.queue.lock();
    while queue.is_empty() {
        match deadline {
            None => reports.changed.wait(&mut queue),
            Some(deadline) => {
                reports.changed.wait_until(&mut queue, deadline);
                if queue.is_empty() && Instant::now() >= deadline {
                    return Err(Fail::new(acl::WAIT_TIMEOUT, "no callback came in time"));
                }
            }
        }
    }
    while let Some(Report { call, done }) = queue.pop_front() {
        drop(queue);
        // SAFETY: the program promised that the function may be called once with this argument.
        unsafe { (call.function)(call.argument) };
        queue = reports.queue.lock();
        done.store(true, Ordering::Release);
        reports.changed.notify_all();
    }
    Ok(())
}

/// A callback's place in its stream.
struct Callback {
    reports: Arc<Reports>,
    report: Option<Report>,
    is_blocking: bool,
}

impl Work for Callback {
    fn run(&mut self, stream: &Stream) -> Outcome {
        let Some(report) = self.report.take() else { return Ok(()) };
        stream.timed(|| {
            self.hand_over(report, stream);
            Ok(())
        })
    }
}

impl Callback {
    /// Gives the report to its thread and, where that blocks, waits until it ran or the stream is aborted.
    fn hand_over(&self, report: Report, stream: &Stream) {
        let done = Arc::clone(&report.done);
        let mut queue = self.reports.queue.lock();
        queue.push_back(report);
        self.reports.changed.notify_all();
        while self.is_blocking && !done.load(Ordering::Acquire) && !stream.is_aborting() {
            self.reports.changed.wait_for(&mut queue, ABORT_LOOK);
        }
        if self.is_blocking && !done.load(Ordering::Acquire) {
            // Aborted: what its thread has not begun must not run later.
            queue.retain(|report| !Arc::ptr_eq(&report.done, &done));
        }
    }
}

/// `aclrtLaunchCallback`; a blocking one holds the stream until it ran.
pub fn launch(call: HostFunction, is_blocking: bool, stream: usize) -> Outcome {
    let stream = context::resolve_stream(stream)?;
    let reports = {
        let subscriptions = SUBSCRIPTIONS.lock();
        let thread = subscriptions.streams.get(&stream.handle);
        thread.and_then(|thread| subscriptions.threads.get(thread)).cloned()
    };
    let reports = reports.ok_or_else(|| {
        Fail::new(
            acl::STREAM_NO_CALLBACK_REGISTERED,
            "no thread is subscribed to the stream: call aclrtSubscribeReport first",
        )
    })?;
    let report = Report { call, done: Arc::default() };
    stream.submit(Task::Work(Box::new(Callback { reports, report: Some(report), is_blocking })))
}

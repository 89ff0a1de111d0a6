//! Streams: first in, first out, each with its own executor.
//!
//! The executor is a thread that starts with the first task and retires when the stream has been idle, so that ten
//! thousand idle streams cost no threads. Submitting returns at once. A wait sees the tasks submitted before it.
//! An abort stops the running task, drops the queued ones, and is told to every waiter; the stream can be used
//! again afterwards (hardware: undocumented, facts 8.9).
//!
//! A task that panics (a defect of this crate) fails the stream as any failing task does: nobody waits for ever.
//!
//! Locks: under a stream's state lock an event's may be taken (an abort wakes the event that the executor waits
//! for), and nothing else. It is never taken under another lock.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::clock::Deadline;
use crate::context::Context;
use crate::cost::{self, clock};
use crate::device::{self, Device};
use crate::event::Event;
use crate::handle::Handles;
use crate::status::{Fail, Outcome, acl};
use crate::task::Task;

/// Tasks a stream holds before a submitting call waits for room.
const QUEUE_LIMIT: usize = 4096;
/// How long an executor waits for work before it retires.
const IDLE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct StreamState {
    /// Tasks, and when each can begin by the cost model.
    queue: VecDeque<(Task, u64)>,
    submitted: u64,
    completed: u64,
    executor_alive: bool,
    running: bool,
    abort_epoch: u64,
    abort_code: i32,
    failure: Option<Fail>,
    failure_mode_set: bool,
    killed: Option<Fail>,
    ended: bool,
    awaited: Option<Arc<Event>>,
}

/// One stream.
pub struct Stream {
    /// The handle C holds.
    pub handle: usize,
    /// Flags of the creation.
    pub flags: u32,
    /// The device it runs on.
    pub device: &'static Device,
    context: Weak<Context>,
    context_handle: usize,
    aborting: AtomicBool,
    /// When the last task that ran ends by the cost model, on the machine's clock; 0 when nothing is charged.
    model_end_ns: AtomicU64,
    state: Mutex<StreamState>,
    /// Told when work or an abort arrives.
    work: Condvar,
    /// Told when a task ends.
    done: Condvar,
}

/// Live streams.
pub static STREAMS: Handles<Stream> = Handles::new(0x52);

/// Persistent, device-use-only and CPU-scheduled streams answer waits and queries at once (facts 1.6).
const UNWAITED_FLAGS: u32 = 4 | 0x10 | 0x20;

impl Stream {
    /// Makes a stream of a context and registers its handle.
    pub fn create(
        device: &'static Device,
        context: Weak<Context>,
        context_handle: usize,
        flags: u32,
    ) -> Outcome<Arc<Self>> {
        device::take(&device.streams, device::STREAM_LIMIT, acl::NO_STREAM_RESOURCE, "streams")?;
        let handle = STREAMS.reserve();
        let stream = Arc::new(Self {
            handle,
            flags,
            device,
            context,
            context_handle,
            aborting: AtomicBool::new(false),
            model_end_ns: AtomicU64::new(0),
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        STREAMS.insert(handle, Arc::clone(&stream));
        Ok(stream)
    }

    /// The context it was made in.
    pub fn context_handle(&self) -> usize {
        self.context_handle
    }

    /// Whether an abort is under way.
    pub fn is_aborting(&self) -> bool {
        self.aborting.load(Ordering::Acquire)
    }

    /// Names the event that the executor waits for, so that an abort can wake it.
    pub fn set_awaited(&self, event: Option<Arc<Event>>) {
        self.state.lock().awaited = event;
    }

    /// When the last task that ran ends by the cost model.
    pub fn model_end_ns(&self) -> u64 {
        self.model_end_ns.load(Ordering::Acquire)
    }

    /// The running task ends then at the earliest.
    pub fn extend(&self, model_end_ns: u64) {
        self.model_end_ns.fetch_max(model_end_ns, Ordering::AcqRel);
    }

    /// Holds the executor until everything that ran has ended by the cost model, or the stream is aborted.
    pub fn settle(&self) {
        let end_ns = self.model_end_ns();
        if end_ns > 0 {
            self.hold(end_ns);
        }
    }

    /// Runs what no profile charges, after everything before it: what it takes on this machine is what it takes.
    pub fn timed(&self, work: impl FnOnce() -> Outcome) -> Outcome {
        if cost::costs().is_none() {
            return work();
        }
        self.settle();
        if self.is_aborting() {
            return Ok(()); // its turn did not come
        }
        let started_ns = clock::machine_ns();
        let outcome = work();
        let took_ns = clock::machine_ns().saturating_sub(started_ns);
        self.extend(self.model_end_ns().saturating_add(took_ns));
        outcome
    }

    /// Holds the executor until a time of the machine's clock, or until the stream is aborted.
    pub fn hold(&self, time_ns: u64) {
        if time_ns > clock::machine_ns() {
            self.hang(clock::instant(time_ns));
        }
    }

    /// Puts a task at the end.
    pub fn submit(self: &Arc<Self>, task: Task) -> Outcome {
        let ready_ns = if cost::costs().is_some() { clock::launching_ns() } else { 0 };
        self.submit_at(task, ready_ns)
    }

    /// Puts a task at the end that can begin at `ready_ns` by the cost model.
    pub fn submit_at(self: &Arc<Self>, task: Task, ready_ns: u64) -> Outcome {
        if let Some(context) = self.context.upgrade()
            && let Some(failure) = context.failure()
        {
            task.discard();
            return Err(Fail::new(
                acl::TASK_ABORT_STOP,
                format!("the context stops on failure and has failed: {}", failure.text),
            ));
        }
        let mut state = self.state.lock();
        if let Some(fail) = state.killed.clone() {
            drop(state);
            task.discard();
            return Err(fail);
        }
        while state.queue.len() >= QUEUE_LIMIT && !self.is_aborting() {
            self.done.wait(&mut state);
        }
        if self.is_aborting() {
            drop(state);
            task.discard();
            return Ok(());
        }
        state.queue.push_back((task, ready_ns));
        state.submitted += 1;
        if state.executor_alive {
            self.work.notify_one();
            return Ok(());
        }
        state.executor_alive = true;
        let stream = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name(format!("npu{}-stream", self.device.user_id))
            .spawn(move || stream.execute());
        if let Err(error) = started {
            state.executor_alive = false;
            state.submitted -= 1;
            let task = state.queue.pop_back();
            drop(state);
            if let Some((task, _)) = task {
                task.discard();
            }
            return Err(Fail::new(
                acl::NO_STREAM_RESOURCE,
                format!("cannot start the stream's executor: {error}"),
            ));
        }
        Ok(())
    }

    /// The executor's life.
    fn execute(self: Arc<Self>) {
        // Functions of the program that run here find the stream's context current, as on hardware.
        crate::context::bind(self.context_handle);
        let mut state = self.state.lock();
        loop {
            let Some((task, ready_ns)) = state.queue.pop_front() else {
                let idle = !state.ended && !self.work.wait_for(&mut state, IDLE).timed_out();
                if !idle && state.queue.is_empty() {
                    state.executor_alive = false;
                    return;
                }
                continue;
            };
            state.running = true;
            let is_dead = state.killed.is_some();
            drop(state);
            self.extend(ready_ns);
            let context = self.context.upgrade();
            let outcome = match context.as_ref().and_then(|context| context.failure()) {
                failure if is_dead || failure.is_some() => {
                    task.discard();
                    Ok(())
                }
                // What a task that unwound held is released by then, and its locks do not poison.
                _ => catch_unwind(AssertUnwindSafe(|| task.run(&self))).unwrap_or_else(|_| {
                    Err(Fail::new(acl::INTERNAL_ERROR, "a task panicked; this is a defect of cann-sim"))
                }),
            };
            if let (Err(fail), Some(context)) = (&outcome, &context) {
                context.fail(fail);
            }
            state = self.state.lock();
            state.running = false;
            if !self.is_aborting() {
                state.completed += 1;
            }
            if let Err(fail) = outcome {
                state.failure.get_or_insert(fail);
            }
            self.done.notify_all();
        }
    }

    /// Waits until everything submitted before is done.
    pub fn synchronize(&self, deadline: Deadline) -> Outcome {
        if self.flags & UNWAITED_FLAGS != 0 {
            return Ok(());
        }
        let entered_ns = cost::costs().map(|_| clock::now_ns());
        let mut state = self.state.lock();
        let (target, epoch) = (state.submitted, state.abort_epoch);
        while state.completed < target {
            if state.abort_epoch != epoch {
                return Err(Fail::new(state.abort_code, "the stream was aborted"));
            }
            match deadline {
                None => self.done.wait(&mut state),
                Some(deadline) => {
                    self.done.wait_until(&mut state, deadline);
                    if state.completed < target && state.abort_epoch == epoch && Instant::now() >= deadline {
                        return Err(Fail::new(
                            acl::STREAM_SYNC_TIMEOUT,
                            format!("{} tasks are still under way; they go on", target - state.completed),
                        ));
                    }
                }
            }
        }
        if state.abort_epoch != epoch {
            return Err(Fail::new(state.abort_code, "the stream was aborted"));
        }
        if let Some(entered_ns) = entered_ns {
            clock::waited(entered_ns, self.model_end_ns());
        }
        let own = state.failure.take().or_else(|| state.killed.clone());
        drop(state);
        // A context that stops on failure keeps the failure for every stream and every wait.
        match self.context.upgrade().and_then(|context| context.failure()).or(own) {
            Some(fail) => Err(fail),
            None => Ok(()),
        }
    }

    /// Whether everything is done; a failure of the stream is answered as such and kept.
    pub fn is_idle(&self) -> Outcome<bool> {
        if self.flags & UNWAITED_FLAGS != 0 {
            return Ok(true);
        }
        let state = self.state.lock();
        match state.failure.as_ref().or(state.killed.as_ref()) {
            Some(fail) => Err(fail.clone()),
            None => {
                let is_idle = state.completed >= state.submitted;
                if is_idle {
                    clock::saw_end();
                }
                Ok(is_idle)
            }
        }
    }

    /// Stops the running task and drops the queued ones.
    pub fn abort(&self) {
        self.abort_as(acl::STREAM_ABORT);
    }

    /// The same; waiters are told `code`.
    pub fn abort_as(&self, code: i32) {
        let mut state = self.state.lock();
        while self.is_aborting() {
            self.done.wait(&mut state);
        }
        self.aborting.store(true, Ordering::Release);
        state.abort_epoch += 1;
        state.abort_code = code;
        let dropped = std::mem::take(&mut state.queue);
        if let Some(event) = state.awaited.take() {
            event.poke();
        }
        self.work.notify_all();
        self.done.notify_all();
        while state.running {
            self.done.wait(&mut state);
        }
        state.completed = state.submitted;
        self.model_end_ns.store(0, Ordering::Release);
        state.failure = None;
        self.aborting.store(false, Ordering::Release);
        drop(state);
        self.done.notify_all();
        for (task, _) in dropped {
            task.discard();
        }
    }

    /// Makes this and all later work of the stream fail; no abort revives it.
    pub fn kill(&self, fail: Fail) {
        self.state.lock().killed.get_or_insert(fail);
    }

    /// Ends the handle and the place in the device's account; an idle executor goes at once.
    pub fn retire(&self) {
        if STREAMS.remove(self.handle).is_some() {
            device::give_back(&self.device.streams);
            crate::callback::forget(self.handle);
            self.state.lock().ended = true;
            self.work.notify_all();
        }
    }

    /// Blocks the executor until the stream is aborted or `deadline` passes; true when aborted.
    pub fn hang(&self, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        while !self.is_aborting() {
            match deadline {
                None => self.work.wait(&mut state),
                Some(deadline) => {
                    if self.work.wait_until(&mut state, deadline).timed_out() {
                        return self.is_aborting();
                    }
                }
            }
        }
        true
    }

    /// `aclrtSetStreamFailureMode`: once per stream.
    pub fn set_failure_mode(&self, stop: bool) -> Outcome {
        let mut state = self.state.lock();
        if state.failure_mode_set {
            return Err(Fail::new(acl::PARAM_INVALID, "the failure mode of a stream can be set once"));
        }
        state.failure_mode_set = true;
        drop(state);
        if stop && let Some(context) = self.context.upgrade() {
            context.stop_on_failure();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Work;

    /// What a defect of a task would do.
    struct Panics;

    impl Work for Panics {
        fn run(&mut self, _stream: &Stream) -> Outcome {
            std::panic::resume_unwind(Box::new("a defect"))
        }
    }

    /// Facts 1.6, streams: whatever a task does, a wait with a timeout comes back and the stream goes on.
    #[test]
    fn a_task_that_panics_fails_the_stream_and_no_more() {
        let device = device::by_user_id(0).unwrap();
        let stream = Stream::create(device, Weak::new(), 0, 0).unwrap();
        let deadline = || Instant::now().checked_add(Duration::from_secs(60));
        stream.submit(Task::Work(Box::new(Panics))).unwrap();
        assert_eq!(stream.synchronize(deadline()).unwrap_err().code, acl::INTERNAL_ERROR);
        stream.submit(Task::Fail(Fail::new(acl::LINK_ERROR, "the executor lives"))).unwrap();
        assert_eq!(stream.synchronize(deadline()).unwrap_err().code, acl::LINK_ERROR);
        stream.abort();
        stream.retire();
    }
}

//! Events: marks in a stream that others can wait for.
//!
//! Each record has a generation; an event is complete when the last generation recorded has been passed by its
//! stream, so an event that was never recorded is complete (facts 1.6). A record that an abort dropped is *lost*:
//! whoever waits for it is told so instead of waiting for ever.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::clock::{Deadline, now_us};
use crate::cost::{self, clock};
use crate::device::{self, Device};
use crate::handle::Handles;
use crate::status::{Fail, Outcome, acl};

/// `ACL_EVENT_TIME_LINE`.
pub const TIME_LINE: u32 = 8;

#[derive(Default)]
struct EventState {
    recorded: u64,
    completed: u64,
    lost: u64,
    completed_at_us: u64,
    /// When the last passed record ends by the cost model.
    model_end_ns: u64,
    waits_submitted: u64,
    waits_completed: u64,
}

/// One event.
pub struct Event {
    device: &'static Device,
    flags: u32,
    state: Mutex<EventState>,
    changed: Condvar,
}

/// Live events.
pub static EVENTS: Handles<Event> = Handles::new(0x53);

impl Drop for Event {
    fn drop(&mut self) {
        device::give_back(&self.device.events);
    }
}

/// Makes an event on a device and answers its handle.
pub fn create(device: &'static Device, flags: u32) -> Outcome<usize> {
    device::take(&device.events, device::EVENT_LIMIT, acl::NO_EVENT_RESOURCE, "events")?;
    let handle = EVENTS.reserve();
    let event = Event { device, flags, state: Mutex::default(), changed: Condvar::new() };
    EVENTS.insert(handle, Arc::new(event));
    Ok(handle)
}

/// The event of a handle.
pub fn resolve(handle: usize) -> Outcome<Arc<Event>> {
    EVENTS.get(handle).ok_or_else(|| Fail::new(acl::INVALID_HANDLE, format!("{handle:#x} is no live event")))
}

impl Event {
    /// Begins a record; the stream completes the answered generation.
    pub fn begin_record(&self) -> u64 {
        let mut state = self.state.lock();
        state.recorded += 1;
        state.recorded
    }

    /// The generation that a wait submitted now has to see.
    pub fn begin_wait(&self) -> u64 {
        let mut state = self.state.lock();
        state.waits_submitted += 1;
        state.recorded
    }

    /// A stream passed its wait.
    pub fn end_wait(&self) {
        self.state.lock().waits_completed += 1;
    }

    /// The stream passed the record.
    pub fn complete(&self, generation: u64, model_end_ns: u64) {
        let mut state = self.state.lock();
        state.completed = state.completed.max(generation);
        state.model_end_ns = state.model_end_ns.max(model_end_ns);
        state.completed_at_us = now_us();
        self.changed.notify_all();
    }

    /// An abort dropped the record.
    pub fn lose(&self, generation: u64) {
        let mut state = self.state.lock();
        state.lost = state.lost.max(generation);
        self.changed.notify_all();
    }

    /// Wakes waiters so that they look at their stop condition.
    pub fn poke(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// When the last passed record ends by the cost model.
    pub fn model_end_ns(&self) -> u64 {
        self.state.lock().model_end_ns
    }

    /// Whether the last record has been passed.
    pub fn is_complete(&self) -> bool {
        let state = self.state.lock();
        let is_complete = state.completed >= state.recorded;
        if is_complete {
            clock::saw_end();
        }
        is_complete
    }

    /// Whether every submitted wait has been passed.
    pub fn waits_are_complete(&self) -> bool {
        let state = self.state.lock();
        state.waits_completed >= state.waits_submitted
    }

    /// Forgets the record, as `aclrtResetEvent` does.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.recorded += 1;
        let recorded = state.recorded;
        state.completed = recorded;
        self.changed.notify_all();
    }

    /// Waits until `generation` is passed. False when `stop` ended the wait.
    pub fn wait_generation(
        &self,
        generation: u64,
        deadline: Deadline,
        stop: &dyn Fn() -> bool,
    ) -> Outcome<bool> {
        let mut state = self.state.lock();
        loop {
            if state.completed >= generation {
                return Ok(true);
            }
            if state.lost >= generation {
                // Inferred: what a waiter of the stream itself is told (107023), facts 1.6 are silent on the event's.
                return Err(Fail::new(
                    acl::STREAM_ABORT,
                    "the stream that should record the event was aborted",
                ));
            }
            if stop() {
                return Ok(false);
            }
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) => {
                    if self.changed.wait_until(&mut state, deadline).timed_out()
                        && state.completed < generation
                        && Instant::now() >= deadline
                    {
                        return Err(Fail::new(acl::EVENT_SYNC_TIMEOUT, "the event was not reached in time"));
                    }
                }
            }
        }
    }

    /// Waits for the last record.
    pub fn synchronize(&self, deadline: Deadline) -> Outcome {
        let entered_ns = cost::costs().map(|_| clock::now_ns());
        let generation = self.state.lock().recorded;
        self.wait_generation(generation, deadline, &|| false)?;
        if let Some(entered_ns) = entered_ns {
            clock::waited(entered_ns, self.model_end_ns());
        }
        Ok(())
    }

    /// Device time of the last passed record.
    pub fn timestamp_us(&self) -> Outcome<u64> {
        if self.flags & TIME_LINE == 0 {
            return Err(Fail::new(acl::PARAM_INVALID, "the event was made without the time-line flag"));
        }
        let state = self.state.lock();
        if state.recorded == 0 || state.completed < state.recorded {
            return Err(Fail::new(acl::EVENT_NOT_COMPLETE, "the event has not been reached"));
        }
        Ok(state.completed_at_us)
    }
}

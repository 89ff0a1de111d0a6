//! Tasks: what a stream's executor runs.

use std::ffi::c_void;
use std::sync::Arc;

use crate::clock::Deadline;
use crate::copy::{self, End, Interrupted};
use crate::cost::{self, clock};
use crate::event::Event;
use crate::fault::{self, Course};
use crate::status::{Fail, Outcome, acl};
use crate::stream::Stream;

/// Work with its own rules (the one-sided operations).
pub trait Work: Send {
    /// Runs to the end, or until `stream.is_aborting()`.
    fn run(&mut self, stream: &Stream) -> Outcome;
}

/// A function of the program, run in stream order.
pub struct HostFunction {
    /// The function.
    pub function: unsafe extern "C" fn(*mut c_void),
    /// Its argument.
    pub argument: *mut c_void,
}

// SAFETY: the program hands function and argument over to be used on another thread; that is the call's contract.
unsafe impl Send for HostFunction {}

/// One entry of a stream.
pub enum Task {
    /// One copy.
    Copy {
        /// Where to.
        target: End,
        /// Where from.
        source: End,
        /// Bytes.
        length: usize,
    },
    /// One fill.
    Fill {
        /// Where.
        target: End,
        /// Byte.
        value: u8,
        /// Bytes.
        length: usize,
    },
    /// One-sided operations.
    Work(Box<dyn Work>),
    /// Marks an event.
    Record {
        /// The event.
        event: Arc<Event>,
        /// The record's generation.
        generation: u64,
    },
    /// Waits for an event of another stream.
    Wait {
        /// The event.
        event: Arc<Event>,
        /// The generation to see.
        generation: u64,
        /// When to give up.
        deadline: Deadline,
    },
    /// Calls back into the program.
    Call(HostFunction),
    /// Fails with the given code: an address that only the device could find wrong.
    Fail(Fail),
}

impl Task {
    /// Runs the task on the executor of `stream`.
    pub fn run(self, stream: &Stream) -> Outcome {
        // A task that only orders others has no bytes to move late or in spite of an abort.
        match fault::steer("task", stream) {
            Ok(Course::Aborted) => {
                self.discard();
                return Ok(());
            }
            Ok(_) => {}
            Err(fail) => {
                self.discard();
                return Err(fail);
            }
        }
        match self {
            Self::Copy { target, source, length } => match fault::steer("copy", stream)? {
                Course::Normal => {
                    charge_copy(stream, &target, &source, length);
                    let outcome = finish(copy::transfer(&target, &source, length, &|| stream.is_aborting()));
                    stream.settle();
                    outcome
                }
                Course::Unstoppable => finish(copy::transfer(&target, &source, length, &|| false)),
                Course::Later(time) => {
                    fault::land_later(stream, time, move || {
                        // A range that is not there any more takes nothing.
                        let _ = copy::transfer(&target, &source, length, &|| false);
                    });
                    Ok(())
                }
                Course::Aborted => Ok(()),
            },
            Self::Fill { target, value, length } => stream.timed(|| copy::fill(&target, value, length)),
            Self::Work(mut work) => work.run(stream),
            Self::Record { event, generation } => {
                stream.settle();
                if cost::costs().is_some() && stream.is_aborting() {
                    event.lose(generation); // its turn did not come
                } else {
                    event.complete(generation, stream.model_end_ns());
                }
                Ok(())
            }
            Self::Wait { event, generation, deadline } => {
                stream.set_awaited(Some(Arc::clone(&event)));
                let outcome = event.wait_generation(generation, deadline, &|| stream.is_aborting());
                stream.set_awaited(None);
                stream.extend(event.model_end_ns());
                event.end_wait();
                // A lost record releases the stream: the waiting stream itself was not aborted.
                match outcome {
                    Err(fail) if fail.code == acl::STREAM_ABORT => Ok(()),
                    other => other.map(|_| ()),
                }
            }
            Self::Call(call) => {
                stream.timed(|| {
                    // SAFETY: the program promised that the function may be called once with this argument.
                    unsafe { (call.function)(call.argument) };
                    Ok(())
                })
            }
            Self::Fail(fail) => Err(fail),
        }
    }

    /// Told when an abort or a failed stream drops the task.
    pub fn discard(self) {
        match self {
            Self::Record { event, generation } => event.lose(generation),
            Self::Wait { event, .. } => event.end_wait(),
            _ => {}
        }
    }
}

/// Charges a copy to the device, and waits for its beginning.
pub fn charge_copy(stream: &Stream, target: &End, source: &End, length: usize) {
    let Some(costs) = cost::costs() else { return };
    let ready_ns = stream.model_end_ns();
    stream.hold(ready_ns.saturating_sub(clock::LEAD_NS));
    stream.extend(costs.copy(stream.device, target, source, length, ready_ns));
}

/// What a copy on a stream answers: a stop is no failure, a refusal is the device's.
pub fn finish(result: Result<(), Interrupted>) -> Outcome {
    match result {
        Ok(()) | Err(Interrupted::Stopped) => Ok(()),
        Err(Interrupted::Refused(error)) => Err(Fail::new(
            acl::SYS_DMA_ERROR,
            format!("a copy on the stream touched memory that is not there: {error}"),
        )),
    }
}

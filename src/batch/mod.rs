//! Batches and tasks: who asked for what, what has become of it, and who waits.
//!
//! A [`BatchTable`] hands out [`BatchId`]s; a [`Batch`] has room for a fixed number of tasks; each call of
//! submit makes one [`Submission`], which reserves the next tasks and is what transports report to. A task is
//! one request of the caller, in order of submission over the whole batch.
//!
//! Invariants, model-checked in `models` where threads meet:
//!
//! - A task is *settled* in bytes: each extent settles its share, moved or failed. The task becomes terminal
//!   when its last byte is settled, so a failed task is terminal only when nothing of it is running any more.
//!   A terminal state never changes.
//! - Everything a poll can see was written before the state that it saw.
//! - When the last task of the last running submission becomes terminal there is one wake, and no waiter
//!   sleeps past it.
//! - A batch is freed only when every task of it was *observed* finished, by a poll or by a finished wait
//!   (upstream: `freeBatchID` answers busy until then), and nothing can be submitted to it afterwards.
//! - A submission that is dropped with unfinished tasks fails them: no task waits for somebody who is gone.
//! - Nothing is allocated per request after [`BatchTable::allocate`], except for errors.

mod id;
#[cfg(all(loom, test))]
mod models;
mod record;
mod submission;
mod table;
mod task;
#[cfg(test)]
mod tests;

pub use id::BatchId;
pub use record::{Batch, Help, MAX_TASKS_PER_BATCH, Outcome, Progress, Stop, Waited};
pub use submission::{Observer, Submission};
pub use table::{BatchTable, MAX_BATCHES};
pub use task::TaskStatus;

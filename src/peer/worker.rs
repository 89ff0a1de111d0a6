//! The thread of one peer: whatever may block on that peer (connecting, refreshing, sending notes) runs here,
//! in order, and so delays nobody else.
//!
//! The thread exists only while there is work: it is started by the first item and leaves after
//! [`IDLE_BEFORE_EXIT`]. Invariants: items of one worker never run at the same time; a panic in an item is
//! contained and logged; after [`Worker::close`] nothing is accepted.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// How long a thread without work stays, so that bursts do not start one thread each.
pub const IDLE_BEFORE_EXIT: Duration = Duration::from_secs(2);
/// Most items that wait for one peer.
pub const QUEUE_CAP: usize = 4096;

/// One piece of work.
pub type Item = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    running: bool,
    closed: bool,
}

/// A queue with a thread of its own while it is not empty.
pub struct Worker {
    name: String,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Worker {
    /// A worker whose thread will be called `name`.
    #[must_use]
    pub fn new(name: String) -> Arc<Self> {
        Arc::new(Self { name, queue: Mutex::new(Queue::default()), changed: Condvar::new() })
    }

    /// Queues one item.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] when [`QUEUE_CAP`] items wait; [`Code::StaleHandle`] after close;
    /// [`Code::Memory`] when no thread can be started.
    pub fn push(self: &Arc<Self>, item: Item) -> Result<()> {
        let mut queue = self.queue.lock();
        if queue.closed {
            let text = "the segment was removed, or the engine is being closed";
            return Err(Error::new(Code::StaleHandle, Stage::Submit, text));
        }
        if queue.items.len() >= QUEUE_CAP {
            return Err(Error::new(
                Code::TooManyRequests,
                Stage::Submit,
                format!("{QUEUE_CAP} submissions wait for this peer already"),
            )
            .advice("wait for submitted batches before submitting more"));
        }
        queue.items.push_back(item);
        if queue.running {
            self.changed.notify_one();
            return Ok(());
        }
        let worker = Arc::clone(self);
        match std::thread::Builder::new().name(self.name.clone()).spawn(move || worker.run()) {
            Ok(_) => {
                queue.running = true;
                Ok(())
            }
            Err(error) => {
                queue.items.pop_back();
                Err(Error::new(Code::Memory, Stage::Submit, format!("no thread for a peer: {error}")))
            }
        }
    }

    /// Refuses new items and waits for those queued, until `deadline`; true when none is left.
    pub fn close(&self, deadline: Deadline) -> bool {
        let mut queue = self.queue.lock();
        queue.closed = true;
        self.changed.notify_all();
        while queue.running {
            if self.changed.wait_until(&mut queue, deadline.at()).timed_out() {
                return !queue.running;
            }
        }
        true
    }

    fn run(self: Arc<Self>) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(item) = queue.items.pop_front() {
                drop(queue);
                if catch_unwind(AssertUnwindSafe(item)).is_err() {
                    log::error!("{}: a panic was contained; please report it", self.name);
                }
                queue = self.queue.lock();
                continue;
            }
            let idle = queue.closed || self.changed.wait_for(&mut queue, IDLE_BEFORE_EXIT).timed_out();
            if idle && queue.items.is_empty() {
                queue.running = false;
                self.changed.notify_all();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn items_run_in_order_and_one_at_a_time() {
        let worker = Worker::new("test".into());
        let seen = Arc::new(Mutex::new(Vec::new()));
        for number in 0..100 {
            let seen = Arc::clone(&seen);
            worker.push(Box::new(move || seen.lock().push(number))).unwrap();
        }
        assert!(worker.close(Deadline::after(Duration::from_secs(60))));
        assert_eq!(*seen.lock(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_does_not_end_the_worker() {
        let worker = Worker::new("test".into());
        let runs = Arc::new(AtomicU32::new(0));
        worker.push(Box::new(|| panic!("on purpose"))).unwrap();
        let counter = Arc::clone(&runs);
        worker
            .push(Box::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            }))
            .unwrap();
        assert!(worker.close(Deadline::after(Duration::from_secs(60))));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_queue_is_bounded_and_closed_for_good() {
        let worker = Worker::new("test".into());
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock();
        let inner = Arc::clone(&gate);
        worker.push(Box::new(move || drop(inner.lock()))).unwrap();
        let mut refused = None;
        for _ in 0..=QUEUE_CAP {
            if let Err(error) = worker.push(Box::new(|| ())) {
                refused = Some(error.code());
            }
        }
        assert_eq!(refused, Some(Code::TooManyRequests));
        drop(held);
        assert!(worker.close(Deadline::after(Duration::from_secs(60))));
        assert_eq!(worker.push(Box::new(|| ())).unwrap_err().code(), Code::StaleHandle);
    }
}

//! The threads that serve connections: each has its own event loop, and a connection stays with the thread it was
//! given to.
//!
//! A shared scheduler would wake another thread for every call that comes while one is being answered, which takes
//! longer than the answer. What a call may do for long is not done on these threads; see `dispatch::is_long`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Most calls at a time, for each thread, that are answered or wait for the disk beside it; the others wait their turn.
const LONG_CALLS: usize = 8;
/// How long a thread for them stays without work. Its end gives back the memory that its calls took meanwhile, which has
/// to come before `memory::Returner` has stopped looking.
const LONG_IDLE: Duration = Duration::from_secs(1);

/// All threads; they end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    list: Vec<Worker>,
    turn: AtomicUsize,
}

/// One thread.
#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// The thread ends when the other end of this hears of its being dropped.
    _running: oneshot::Sender<()>,
}

/// A connection's place at a thread, given back when it ends.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// The system has no thread or no file for one.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let list = (0..count.max(1)).map(Worker::start).collect::<std::io::Result<_>>()?;
        Ok(Self { list, turn: AtomicUsize::new(0) })
    }

    /// The thread with the fewest connections; among equals they take turns.
    pub(super) fn place(&self) -> Option<(&Handle, Place)> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.list.len();
        let (before, from) = self.list.split_at_checked(first)?;
        let load = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let worker = from.iter().chain(before).min_by_key(load)?;
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some((&worker.handle, Place(Arc::clone(&worker.connections))))
    }
}

impl Worker {
    fn start(number: usize) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LONG_CALLS)
            .thread_keep_alive(LONG_IDLE)
            .thread_name("mm-long")
            .build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        let body = move || {
            runtime.block_on(async { drop(ended.await) });
            // A call that runs beside it is not waited for: its answer would not be sent.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name(format!("mm-rpc-{number}")).spawn(body)?;
        Ok(Self { handle, connections: Arc::default(), _running: running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_and_places_given_back() {
        let workers = Workers::start(3).unwrap();
        let mut places: Vec<Place> = (0..9).map(|_| workers.place().unwrap().1).collect();
        let loads = || -> Vec<usize> {
            workers.list.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).collect()
        };
        assert_eq!(loads(), [3, 3, 3]);
        let freed = Arc::clone(&places[4].0);
        places.retain(|place| !Arc::ptr_eq(&place.0, &freed));
        assert_eq!(freed.load(Ordering::Relaxed), 0);
        let next = workers.place().unwrap().1;
        assert!(Arc::ptr_eq(&next.0, &freed), "the thread with the fewest gets the next one");
    }
}

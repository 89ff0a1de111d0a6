//! The threads that serve connections: each has its own event loop, and a connection stays with the thread it was
//! given to.
//!
//! A shared scheduler would wake another thread for every call that comes while one is being answered, which takes
//! longer than the answer. What a call may do for long is not done on these threads; see `dispatch::is_long`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Most calls at a time, for each thread, that are answered or wait for the disk beside it; the others wait their turn.
const LONG_CALLS: usize = 8;
/// How long a thread for them stays without work. Its end gives back the memory that its calls took meanwhile, which has
/// to come before `memory::Returner` has stopped looking.
const LONG_IDLE: Duration = Duration::from_secs(1);

/// How often it is looked at which connections are in use: when one comes, but not more often than this.
const LOOK: Duration = Duration::from_secs(1);
/// From so many turns a second on a connection is in use; one that only gives signs of life has one or two.
const TURNS_IN_USE: u64 = 16;

/// All threads; they end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    list: Vec<Worker>,
    turn: AtomicUsize,
    looked: Mutex<Instant>,
}

/// One thread.
#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: Connections,
    /// The thread ends when the other end of this hears of its being dropped.
    _running: oneshot::Sender<()>,
}

/// The connections of a thread.
type Connections = Arc<Mutex<Vec<Arc<Use>>>>;

/// How much a connection is used.
#[derive(Debug, Default)]
struct Use {
    /// Counted by the connection.
    turns: AtomicU64,
    /// Of these, those before the last look.
    seen: AtomicU64,
    /// What the last look said; one that is new counts as used.
    idle: AtomicBool,
}

impl Use {
    fn look(&self, elapsed: Duration) {
        let turns = self.turns.load(Ordering::Relaxed);
        let new = turns.saturating_sub(self.seen.swap(turns, Ordering::Relaxed));
        self.idle.store(new < TURNS_IN_USE.saturating_mul(elapsed.as_secs().max(1)), Ordering::Relaxed);
    }
}

/// A connection's place at a thread, given back when it ends.
#[derive(Debug)]
pub(super) struct Place {
    all: Connections,
    own: Arc<Use>,
}

impl Place {
    /// The connection has had another turn.
    pub(super) fn count_turn(&self) {
        // Nobody else counts here.
        self.own.turns.store(self.own.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(index) = all.iter().position(|other| Arc::ptr_eq(other, &self.own)) {
            all.swap_remove(index);
        }
    }
}

impl Workers {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// The system has no thread or no file for one.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let list = (0..count.max(1)).map(Worker::start).collect::<std::io::Result<_>>()?;
        Ok(Self { list, turn: AtomicUsize::new(0), looked: Mutex::new(Instant::now()) })
    }

    /// The thread with the fewest connections in use, of these one with the fewest connections; among equals they
    /// take turns. A client's connections that only give signs of life would else push the busy ones together.
    pub(super) fn place(&self) -> Option<(&Handle, Place)> {
        self.look();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.list.len();
        let (before, from) = self.list.split_at_checked(first)?;
        let worker = from.iter().chain(before).min_by_key(|worker| worker.load())?;
        let own = Arc::<Use>::default();
        worker.connections.lock().push(Arc::clone(&own));
        Some((&worker.handle, Place { all: Arc::clone(&worker.connections), own }))
    }

    fn look(&self) {
        let mut looked = self.looked.lock();
        let elapsed = looked.elapsed();
        if elapsed < LOOK {
            return;
        }
        *looked = Instant::now();
        for worker in &self.list {
            worker.connections.lock().iter().for_each(|connection| connection.look(elapsed));
        }
    }
}

impl Worker {
    /// Connections in use, and all.
    fn load(&self) -> (usize, usize) {
        let all = self.connections.lock();
        (all.iter().filter(|connection| !connection.idle.load(Ordering::Relaxed)).count(), all.len())
    }

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

    fn loads(workers: &Workers) -> Vec<usize> {
        workers.list.iter().map(|worker| worker.load().1).collect()
    }

    fn is_at(place: &Place, worker: &Worker) -> bool {
        Arc::ptr_eq(&place.all, &worker.connections)
    }

    #[test]
    fn connections_are_spread_and_places_given_back() {
        let workers = Workers::start(3).unwrap();
        let mut places: Vec<Place> = (0..9).map(|_| workers.place().unwrap().1).collect();
        assert_eq!(loads(&workers), [3, 3, 3]);
        let freed = Arc::clone(&places[4].all);
        places.retain(|place| !Arc::ptr_eq(&place.all, &freed));
        assert!(freed.lock().is_empty());
        let next = workers.place().unwrap().1;
        assert!(Arc::ptr_eq(&next.all, &freed), "the thread with the fewest gets the next one");
    }

    #[test]
    fn connections_that_are_hardly_used_do_not_push_the_others_together() {
        let workers = Workers::start(3).unwrap();
        let places: Vec<Place> = (0..4).map(|_| workers.place().unwrap().1).collect();
        let quiet = workers.list.iter().position(|worker| worker.load().1 == 2).unwrap();
        for place in &places {
            let turns = if is_at(place, &workers.list[quiet]) { 3 } else { 10_000 };
            (0..turns).for_each(|_| place.count_turn());
        }
        *workers.looked.lock() -= LOOK;
        let next = workers.place().unwrap().1;
        assert!(is_at(&next, &workers.list[quiet]), "{:?}", loads(&workers));
        assert_eq!(workers.list[quiet].load(), (1, 3));
    }
}

//! The sign of life: a thread and a connection of its own, so that no data, registration or caller delays it.
//!
//! It also mounts the segments again when the master asks for it, which is how a restarted master gets them back,
//! and looks after transfers that could not be made quiet in time.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use mooncake_wire::method::{Ping, ReMountSegment};
use mooncake_wire::model::{PingAnswer, Uuid};
use parking_lot::{Condvar, Mutex};

use super::failure::Failure;
use super::rpc::{Connection, Master};
use super::segments::Segments;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// Time between two signs of life; a master gives up on a client after ten of them.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for the answer to one; then a new connection is made.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Default)]
struct State {
    stop: bool,
    /// Why the last sign of life failed; `None` after one that was answered.
    failure: Option<Failure>,
    /// The socket in use, so that a stop ends a call that waits on it.
    stream: Weak<TcpStream>,
    beats: u64,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

/// What the thread works with.
pub(super) struct Work {
    pub(super) master: Arc<Master>,
    pub(super) client: Uuid,
    pub(super) segments: Arc<Segments>,
    /// Called at each turn.
    pub(super) upkeep: Box<dyn Fn() + Send>,
}

/// The running thread; stopped when dropped.
pub(super) struct Heartbeat {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that has the thread; a child after `fork` has it not.
    pid: u32,
}

impl Heartbeat {
    /// Starts the thread; its first sign of life goes out at once.
    pub(super) fn start(work: Work) -> Result<Self> {
        let signal = Arc::new(Signal::default());
        let shared = Arc::clone(&signal);
        let thread = std::thread::Builder::new()
            .name("mct-heartbeat".into())
            .spawn(move || run(&work, &shared))
            .map_err(|error| Error::new(Code::Internal, Stage::Configure, format!("no thread: {error}")))?;
        Ok(Self { signal, thread: Mutex::new(Some(thread)), pid: std::process::id() })
    }

    /// Waits until the master has answered once; the last failure when it does not by the deadline.
    pub(super) fn wait_for_answer(&self, deadline: Deadline) -> std::result::Result<(), Failure> {
        let mut state = self.signal.state.lock();
        while state.beats == 0 {
            if self.signal.changed.wait_until(&mut state, deadline.at()).timed_out() && state.beats == 0 {
                let late = Error::new(Code::Timeout, Stage::Connect, "the master did not answer in time");
                let late = Failure::new(mooncake_wire::ErrorCode::RPC_TIMEOUT, late);
                return Err(state.failure.clone().unwrap_or(late));
            }
        }
        Ok(())
    }

    /// Ends the thread, at once.
    pub(super) fn stop(&self) {
        // In a child after `fork` there is nobody to end, and a lock may be held for ever.
        if self.pid != std::process::id() {
            return;
        }
        {
            let mut state = self.signal.state.lock();
            state.stop = true;
            if let Some(stream) = state.stream.upgrade() {
                let _ended = stream.shutdown(Shutdown::Both);
            }
        }
        self.signal.changed.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            let _ended = thread.join();
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(work: &Work, signal: &Signal) {
    let mut connection = None;
    loop {
        (work.upkeep)();
        let outcome = beat(work, signal, &mut connection);
        let mut state = signal.state.lock();
        if state.stop {
            return;
        }
        let pause = match outcome {
            Ok(()) => {
                state.beats += 1;
                if state.failure.take().is_some() {
                    log::info!("the master answers again");
                }
                INTERVAL
            }
            Err(failure) => {
                connection = None;
                if state.failure.is_none() {
                    log::warn!("no sign of life could be given: {failure}");
                }
                state.failure = Some(failure);
                PAUSE
            }
        };
        signal.changed.notify_all();
        let end = Deadline::after(pause);
        while !state.stop && !end.expired() {
            let _timed_out = signal.changed.wait_until(&mut state, end.at());
        }
        if state.stop {
            return;
        }
    }
}

fn beat(
    work: &Work,
    signal: &Signal,
    connection: &mut Option<Connection>,
) -> std::result::Result<(), Failure> {
    let deadline = Deadline::after(ANSWER_LIMIT);
    if connection.as_ref().is_some_and(|connection| !work.master.serves(connection)) {
        *connection = None;
    }
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let made = work.master.connect(deadline)?;
            let mut state = signal.state.lock();
            state.stream = Arc::downgrade(made.stream());
            if state.stop {
                return Ok(());
            }
            drop(state);
            connection.insert(made)
        }
    };
    let explain = |error| work.master.explain(&error);
    let answer = connection.call(&Ping { client: work.client }, deadline).map_err(explain)??;
    if answer.client_status == PingAnswer::NEED_REMOUNT {
        let segments = work.segments.list();
        if !segments.is_empty() {
            let count = segments.len();
            let call = ReMountSegment { segments, client: work.client };
            // A master that counts the objects of a journal takes its time.
            connection.call(&call, work.master.deadline()).map_err(explain)??;
            log::info!("{count} segments are mounted at the master");
        }
    }
    Ok(())
}

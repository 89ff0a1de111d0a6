//! The threads that handle what peers ask, so that the loop never waits for the engine.
//!
//! Invariants: at most [`MAX_THREADS`] threads, started when there is work for them; the queue is bounded by what
//! each connection may have in it; a handler that panics costs its request only.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::Handler;
use super::answer::Answer;
use super::connection::Connection;
use super::message::Message;
use crate::error::{Code, Error, Result, Stage};

/// Threads that handle requests of all peers of an engine.
pub const MAX_THREADS: usize = 8;

/// Work of one connection.
pub(super) enum Job {
    /// Handle a request and answer it.
    Request { connection: Arc<Connection>, request_id: u32, body: Vec<u8> },
    /// Handle the one-way messages that wait.
    Inbox(Arc<Connection>),
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
}

/// The pool.
pub(super) struct Workers {
    handler: Arc<dyn Handler>,
    state: Mutex<State>,
    ready: Condvar,
}

impl Workers {
    pub(super) fn new(handler: Arc<dyn Handler>) -> Arc<Self> {
        Arc::new(Self { handler, state: Mutex::default(), ready: Condvar::new() })
    }

    /// Queues a job; false after the stop.
    pub(super) fn submit(self: &Arc<Self>, job: Job) -> bool {
        let mut state = self.state.lock();
        if state.stopped {
            return false;
        }
        state.queue.push_back(job);
        if state.queue.len() > state.idle && state.threads.len() < MAX_THREADS {
            let workers = Arc::clone(self);
            let name = format!("mct-control-{}", state.threads.len());
            match std::thread::Builder::new().name(name).spawn(move || workers.run()) {
                Ok(thread) => state.threads.push(thread),
                Err(error) => log::error!("no thread for control requests: {error}"),
            }
        }
        drop(state);
        self.ready.notify_one();
        true
    }

    /// Drops what is queued and waits for what runs, except on a thread of the pool itself.
    pub(super) fn stop(&self) {
        let threads = {
            let mut state = self.state.lock();
            state.stopped = true;
            state.queue.clear();
            std::mem::take(&mut state.threads)
        };
        self.ready.notify_all();
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                log::error!("a control thread ended by a defect");
            }
        }
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            match job {
                Job::Request { connection, request_id, body } => {
                    let answer = Answer::new(Arc::clone(&connection), request_id);
                    self.serve(&connection, answer, &body);
                }
                Job::Inbox(connection) => {
                    while let Some(message) = connection.next_message() {
                        if let Err(error) = self.handle(&connection, message) {
                            log::warn!("{error}");
                        }
                    }
                }
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            state.idle = state.idle.saturating_add(1);
            self.ready.wait(&mut state);
            state.idle = state.idle.saturating_sub(1);
        }
    }

    fn serve(&self, connection: &Arc<Connection>, answer: Answer, body: &[u8]) {
        let message: Message = match serde_json::from_slice(body) {
            Ok(message) => message,
            Err(error) => {
                let text = format!("a control request cannot be read: {error}");
                return answer.give(Err(Error::new(Code::MalformedJson, Stage::Connect, text)));
            }
        };
        let served = AssertUnwindSafe(|| self.handler.serve(connection, message, answer));
        if catch_unwind(served).is_err() {
            // The answer was dropped, which has told the peer.
            log::error!("a control request met a defect");
        }
    }

    fn handle(&self, connection: &Arc<Connection>, message: Message) -> Result<Message> {
        catch_unwind(AssertUnwindSafe(|| self.handler.request(connection, message))).unwrap_or_else(|_| {
            let error = Error::new(Code::Internal, Stage::Connect, "a control request met a defect");
            log::error!("{error}");
            Err(error)
        })
    }
}

//! One control connection as its users see it: requests with answers, messages without, and its end.
//!
//! Invariants: everything a user does here is queued for the loop and never touches the socket; queue, requests
//! in flight and the inbox are bounded; once the connection is over, each request that waits and each later call
//! gets the reason. No answer is lost while the connection lives: there is room for answers beside all else that
//! waits, and a peer that lets that fill up, too, loses the connection.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use mio::Waker;
use parking_lot::Mutex;

use super::frame::{HEADER_BYTES, Kind, MAX_BODY_BYTES, encode};
use super::message::{Hello, Message};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// Bytes that wait to be written to one peer.
pub const MAX_QUEUED_BYTES: usize = 32 << 20;

/// Bytes of answers that may wait beyond [`MAX_QUEUED_BYTES`]: whoever asked waits for them, however full it is. The
/// longest answer that there may be has room, so that no single one ends the connection of a peer that is slow.
pub const RESERVED_ANSWER_BYTES: usize = HEADER_BYTES + MAX_BODY_BYTES;

/// Requests of ours that wait for the answer of one peer.
pub const MAX_WAITING_REQUESTS: usize = 4096;

/// Requests of one peer that are queued or being handled.
pub const MAX_SERVED_REQUESTS: usize = 256;

/// One-way messages of one peer that wait to be handled.
pub const MAX_INBOX_MESSAGES: usize = 4096;

/// What connections and the loop share: who has something to write.
pub(super) struct Link {
    pub(super) waker: Waker,
    pub(super) dirty: Mutex<Vec<usize>>,
}

impl Link {
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("the control thread cannot be woken: {error}");
        }
    }
}

#[derive(Default)]
struct Output {
    frames: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    /// Why the connection has to end: an answer had no room.
    overflow: Option<Error>,
}

impl Output {
    fn push(&mut self, frame: Vec<u8>, limit_bytes: usize) -> Result<()> {
        let queued_bytes = self.queued_bytes.saturating_add(frame.len());
        if queued_bytes > limit_bytes {
            let text = format!("{} bytes wait to be sent to the peer", self.queued_bytes);
            return Err(Error::new(Code::TooManyRequests, Stage::Connect, text));
        }
        self.queued_bytes = queued_bytes;
        self.frames.push_back(frame);
        Ok(())
    }
}

#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message>,
    served: bool,
}

/// An answer, not yet taken apart.
type Answer = Result<Vec<u8>>;

/// A connection to one peer; see the module.
pub struct Connection {
    hello: Hello,
    token: usize,
    link: Arc<Link>,
    output: Mutex<Output>,
    /// Whether the loop knows already that there is something to do.
    announced: AtomicBool,
    closing: AtomicBool,
    /// The peer has said that it ends the connection.
    leaving: AtomicBool,
    over: OnceLock<Error>,
    waiting: Mutex<HashMap<u32, SyncSender<Answer>>>,
    last_request: AtomicU32,
    served_requests: AtomicUsize,
    inbox: Mutex<Inbox>,
}

impl Connection {
    pub(super) fn new(hello: Hello, token: usize, link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            hello,
            token,
            link,
            output: Mutex::default(),
            announced: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            over: OnceLock::new(),
            waiting: Mutex::default(),
            last_request: AtomicU32::new(0),
            served_requests: AtomicUsize::new(0),
            inbox: Mutex::default(),
        })
    }

    /// What the peer said about itself.
    #[must_use]
    pub fn peer(&self) -> &Hello {
        &self.hello
    }

    /// False from the moment the connection is known to be over.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.over.get().is_none() && !self.closing.load(Ordering::Acquire)
    }

    /// Why the connection is over, once it is.
    #[must_use]
    pub fn ended(&self) -> Option<&Error> {
        self.over.get()
    }

    /// Sends a request and waits for the answer. An answer that says the peer failed is an error here, with
    /// the peer's code and stage.
    ///
    /// # Errors
    /// [`Code::Timeout`] at the deadline (the peer may still act on the request), the reason when the
    /// connection ends meanwhile, [`Code::TooManyRequests`] when a bound is reached, the peer's own error.
    pub fn request(&self, message: Message, deadline: Deadline) -> Result<Message> {
        let (sender, receiver) = sync_channel(1);
        let id = self.enter(sender)?;
        let sent = encode(Kind::Request, id, &message).and_then(|frame| self.queue(frame));
        if let Err(error) = sent {
            self.waiting.lock().remove(&id);
            return Err(error);
        }
        let answer = match receiver.recv_timeout(deadline.remaining()) {
            Ok(answer) => answer?,
            Err(RecvTimeoutError::Timeout) => {
                self.waiting.lock().remove(&id);
                let text = "the peer did not answer a control request in time";
                return Err(self.named(Error::new(Code::Timeout, Stage::Connect, text)));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(self.why_over()),
        };
        self.read(&answer)
    }

    /// Sends a request whose answer is waited for piece by piece.
    ///
    /// # Errors
    /// As [`request`](Self::request), as far as sending goes.
    pub fn ask(self: &Arc<Self>, message: &Message) -> Result<Pending> {
        let (sender, receiver) = sync_channel(1);
        let id = self.enter(sender)?;
        let pending = Pending { connection: Arc::clone(self), id, receiver };
        encode(Kind::Request, id, message).and_then(|frame| self.queue(frame))?;
        Ok(pending)
    }

    fn read(&self, answer: &[u8]) -> Result<Message> {
        match serde_json::from_slice(answer) {
            Ok(Message::Failed(failure)) => Err(failure.to_error(&self.hello.segment)),
            Ok(message) => Ok(message),
            Err(error) => {
                let text = format!("the peer's answer cannot be read: {error}");
                Err(self.named(Error::new(Code::MalformedJson, Stage::Connect, text)))
            }
        }
    }

    /// Sends a message that wants no answer. Messages sent so are handled by the peer one after another, in
    /// this order; requests are not held up by them.
    ///
    /// # Errors
    /// The reason when the connection is over, [`Code::TooManyRequests`] when too much waits to be written.
    pub fn send(&self, message: Message) -> Result<()> {
        encode(Kind::OneWay, 0, &message).and_then(|frame| self.queue(frame))
    }

    /// Ends the connection once what is queued is written. The peer sees it as lost; here nothing is reported.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.announce();
    }

    pub(super) fn token(&self) -> usize {
        self.token
    }

    /// The peer ends the connection in good order; its end comes next.
    pub(super) fn said_goodbye(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Queues a whole frame.
    pub(super) fn queue(&self, frame: Vec<u8>) -> Result<()> {
        if !self.is_alive() {
            return Err(self.why_over());
        }
        self.output.lock().push(frame, MAX_QUEUED_BYTES).map_err(|error| self.named(error))?;
        self.announce();
        Ok(())
    }

    /// Queues an answer. Without room for it the connection ends: the peer would wait for nobody.
    pub(super) fn queue_answer(&self, frame: Vec<u8>) {
        // One that ended meanwhile has nobody who waits.
        if !self.is_alive() {
            return;
        }
        {
            let mut output = self.output.lock();
            if let Err(error) = output.push(frame, MAX_QUEUED_BYTES.saturating_add(RESERVED_ANSWER_BYTES)) {
                output.overflow.get_or_insert(error);
            }
        }
        self.announce();
    }

    /// Why the loop has to end the connection, if it has.
    pub(super) fn overflow(&self) -> Option<Error> {
        // Under the lock of the queue, as `next_frame`: what is set later is announced again.
        self.output.lock().overflow.clone()
    }

    /// The next frame to write, for the loop.
    pub(super) fn next_frame(&self) -> Option<Vec<u8>> {
        let mut output = self.output.lock();
        let frame = output.frames.pop_front()?;
        output.queued_bytes = output.queued_bytes.saturating_sub(frame.len());
        Some(frame)
    }

    /// The loop has seen the announcement; what comes later is announced again.
    pub(super) fn clear_announcement(&self) {
        self.announced.store(false, Ordering::Release);
    }

    fn announce(&self) {
        if !self.announced.swap(true, Ordering::AcqRel) {
            self.link.dirty.lock().push(self.token);
            self.link.wake();
        }
    }

    /// Hands an answer to the request that waits for it. Answers nobody waits for are late, and dropped.
    pub(super) fn answer(&self, request_id: u32, body: Vec<u8>) {
        let waiter = self.waiting.lock().remove(&request_id);
        if let Some(waiter) = waiter {
            // The waiter may have given up just now.
            let _ = waiter.try_send(Ok(body));
        }
    }

    /// Ends the connection for its users; the first reason stays.
    pub(super) fn end(&self, why: &Error) {
        let _ = self.over.set(self.named(why.clone()));
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for waiter in waiting.into_values() {
            let _ = waiter.try_send(Err(self.why_over()));
        }
        *self.output.lock() = Output::default();
    }

    /// Takes a place among the requests of the peer that are served; false when all are taken.
    pub(super) fn begin_request(&self) -> bool {
        self.served_requests
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < MAX_SERVED_REQUESTS).then(|| count.saturating_add(1))
            })
            .is_ok()
    }

    pub(super) fn end_request(&self) {
        self.served_requests.fetch_sub(1, Ordering::AcqRel);
    }

    /// Keeps a one-way message. True when nobody serves the inbox yet.
    pub(super) fn keep(&self, message: Message) -> Result<bool> {
        let mut inbox = self.inbox.lock();
        if inbox.messages.len() >= MAX_INBOX_MESSAGES {
            let text = format!("the peer sent {MAX_INBOX_MESSAGES} messages faster than they are handled");
            return Err(self.named(Error::new(Code::TooManyRequests, Stage::Connect, text)));
        }
        inbox.messages.push_back(message);
        Ok(!std::mem::replace(&mut inbox.served, true))
    }

    /// The next one-way message; `None` ends the serving of the inbox.
    pub(super) fn next_message(&self) -> Option<Message> {
        let mut inbox = self.inbox.lock();
        let message = inbox.messages.pop_front();
        inbox.served = message.is_some();
        message
    }

    fn enter(&self, sender: SyncSender<Answer>) -> Result<u32> {
        let mut waiting = self.waiting.lock();
        // Checked under the lock: `end` empties the map under it after the reason is set.
        if !self.is_alive() {
            return Err(self.why_over());
        }
        if waiting.len() >= MAX_WAITING_REQUESTS {
            let text = format!("{MAX_WAITING_REQUESTS} requests wait for this peer already");
            return Err(self.named(Error::new(Code::TooManyRequests, Stage::Connect, text)));
        }
        loop {
            let id = self.last_request.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            // Ends: fewer ids are taken than there are.
            if id != 0 && !waiting.contains_key(&id) {
                waiting.insert(id, sender);
                return Ok(id);
            }
        }
    }

    fn why_over(&self) -> Error {
        self.over.get().cloned().unwrap_or_else(|| {
            self.named(Error::new(Code::Socket, Stage::Connect, "the control connection was closed here"))
        })
    }

    fn named(&self, error: Error) -> Error {
        error.peer(self.hello.segment.clone())
    }
}

/// A request whose answer has not been read yet. Dropping it gives the answer up; the peer may still act on it.
pub struct Pending {
    connection: Arc<Connection>,
    id: u32,
    receiver: Receiver<Answer>,
}

impl Pending {
    /// The answer, if it comes before `deadline`.
    ///
    /// # Errors
    /// As [`Connection::request`], but for the deadline.
    pub fn wait(&self, deadline: Deadline) -> Result<Option<Message>> {
        match self.receiver.recv_timeout(deadline.remaining()) {
            Ok(answer) => self.connection.read(&answer?).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.connection.why_over()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.connection.waiting.lock().remove(&self.id);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.hello.segment)
            .field("alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}

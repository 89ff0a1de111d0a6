//! The handshake listener: one thread, many clients at once, none of which can hold up another.
//!
//! Invariants: the socket is bound before the name that holds its port is published, and kept until shutdown;
//! each client has a bounded time for each step; clients, their memory and the time of one turn are bounded.
//! When all places are taken the client that is due first gives way, so that silent ones cannot lock others out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;

use super::Responder;
use super::bind::listen_in_range;
use super::session::{Progress, Session};
use crate::config::Config;
use crate::error::{Code, Error, Result, Stage};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_SESSION: usize = 2;

/// Bytes kept for all clients together, beyond one message of the greatest length.
pub const MAX_HELD_BYTES: usize = 64 << 20;

/// Pause after the kernel refused to hand over a connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections taken before the clients that wait get their turn.
const MAX_ACCEPTS: usize = 64;

/// Bytes read by one call.
const SCRATCH_BYTES: usize = 64 << 10;

/// A bound socket that does not answer yet: its port can be published first.
#[derive(Debug)]
pub struct Binding {
    listener: std::net::TcpListener,
    port: u16,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    sessions: usize,
    message_bytes: usize,
    step: Duration,
}

/// The running listener. Dropping it ends it.
pub struct Listener {
    port: u16,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    /// The process that started the thread; a child after `fork` has none.
    pid: u32,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Binding {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts to answer.
    ///
    /// # Errors
    /// [`Code::Internal`] when the event loop or its thread cannot be made.
    pub fn serve(self, responder: Arc<dyn Responder>) -> Result<Listener> {
        let failed = |error: std::io::Error| {
            Error::new(Code::Internal, Stage::Configure, format!("no event loop for the handshake: {error}"))
        };
        let poll = Poll::new().map_err(failed)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(failed)?);
        let mut listener = TcpListener::from_std(self.listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut server = Server {
            poll,
            listener,
            responder,
            limits: self.limits,
            stop: Arc::clone(&stop),
            sessions: HashMap::new(),
            next: FIRST_SESSION,
            again: Vec::new(),
            accept_at: None,
            scratch: vec![0; SCRATCH_BYTES],
        };
        let thread = std::thread::Builder::new()
            .name("mct-handshake".into())
            .spawn(move || server.run())
            .map_err(failed)?;
        Ok(Listener {
            port: self.port,
            stop,
            waker,
            pid: std::process::id(),
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl Listener {
    /// Takes a port of the configured range.
    ///
    /// # Errors
    /// [`Code::Socket`] when none is free.
    pub fn bind(config: &Config) -> Result<Binding> {
        Self::bind_between(config, config.rpc_port_min, config.rpc_port_max)
    }

    /// Takes that port and no other.
    ///
    /// # Errors
    /// [`Code::Socket`] when it is not free.
    pub fn bind_to(config: &Config, port: u16) -> Result<Binding> {
        Self::bind_between(config, port, port)
    }

    fn bind_between(config: &Config, min: u16, max: u16) -> Result<Binding> {
        let listener = listen_in_range(min, max, config.listen_backlog)?;
        let port = listener
            .local_addr()
            .map_err(|error| {
                Error::new(Code::Socket, Stage::Configure, format!("no local address: {error}"))
            })?
            .port();
        let limits = Limits {
            sessions: config.handshake_max_sessions,
            message_bytes: config.handshake_max_length_bytes,
            step: config.handshake_session_timeout,
        };
        Ok(Binding { listener, port, limits })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops answering, closes the socket and ends the thread. A second call does nothing.
    pub fn shutdown(&self) {
        if self.pid != std::process::id() {
            return;
        }
        self.stop.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            log::error!("the handshake thread cannot be woken: {error}");
            return;
        }
        if let Some(thread) = self.thread.lock().take() {
            // A responder that drops the listener runs on that thread.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                log::error!("the handshake thread ended by a defect");
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shutdown();
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    responder: Arc<dyn Responder>,
    limits: Limits,
    stop: Arc<AtomicBool>,
    sessions: HashMap<Token, Session>,
    next: usize,
    /// Sessions with more to do that gave way to others.
    again: Vec<Token>,
    /// When connections are taken again, after the kernel had none to give or there were too many.
    accept_at: Option<Instant>,
    scratch: Vec<u8>,
}

impl Server {
    fn run(&mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stop.load(Ordering::Acquire) {
            if let Err(error) = self.poll.poll(&mut events, self.wait()) {
                if error.kind() != std::io::ErrorKind::Interrupted {
                    log::error!("the handshake loop cannot wait: {error}");
                    return;
                }
                continue;
            }
            let mut ready = std::mem::take(&mut self.again);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept_at = Some(Instant::now()),
                    WAKER => {}
                    token => ready.push(token),
                }
            }
            for token in ready {
                self.drive(token);
            }
            if self.accept_at.is_some_and(|at| at <= Instant::now()) {
                self.accept();
            }
            self.expire();
        }
    }

    /// How long the loop may sleep: to the first deadline.
    fn wait(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.sessions.values().map(|session| session.due).chain(self.accept_at).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn accept(&mut self) {
        self.accept_at = None;
        for _ in 0..MAX_ACCEPTS {
            let (mut stream, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock => return,
                    std::io::ErrorKind::Interrupted | std::io::ErrorKind::ConnectionAborted => continue,
                    _ => {
                        log::warn!("a handshake connection cannot be taken: {error}");
                        self.accept_at = Instant::now().checked_add(ACCEPT_PAUSE);
                        return;
                    }
                },
            };
            if self.sessions.len() >= self.limits.sessions {
                self.drop_first_due();
            }
            let token = Token(self.next);
            self.next = self.next.wrapping_add(1).max(FIRST_SESSION);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
                log::warn!("a handshake connection cannot be watched: {error}");
                continue;
            }
            let _ = stream.set_nodelay(true);
            let session = Session::new(stream, peer, self.limits.message_bytes, self.limits.step);
            self.sessions.insert(token, session);
        }
        // More may wait; those that are here come first.
        self.accept_at = Some(Instant::now());
    }

    fn drive(&mut self, token: Token) {
        let Some(session) = self.sessions.get_mut(&token) else { return };
        match session.drive(&*self.responder, &mut self.scratch) {
            Progress::Waiting => {}
            Progress::Again => self.again.push(token),
            Progress::Over => self.close(token),
        }
        self.bound_memory();
    }

    fn close(&mut self, token: Token) {
        if let Some(mut session) = self.sessions.remove(&token) {
            // Closing takes the socket out of the kernel's set as well; a failure here changes nothing.
            let _ = self.poll.registry().deregister(&mut session.stream);
        }
    }

    fn drop_first_due(&mut self) {
        let first = self.sessions.iter().min_by_key(|(_, session)| session.due).map(|(token, _)| *token);
        if let Some(token) = first {
            log::warn!("{} handshake clients at once: the oldest gives way", self.sessions.len());
            self.close(token);
        }
    }

    /// Drops the client that holds most while all together hold too much.
    fn bound_memory(&mut self) {
        let limit = MAX_HELD_BYTES.saturating_add(self.limits.message_bytes);
        // The sum is only taken when it can matter: no client holds more than twice one message.
        let most = self.sessions.len().saturating_mul(self.limits.message_bytes.saturating_mul(2));
        if most <= limit {
            return;
        }
        let held: usize = self.sessions.values().map(Session::held_bytes).sum();
        if held > limit {
            let largest = self.sessions.iter().max_by_key(|(_, session)| session.held_bytes());
            if let Some(token) = largest.map(|(token, _)| *token) {
                log::warn!("handshake clients hold {held} bytes: the largest gives way");
                self.close(token);
            }
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let past: Vec<Token> =
            self.sessions.iter().filter(|(_, session)| session.due <= now).map(|(token, _)| *token).collect();
        for token in past {
            self.close(token);
        }
    }
}

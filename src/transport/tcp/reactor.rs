//! The event loops: a few threads that drive every connection, those we serve and those we opened.
//!
//! Each connection belongs to one loop. What a loop does for one connection in one turn is bounded, so that a
//! large transfer does not starve small ones, and no call of it waits. Loops start when they get their first
//! connection, the first one with the listener.
//!
//! Invariants: a loop sleeps without end only when none of its connections has work, so deadlines are seen
//! within [`TICK`]; the session a loop serves is touched by its thread alone; a lane by who holds its lock.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use parking_lot::Mutex;

use super::Served;
use super::lane::Lane;
use super::session::Session;
use crate::error::{Code, Error, Result, Stage};

/// Most loops of one engine.
const MAX_LOOPS: usize = 4;
/// How often deadlines are looked at while anything is under way.
const TICK: Duration = Duration::from_millis(20);
/// How long a loop without work keeps looking at that pace before it sleeps for good.
const LINGER: Duration = Duration::from_secs(1);
/// Pause after the kernel refused to hand over a connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections taken in one turn.
const MAX_ACCEPTS: usize = 64;

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST: usize = 2;

/// How a turn of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing can be done until the socket says so.
    Waiting,
    /// There is more to do; others come first.
    More,
    /// It is over.
    Closed,
}

enum Command {
    Listen(TcpListener),
    Serve(TcpStream),
    Attach(Token, Arc<Lane>),
    Drive(Token),
    Detach(Token),
}

/// What of a lane's socket wakes its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// That bytes have come, and that there is room for more.
    Everything,
    /// That bytes have come. Changing to this raises no event by itself, as an idle socket always has room.
    Arrivals,
    /// Nothing: somebody else looks after the socket.
    Nothing,
}

/// What other threads see of a loop.
pub(super) struct Handle {
    waker: Waker,
    registry: Registry,
    inbox: Mutex<Vec<Command>>,
    /// The loop sleeps until something happens, and would see no deadline.
    asleep: AtomicBool,
    stop: AtomicBool,
    next_token: AtomicUsize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    fn command(&self, command: Command) {
        self.inbox.lock().push(command);
        self.wake();
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("the event loop of the data lanes cannot be woken: {error}");
        }
    }

    /// Registers the socket of a lane. The loop knows the lane already.
    pub(super) fn watch(&self, token: Token, stream: &TcpStream) -> std::io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut SourceFd(&stream.as_raw_fd()), token, interest)
    }

    /// Changes what of a lane's socket wakes the loop.
    pub(super) fn watch_for(
        &self,
        token: Token,
        stream: &TcpStream,
        watched: Watched,
    ) -> std::io::Result<()> {
        let interest = match watched {
            Watched::Everything => Interest::READABLE | Interest::WRITABLE,
            Watched::Arrivals => Interest::READABLE,
            // Urgent data, which the protocol does not have: there is no interest in nothing.
            Watched::Nothing => Interest::PRIORITY,
        };
        self.registry.reregister(&mut SourceFd(&stream.as_raw_fd()), token, interest)
    }

    /// Takes a socket out again.
    pub(super) fn forget(&self, stream: &TcpStream) {
        // A socket that cannot be taken out is closed soon, which takes it out.
        let _ = self.registry.deregister(&mut SourceFd(&stream.as_raw_fd()));
    }

    /// Gives a lane a turn on the loop's thread.
    pub(super) fn drive(&self, token: Token) {
        self.command(Command::Drive(token));
    }

    /// The loop lets go of a lane.
    pub(super) fn detach(&self, token: Token) {
        self.command(Command::Detach(token));
    }

    /// Makes sure that deadlines are seen from now on. Called after work was given to a lane.
    pub(super) fn stay_awake(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
    }
}

/// All loops of one engine.
pub(super) struct Reactor {
    loops: Vec<Mutex<Option<Arc<Handle>>>>,
    next: AtomicUsize,
    shared: Arc<Common>,
}

/// What all loops use.
struct Common {
    served: Arc<dyn Served>,
    progress_timeout: Duration,
    max_sessions: usize,
    sessions: AtomicUsize,
    stop: AtomicBool,
}

impl Reactor {
    /// Loops that serve the memory of `served`; none runs yet.
    pub(super) fn new(served: Arc<dyn Served>, progress_timeout: Duration, max_sessions: usize) -> Arc<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_LOOPS);
        Arc::new(Self {
            loops: (0..count).map(|_| Mutex::default()).collect(),
            next: AtomicUsize::new(0),
            shared: Arc::new(Common {
                served,
                progress_timeout,
                max_sessions,
                sessions: AtomicUsize::new(0),
                stop: AtomicBool::new(false),
            }),
        })
    }

    /// Serves whoever connects to the listener.
    pub(super) fn listen(self: &Arc<Self>, listener: std::net::TcpListener) -> Result<()> {
        self.handle(0)?.command(Command::Listen(TcpListener::from_std(listener)));
        Ok(())
    }

    /// Gives a lane to a loop, and says which and under which token.
    pub(super) fn attach(
        self: &Arc<Self>,
        make: impl FnOnce(Arc<Handle>, Token) -> Arc<Lane>,
    ) -> Result<Arc<Lane>> {
        let handle = self.pick()?;
        let token = Token(handle.next_token.fetch_add(1, Ordering::Relaxed));
        let lane = make(Arc::clone(&handle), token);
        handle.command(Command::Attach(token, Arc::clone(&lane)));
        Ok(lane)
    }

    /// Stops every loop and waits for its thread; connections are closed.
    pub(super) fn shutdown(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for slot in &self.loops {
            let handle = slot.lock().take();
            let Some(handle) = handle else { continue };
            handle.stop.store(true, Ordering::Release);
            handle.wake();
            let thread = handle.thread.lock().take();
            // A loop may be the one that drops the engine; it cannot wait for itself.
            if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id())
                && thread.join().is_err()
            {
                log::error!("an event loop of the data lanes panicked; please report it");
            }
        }
    }

    /// Whether it was shut down. What was given to a lane before this answers "no" is ended by the shutdown.
    pub(super) fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn pick(self: &Arc<Self>) -> Result<Arc<Handle>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.handle(turn.checked_rem(self.loops.len()).unwrap_or_default())
    }

    /// The loop at `index`, started when it does not run.
    fn handle(self: &Arc<Self>, index: usize) -> Result<Arc<Handle>> {
        let failed = |error: std::io::Error| {
            Error::new(Code::Socket, Stage::Configure, format!("no event loop for the data lanes: {error}"))
        };
        let Some(slot) = self.loops.get(index) else {
            return Err(Error::new(Code::Internal, Stage::Configure, "no such event loop"));
        };
        let mut slot = slot.lock();
        if self.shared.stop.load(Ordering::Acquire) {
            return Err(Error::new(Code::StaleHandle, Stage::Submit, "the engine is being closed"));
        }
        if let Some(handle) = slot.as_ref() {
            return Ok(Arc::clone(handle));
        }
        let poll = Poll::new().map_err(failed)?;
        let handle = Arc::new(Handle {
            waker: Waker::new(poll.registry(), WAKER).map_err(failed)?,
            registry: poll.registry().try_clone().map_err(failed)?,
            inbox: Mutex::default(),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            next_token: AtomicUsize::new(FIRST),
            thread: Mutex::default(),
        });
        let event_loop = Loop {
            poll,
            handle: Arc::clone(&handle),
            common: Arc::clone(&self.shared),
            reactor: Arc::downgrade(self),
            listener: None,
            accept_at: None,
            sessions: HashMap::new(),
            lanes: HashMap::new(),
            again: Vec::new(),
            ended: HashSet::new(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("mct-data-{index}"))
            .spawn(move || event_loop.run())
            .map_err(failed)?;
        *handle.thread.lock() = Some(thread);
        *slot = Some(Arc::clone(&handle));
        Ok(handle)
    }
}

struct Loop {
    poll: Poll,
    handle: Arc<Handle>,
    common: Arc<Common>,
    reactor: std::sync::Weak<Reactor>,
    listener: Option<TcpListener>,
    accept_at: Option<Instant>,
    sessions: HashMap<Token, Session>,
    lanes: HashMap<Token, Arc<Lane>>,
    /// Connections that have more to do.
    again: Vec<Token>,
    /// Connections whose far side has ended its sending, as far as the kernel has said so.
    ended: HashSet<Token>,
}

impl Loop {
    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut turns = Vec::new();
        let mut ticked = Instant::now();
        let mut busy_at = ticked;
        while !self.handle.stop.load(Ordering::Acquire) {
            let timeout = self.timeout(busy_at);
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                log::error!("the event loop of the data lanes ends: {error}");
                break;
            }
            self.handle.asleep.store(false, Ordering::SeqCst);
            turns.append(&mut self.again);
            self.commands(&mut turns);
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.accept(),
                    token => {
                        if event.is_read_closed() {
                            self.ended.insert(token);
                        }
                        if !turns.contains(&token) {
                            turns.push(token);
                        }
                    }
                }
            }
            let now = Instant::now();
            if !turns.is_empty() {
                busy_at = now;
            }
            for token in turns.drain(..) {
                self.turn(token);
            }
            if now.duration_since(ticked) >= TICK {
                ticked = now;
                if self.tick(now) {
                    busy_at = now;
                }
            }
        }
        self.end();
    }

    fn timeout(&mut self, busy_at: Instant) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        if busy_at.elapsed() < LINGER || self.accept_at.is_some() {
            return Some(TICK);
        }
        // Who gives work to a lane now either sees the flag and wakes us, or did so before this last look.
        self.handle.asleep.store(true, Ordering::SeqCst);
        let busy = self.lanes.values().any(|lane| lane.is_busy())
            || self.sessions.values().any(Session::is_busy)
            || !self.handle.inbox.lock().is_empty();
        busy.then_some(TICK)
    }

    fn commands(&mut self, turns: &mut Vec<Token>) {
        let commands = std::mem::take(&mut *self.handle.inbox.lock());
        for command in commands {
            match command {
                Command::Listen(mut listener) => {
                    match self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE) {
                        Ok(()) => self.listener = Some(listener),
                        Err(error) => log::error!("the data listener cannot be watched: {error}"),
                    }
                    self.accept();
                }
                Command::Serve(stream) => {
                    if let Some(token) = self.serve(stream) {
                        turns.push(token);
                    }
                }
                Command::Attach(token, lane) => {
                    self.lanes.insert(token, lane);
                    turns.push(token);
                }
                Command::Drive(token) => turns.push(token),
                Command::Detach(token) => drop(self.lanes.remove(&token)),
            }
        }
    }

    fn serve(&mut self, mut stream: TcpStream) -> Option<Token> {
        let token = Token(self.handle.next_token.fetch_add(1, Ordering::Relaxed));
        if let Err(error) =
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
        {
            log::warn!("a data connection cannot be watched: {error}");
            self.common.sessions.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        // Small answers must not wait for more; without the option they would, and still arrive.
        let _ = stream.set_nodelay(true);
        self.sessions.insert(token, Session::new(stream));
        Some(token)
    }

    fn accept(&mut self) {
        self.accept_at = None;
        let Some(listener) = &self.listener else { return };
        for _ in 0..MAX_ACCEPTS {
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::warn!("no more data connections for now: {error}");
                    self.accept_at = Instant::now().checked_add(ACCEPT_PAUSE);
                    return;
                }
            }
        }
        // The rest of the queue raises no new event.
        self.accept_at = Some(Instant::now());
    }

    fn admit(&self, stream: TcpStream) {
        if self.common.sessions.fetch_add(1, Ordering::Relaxed) >= self.common.max_sessions {
            self.common.sessions.fetch_sub(1, Ordering::Relaxed);
            log::warn!("a data connection is turned away: {} are served", self.common.max_sessions);
            return;
        }
        let taken = self.reactor.upgrade().map(|reactor| reactor.pick());
        match taken {
            Some(Ok(handle)) => handle.command(Command::Serve(stream)),
            _ => drop(self.common.sessions.fetch_sub(1, Ordering::Relaxed)),
        }
    }

    fn turn(&mut self, token: Token) {
        let turn = if let Some(session) = self.sessions.get_mut(&token) {
            session.drive(&*self.common.served, self.ended.contains(&token))
        } else if let Some(lane) = self.lanes.get(&token) {
            let turn = lane.drive(self.ended.contains(&token));
            if turn == Turn::Waiting {
                // It has seen the end, and may have another connection by now.
                self.ended.remove(&token);
            }
            turn
        } else {
            self.ended.remove(&token);
            return;
        };
        match turn {
            Turn::Waiting => {}
            Turn::More => self.again.push(token),
            Turn::Closed => self.close(token),
        }
    }

    fn close(&mut self, token: Token) {
        self.ended.remove(&token);
        if self.sessions.remove(&token).is_some() {
            self.common.sessions.fetch_sub(1, Ordering::Relaxed);
        }
        // A lane's socket may be gone; the lane stays for the next connection.
    }

    /// Looks at deadlines; true while anything is under way.
    fn tick(&mut self, now: Instant) -> bool {
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept();
        }
        let mut busy = false;
        for lane in self.lanes.values() {
            busy |= lane.tick(now);
        }
        let limit = self.common.progress_timeout;
        let stalled: Vec<Token> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.is_busy() && session.stalled(now, limit))
            .map(|(token, _)| *token)
            .collect();
        for token in stalled {
            log::warn!("a data connection made no progress for {} ms and is closed", limit.as_millis());
            self.close(token);
        }
        busy || self.sessions.values().any(Session::is_busy)
    }

    fn end(&mut self) {
        self.common.sessions.fetch_sub(self.sessions.len(), Ordering::Relaxed);
        self.sessions.clear();
        let error = Error::new(Code::StaleHandle, Stage::Execute, "the engine is being closed");
        for command in std::mem::take(&mut *self.handle.inbox.lock()) {
            match command {
                Command::Attach(token, lane) => drop(self.lanes.insert(token, lane)),
                Command::Serve(_) => drop(self.common.sessions.fetch_sub(1, Ordering::Relaxed)),
                Command::Listen(_) | Command::Drive(_) | Command::Detach(_) => {}
            }
        }
        for lane in std::mem::take(&mut self.lanes).into_values() {
            lane.give_up(&error);
        }
    }
}

//! The persistent control connection of a peer pair, spoken between engines of this library only.
//!
//! Each engine has a listener of its own, whose port stands in its descriptor. Whoever needs the peer opens the
//! connection; it then serves both directions. The first frame each way is a [`Hello`]: a caller that wants
//! another process than this one is told so, and so is one that speaks another version.
//!
//! Threads: `mct-control` moves bytes, up to [`workers::MAX_THREADS`] `mct-control-N` handle requests,
//! `mct-control-lost` tells of losses. Locks: the peer table, each connection's queues; none is held across I/O
//! or a call of the handler.
//!
//! Invariants: a peer has one connection at most, and when two openings cross, both sides end with that of the
//! lower incarnation; a loss is told once, and before the next connection with the same peer comes up; a silent
//! peer counts as lost after a bounded time; every queue is bounded.

mod answer;
pub mod connection;
mod delay;
mod dial;
pub mod frame;
pub mod message;
mod peers;
mod pump;
pub mod workers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Interest, Poll, Waker};
use parking_lot::Mutex;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::{Incarnation, random_bytes};
use crate::error::{Code, Error, Result, Stage};
use crate::handshake::bind::{listen_in_range, listen_on};

pub use answer::Answer;
use connection::Link;
pub use connection::{Connection, Pending};
use dial::{Refused, dial};
pub use message::{
    ChannelAnswer, ChannelKey, ChannelOffer, DirectMove, Failure, Hello, Message, PROTOCOL_VERSION,
    RankDevice, Region, RegionKind, STAGED_PROTOCOL, SlotGrant, SlotMove, SlotUse,
};
use peers::{Claim, Peers};
use pump::{FIRST_CONNECTION, LISTENER, Opened, Pump, WAKER};
use workers::Workers;

/// First pause after an opening that crossed with the peer's; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What the control connections need from the engine.
pub trait Handler: Send + Sync {
    /// A message of a peer. For a request the result is the answer; for a message without answer it is
    /// dropped, and an error logged. Runs on one of a few threads: waits must be bounded.
    ///
    /// # Errors
    /// Whatever the peer should be told.
    fn request(&self, from: &Arc<Connection>, message: Message) -> Result<Message>;

    /// A peer has opened a connection to this engine: it lives. Runs on the loop's thread and must not block.
    fn connected(&self, peer: &Hello) {
        let _ = peer;
    }

    /// A request of a peer, as [`request`](Self::request), with the place for its answer: what takes longer is
    /// answered later, by another thread.
    fn serve(&self, from: &Arc<Connection>, message: Message, answer: Answer) {
        answer.give(self.request(from, message));
    }

    /// The connection to a peer is lost, or was ended by it. Must not wait for a new connection to the same peer: that one comes up
    /// only after this call has returned.
    fn lost(&self, peer: &Incarnation, why: &Error);
}

/// Who this engine is to its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which engine.
    pub incarnation: Incarnation,
    /// Name of its segment.
    pub segment: String,
}

/// A loss to tell of.
struct Lost {
    peer: Incarnation,
    why: Error,
}

struct Inner {
    config: Config,
    identity: Identity,
    peers: Peers,
    workers: Arc<Workers>,
    link: Arc<Link>,
    handler: Arc<dyn Handler>,
    opened: Mutex<Vec<Opened>>,
    last_token: AtomicUsize,
    /// Losses to tell of; `None` ends the telling.
    lost: Sender<Option<Lost>>,
    stop: AtomicBool,
}

impl Inner {
    fn next_token(&self) -> usize {
        self.last_token.fetch_add(1, Ordering::Relaxed)
    }
}

/// All control connections of one engine. Dropping it ends them.
pub struct Control {
    inner: Arc<Inner>,
    port: u16,
    /// The process that started the threads; a child after `fork` has none of them.
    pid: u32,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Control {
    /// Binds the listener and starts the threads.
    ///
    /// # Errors
    /// [`Code::Socket`] when no port is free, [`Code::Internal`] when the loop or a thread cannot be made.
    pub fn start(
        config: &Config,
        incarnation: Incarnation,
        segment_name: &str,
        handler: Arc<dyn Handler>,
    ) -> Result<Self> {
        let identity = Identity { incarnation, segment: segment_name.to_owned() };
        Self::start_as(config, identity, handler)
    }

    /// As [`Control::start`], with all that peers are told.
    ///
    /// # Errors
    /// As [`Control::start`].
    pub fn start_as(config: &Config, identity: Identity, handler: Arc<dyn Handler>) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(Code::Internal, Stage::Configure, format!("no control loop: {error}"))
        };
        let listener = bind(config)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let poll = Poll::new().map_err(failed)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failed)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(failed)?;
        let (lost, losses) = channel();
        let inner = Arc::new(Inner {
            config: config.clone(),
            identity,
            peers: Peers::default(),
            workers: Workers::new(Arc::clone(&handler)),
            link: Arc::new(Link { waker, dirty: Mutex::default() }),
            handler: Arc::clone(&handler),
            opened: Mutex::default(),
            last_token: AtomicUsize::new(FIRST_CONNECTION),
            lost,
            stop: AtomicBool::new(false),
        });
        let control = Self { inner, port, pid: std::process::id(), threads: Mutex::default() };
        let pump = Pump::new(Arc::clone(&control.inner), poll, listener);
        control.spawn("mct-control", move || pump.run()).map_err(failed)?;
        let teller = Arc::clone(&control.inner);
        control
            .spawn("mct-control-lost", move || tell_losses(&teller, &losses, &*handler))
            .map_err(failed)?;
        Ok(control)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// The port of the listener.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The live connection to a peer, if there is one.
    #[must_use]
    pub fn connection(&self, peer: &Incarnation) -> Option<Arc<Connection>> {
        self.inner.peers.live(peer)
    }

    /// All live connections.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.inner.peers.all_live()
    }

    /// The connection to the engine `expected`, whose control listener is at `host` and `port`; opened when
    /// there is none.
    ///
    /// # Errors
    /// [`Code::StaleIncarnation`] when another process answers there, [`Code::Unsupported`] for another version
    /// of the protocol, [`Code::Timeout`] at the deadline, [`Code::Socket`] or [`Code::Dns`] when the peer
    /// cannot be reached, [`Code::StaleHandle`] after the shutdown.
    pub fn connect(
        &self,
        host: &str,
        port: u16,
        expected: &Incarnation,
        deadline: Deadline,
    ) -> Result<Arc<Connection>> {
        let own = &self.inner.identity;
        if *expected == own.incarnation {
            return Err(Error::new(
                Code::InvalidArgument,
                Stage::Connect,
                "an engine does not connect to itself",
            ));
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let previous = match self.inner.peers.claim(expected, deadline)? {
                Claim::Live(connection) => return Ok(connection),
                Claim::Open { previous } => previous,
            };
            let mut opening =
                Opening { inner: &self.inner, peer: expected, attempt: String::new(), done: false };
            opening.attempt = format!("{:032x}", u128::from_le_bytes(random_bytes()?));
            let hello = Hello {
                protocol: PROTOCOL_VERSION,
                incarnation: own.incarnation.clone(),
                segment: own.segment.clone(),
                connection: opening.attempt.clone(),
                expected: Some(expected.hex()),
                previous,
            };
            match dial(host, port, &hello, expected, &self.inner.config, deadline) {
                Ok((stream, answer)) => return opening.finish(stream, answer),
                Err(Refused::Final(error)) => return Err(error),
                Err(Refused::Retry) => drop(opening),
            }
            self.inner.peers.wait(expected, deadline.sooner(Deadline::after(pause)));
            if deadline.expired() {
                let text = format!("{host}:{port} did not take the control connection in time");
                return Err(Error::new(Code::Timeout, Stage::Connect, text));
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    /// Ends all connections and threads; what is queued is written as far as it goes at once. A second call
    /// does nothing. The handler is not told of the ends.
    pub fn shutdown(&self) {
        if self.pid != std::process::id() {
            return;
        }
        self.inner.stop.store(true, Ordering::Release);
        self.inner.peers.stop();
        self.inner.link.wake();
        // Only fails when the thread that tells has ended already.
        let _ = self.inner.lost.send(None);
        self.inner.workers.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The handler may be the one that ends the engine.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                log::error!("a control thread ended by a defect");
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// An opening under way; gives its claim back however it ends.
struct Opening<'a> {
    inner: &'a Arc<Inner>,
    peer: &'a Incarnation,
    attempt: String,
    done: bool,
}

impl Opening<'_> {
    /// Hands the socket to the loop, unless a connection that crossed with it stays.
    fn finish(mut self, stream: std::net::TcpStream, answer: Hello) -> Result<Arc<Connection>> {
        let connection = Connection::new(answer, self.inner.next_token(), Arc::clone(&self.inner.link));
        self.done = true;
        let stays = self.inner.peers.finish(self.peer, &connection)?;
        if Arc::ptr_eq(&stays, &connection) {
            let peer = connection.peer();
            log::info!("control connection to {} ({})", peer.segment, peer.incarnation);
            self.inner.opened.lock().push(Opened { stream, connection });
            self.inner.link.wake();
        }
        Ok(stays)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.inner.peers.give_up(self.peer, &self.attempt);
        }
    }
}

fn bind(config: &Config) -> Result<std::net::TcpListener> {
    let backlog = config.listen_backlog;
    let socket = |port: u16, error: std::io::Error| {
        let what = if port == 0 { "any port".to_owned() } else { format!("port {port}") };
        Error::new(Code::Socket, Stage::Configure, format!("no control listener on {what}: {error}"))
    };
    if let Some(port) = config.control_port {
        return listen_on(port, backlog).map_err(|error| {
            socket(port, error).advice("MOONCAKE_TRANSFER_CONTROL_PORT names it; 0 takes one that is free")
        });
    }
    listen_in_range(config.rpc_port_min, config.rpc_port_max, backlog).or_else(|error| {
        log::warn!("{error}; the control listener takes a port of the kernel's choice");
        listen_on(0, backlog).map_err(|error| socket(0, error))
    })
}

/// Tells the handler of losses, one after another, until the engine ends.
fn tell_losses(inner: &Inner, losses: &Receiver<Option<Lost>>, handler: &dyn Handler) {
    while let Ok(Some(Lost { peer, why })) = losses.recv() {
        if inner.stop.load(Ordering::Acquire) {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| handler.lost(&peer, &why))).is_err() {
            log::error!("telling of the loss of {peer} met a defect");
        }
        inner.peers.lost_told(&peer);
    }
}

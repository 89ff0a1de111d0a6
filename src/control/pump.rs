//! The loop that moves the bytes of all control connections of an engine.
//!
//! It reads and writes without blocking, answers pings, watches for silence, and hands everything else to the
//! workers. No lock is held while it touches a socket, and no peer gets more than a bounded turn.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::connection::Connection;
use super::delay::{Delay, Held};
use super::dial::{Refusal, other_protocol, stale};
use super::frame::{Assembler, Header, Kind, MAX_BODY_BYTES, MAX_HELLO_BYTES, encode};
use super::message::{Hello, Message, PROTOCOL_VERSION};
use super::peers::Verdict;
use super::workers::Job;
use super::{Inner, Lost};
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};
use crate::segment::codec::MAX_NAME_BYTES;

pub(super) const LISTENER: Token = Token(0);
pub(super) const WAKER: Token = Token(1);
/// First token of a connection.
pub(super) const FIRST_CONNECTION: usize = 2;

/// Callers that have connected and not yet said who they are; one more displaces the one that is due first.
pub const MAX_GREETINGS: usize = 256;

/// Bytes of half-received frames of all peers together.
pub const MAX_HELD_BYTES: usize = 256 << 20;

/// Bytes read before other connections get their turn.
const TURN_BYTES: usize = 256 << 10;
const SCRATCH_BYTES: usize = 64 << 10;
const MAX_ACCEPTS: usize = 64;
/// Pause after the kernel refused to hand over a connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How exact times are kept, as a part of the shortest one.
const TICKS_PER_TIME: u32 = 4;
const LONGEST_TICK: Duration = Duration::from_millis(500);
const SHORTEST_TICK: Duration = Duration::from_millis(5);

/// A connection that a caller's thread has opened.
pub(super) struct Opened {
    pub(super) stream: std::net::TcpStream,
    pub(super) connection: Arc<Connection>,
}

enum Role {
    /// Has not said who it is.
    Greeting { due: Instant },
    /// Was told no, and is closed when it has read so.
    Refused { due: Instant, unsent: Vec<u8> },
    /// A peer.
    Open(Arc<Connection>),
}

struct Socket {
    stream: TcpStream,
    address: SocketAddr,
    role: Role,
    assembler: Assembler,
    /// The frame being written, and how much of it is.
    frame: Vec<u8>,
    written: usize,
    heard: Instant,
    pinged: Instant,
}

pub(super) struct Pump {
    pub(super) inner: Arc<Inner>,
    pub(super) poll: Poll,
    pub(super) listener: TcpListener,
    sockets: HashMap<usize, Socket>,
    again: Vec<usize>,
    accept_at: Option<Instant>,
    scratch: Vec<u8>,
    tick: Duration,
    next_tick: Instant,
    delay: Delay,
}

/// Why a socket is given up.
enum End {
    /// The peer went away or broke the rules.
    Lost(Error),
    /// We are done with it.
    Done,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

impl Pump {
    pub(super) fn new(inner: Arc<Inner>, poll: Poll, listener: TcpListener) -> Self {
        let config = &inner.config;
        let shortest = config
            .control_ping_interval
            .min(config.control_silence_limit)
            .min(config.handshake_connect_timeout);
        let tick = (shortest / TICKS_PER_TIME).clamp(SHORTEST_TICK, LONGEST_TICK);
        let delay = Delay::new(config.control_latency);
        Self {
            delay,
            inner,
            poll,
            listener,
            sockets: HashMap::new(),
            again: Vec::new(),
            accept_at: None,
            scratch: vec![0; SCRATCH_BYTES],
            tick,
            next_tick: Instant::now(),
        }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.inner.stop.load(Ordering::Acquire) {
            if let Err(error) = self.poll.poll(&mut events, self.wait())
                && error.kind() != ErrorKind::Interrupted
            {
                log::error!("the control loop cannot wait: {error}");
                break;
            }
            let mut ready = std::mem::take(&mut self.again);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept_at = Some(Instant::now()),
                    WAKER => {}
                    Token(token) => ready.push(token),
                }
            }
            self.adopt();
            ready.append(&mut *self.inner.link.dirty.lock());
            for token in ready {
                self.drive(token);
            }
            while let Some(held) = self.delay.take_due() {
                self.serve_held(held);
            }
            if self.accept_at.is_some_and(|at| at <= Instant::now()) {
                self.accept();
            }
            if self.next_tick <= Instant::now() {
                self.keep_time();
            }
        }
        self.finish();
    }

    fn wait(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let tick = (!self.sockets.is_empty()).then_some(self.next_tick);
        let next = tick.into_iter().chain(self.accept_at).chain(self.delay.next_look()).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Takes over the connections that callers have opened.
    fn adopt(&mut self) {
        let opened = std::mem::take(&mut *self.inner.opened.lock());
        for Opened { stream, connection } in opened {
            let address = stream.peer_addr();
            let watched = address.and_then(|address| {
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                self.watch(&mut stream, connection.token())?;
                Ok((stream, address))
            });
            match watched {
                Ok((stream, address)) => {
                    let token = connection.token();
                    let mut socket = new_socket(stream, address, Role::Open(connection));
                    socket.assembler.set_limit(MAX_BODY_BYTES);
                    self.sockets.insert(token, socket);
                    self.again.push(token);
                }
                Err(error) => self.inner.lose(&connection, &broken(&error)),
            }
        }
    }

    fn watch(&self, stream: &mut TcpStream, token: usize) -> std::io::Result<()> {
        self.poll.registry().register(stream, Token(token), Interest::READABLE | Interest::WRITABLE)
    }

    fn accept(&mut self) {
        self.accept_at = None;
        for _ in 0..MAX_ACCEPTS {
            let (mut stream, address) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                    _ => {
                        log::warn!("a control connection cannot be taken: {error}");
                        self.accept_at = Instant::now().checked_add(ACCEPT_PAUSE);
                        return;
                    }
                },
            };
            self.bound_greetings();
            let token = self.inner.next_token();
            if let Err(error) = self.watch(&mut stream, token) {
                log::warn!("a control connection cannot be watched: {error}");
                continue;
            }
            let _ = stream.set_nodelay(true);
            let due = self.greeting_due();
            self.sockets.insert(token, new_socket(stream, address, Role::Greeting { due }));
            self.next_tick = self.next_tick.min(due);
        }
        self.accept_at = Some(Instant::now());
    }

    fn greeting_due(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.inner.config.handshake_connect_timeout).unwrap_or(now)
    }

    fn bound_greetings(&mut self) {
        let greeting = |socket: &Socket| match &socket.role {
            Role::Greeting { due } | Role::Refused { due, .. } => Some(*due),
            Role::Open(_) => None,
        };
        let open = self.sockets.values().filter(|socket| greeting(socket).is_none()).count();
        if self.sockets.len().saturating_sub(open) < MAX_GREETINGS {
            return;
        }
        let first = self.sockets.iter().filter_map(|(token, socket)| Some((greeting(socket)?, *token))).min();
        if let Some((_, token)) = first {
            log::warn!("{MAX_GREETINGS} callers that do not say who they are: the oldest gives way");
            self.drop_socket(token, End::Done);
        }
    }

    fn drive(&mut self, token: usize) {
        let mut turn = TURN_BYTES;
        let result = self.read(token, &mut turn).and_then(|()| self.write(token));
        match result {
            Ok(()) if turn == 0 => self.again.push(token),
            Ok(()) => self.bound_memory(token),
            Err(end) => self.drop_socket(token, end),
        }
    }

    fn read(&mut self, token: usize, turn: &mut usize) -> Result<(), End> {
        while *turn > 0 {
            let Some(socket) = self.sockets.get_mut(&token) else { return Ok(()) };
            let count = match socket.stream.read(&mut self.scratch) {
                Ok(0) => return Err(End::Lost(closed_by_peer())),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(End::Lost(broken(&error))),
            };
            socket.heard = Instant::now();
            *turn = turn.saturating_sub(count);
            // Frames need all of `self`; the scratch buffer is put back behind them.
            let scratch = std::mem::take(&mut self.scratch);
            let result = self.take_frames(token, scratch.get(..count).unwrap_or_default());
            self.scratch = scratch;
            result?;
        }
        Ok(())
    }

    fn take_frames(&mut self, token: usize, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let Some(socket) = self.sockets.get_mut(&token) else { return Ok(()) };
            if matches!(socket.role, Role::Refused { .. }) {
                return Ok(());
            }
            let frame = match socket.assembler.take(&mut bytes) {
                Ok(frame) => frame,
                Err(error) if matches!(socket.role, Role::Greeting { .. }) => {
                    self.refuse(token, &error, false);
                    return Ok(());
                }
                Err(error) => return Err(End::Lost(error)),
            };
            let Some((header, body)) = frame else { return Ok(()) };
            match &socket.role {
                Role::Open(connection) => {
                    let connection = Arc::clone(connection);
                    if self.delay.is_off() {
                        self.serve(&connection, header, body)?;
                    } else if let Some(early) = self.delay.hold(token, connection, header, body) {
                        self.serve_held(early);
                    }
                }
                _ => self.greet(token, header, &body),
            }
        }
        Ok(())
    }

    /// The first frame of a caller.
    fn greet(&mut self, token: usize, header: Header, body: &[u8]) {
        let hello = match self.check_hello(header, body) {
            Ok(hello) => hello,
            Err(error) => {
                self.refuse(token, &error, false);
                return;
            }
        };
        let own = &self.inner.identity;
        let answer = Hello {
            protocol: PROTOCOL_VERSION,
            incarnation: own.incarnation.clone(),
            segment: own.segment.clone(),
            connection: hello.connection.clone(),
            expected: None,
            previous: None,
        };
        let frame = match encode(Kind::Hello, 0, &answer) {
            Ok(frame) => frame,
            Err(error) => {
                self.refuse(token, &error, false);
                return;
            }
        };
        let connection = Connection::new(hello.clone(), token, Arc::clone(&self.inner.link));
        match self.inner.peers.judge(&own.incarnation, &hello, &connection) {
            Verdict::Taken => {
                if let Some(socket) = self.sockets.get_mut(&token) {
                    socket.role = Role::Open(Arc::clone(&connection));
                    socket.assembler.set_limit(MAX_BODY_BYTES);
                    // Before anything that others have queued meanwhile.
                    socket.frame = frame;
                    socket.written = 0;
                }
                log::info!("control connection from {} ({})", hello.segment, hello.incarnation);
                self.inner.tell_connected(&hello);
            }
            Verdict::Later(why) => {
                self.refuse(token, &Error::new(Code::Busy, Stage::Handshake, why), true);
            }
            Verdict::Replace(old) => {
                let error = Error::new(Code::Socket, Stage::Connect, "the peer has lost the connection");
                self.drop_socket(old.token(), End::Lost(error));
                let why = "the end of the last connection is being handled";
                self.refuse(token, &Error::new(Code::Busy, Stage::Handshake, why), true);
            }
            Verdict::Refused(error) => self.refuse(token, &error, false),
        }
    }

    fn check_hello(&self, header: Header, body: &[u8]) -> Result<Hello> {
        let nonsense = |why: String| {
            Err(Error::new(Code::RejectHandshake, Stage::Handshake, format!("no hello: {why}")))
        };
        if header.kind != Kind::Hello {
            return nonsense(format!("the first frame is {:?}", header.kind));
        }
        // The version first, by itself: another one may have another shape.
        let value: serde_json::Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) => return nonsense(error.to_string()),
        };
        let version = value.get("protocol").and_then(serde_json::Value::as_u64);
        if let Some(version) = version.and_then(|version| u32::try_from(version).ok())
            && version != PROTOCOL_VERSION
        {
            return Err(other_protocol(version));
        }
        let hello: Hello = match serde_json::from_value(value) {
            Ok(hello) => hello,
            Err(error) => return nonsense(error.to_string()),
        };
        let own = &self.inner.identity.incarnation;
        if hello.expected.as_deref() != Some(own.hex().as_str()) {
            let meant = hello.expected.as_deref().and_then(|hex| u128::from_str_radix(hex, 16).ok());
            let meant = Incarnation { id: meant.unwrap_or_default(), pid: 0, boot_id: String::new() };
            return Err(stale(&meant, own));
        }
        if hello.incarnation == *own {
            return nonsense("an engine does not connect to itself".into());
        }
        if hello.segment.len() > MAX_NAME_BYTES || hello.connection.len() > MAX_NAME_BYTES {
            return nonsense("its names are too long".into());
        }
        Ok(hello)
    }

    fn refuse(&mut self, token: usize, error: &Error, retry: bool) {
        let due = self.greeting_due();
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        if !retry {
            let address = socket.address;
            match error.code() {
                Code::Unsupported => log::error!("{address} refused: {error}"),
                _ => log::warn!("{address} refused: {error}"),
            }
        }
        let refusal = Refusal { retry, failure: error.into() };
        let unsent = encode(Kind::Refused, 0, &refusal).unwrap_or_default();
        socket.role = Role::Refused { due, unsent };
    }

    /// A frame of a peer.
    fn serve(&mut self, connection: &Arc<Connection>, header: Header, body: Vec<u8>) -> Result<(), End> {
        match header.kind {
            Kind::Reply => connection.answer(header.request_id, body),
            Kind::Request => self.serve_request(connection, header.request_id, body)?,
            Kind::OneWay => match serde_json::from_slice(&body) {
                Ok(Message::Ping) => connection.queue_answer(encode(Kind::OneWay, 0, &Message::Pong)?),
                Ok(Message::Pong) => {}
                Ok(Message::Bye) => connection.said_goodbye(),
                Ok(message) => {
                    if connection.keep(message)? {
                        self.inner.workers.submit(Job::Inbox(Arc::clone(connection)));
                    }
                }
                Err(error) => {
                    log::warn!("a message of {} cannot be read: {error}", connection.peer().segment);
                }
            },
            Kind::Hello | Kind::Refused => {
                let text = format!("a second {:?} on an open connection", header.kind);
                return Err(End::Lost(Error::new(Code::RejectHandshake, Stage::Connect, text)));
            }
        }
        Ok(())
    }

    /// A message that was held back; its connection may have ended.
    fn serve_held(&mut self, held: Held) {
        if let Err(end) = self.serve(&held.connection, held.header, held.body) {
            self.drop_socket(held.token, end);
        }
    }

    fn serve_request(&self, connection: &Arc<Connection>, request_id: u32, body: Vec<u8>) -> Result<()> {
        if connection.begin_request() {
            let job = Job::Request { connection: Arc::clone(connection), request_id, body };
            self.inner.workers.submit(job);
            return Ok(());
        }
        let text = "too many control requests of this peer are being handled";
        let error = Error::new(Code::TooManyRequests, Stage::Connect, text);
        connection.queue_answer(encode(Kind::Reply, request_id, &Message::from(&error))?);
        Ok(())
    }

    fn write(&mut self, token: usize) -> Result<(), End> {
        let Some(socket) = self.sockets.get_mut(&token) else { return Ok(()) };
        match &mut socket.role {
            Role::Greeting { .. } => return Ok(()),
            Role::Refused { unsent, .. } => {
                if socket.frame.is_empty() {
                    socket.frame = std::mem::take(unsent);
                    socket.written = 0;
                }
            }
            Role::Open(connection) => {
                connection.clear_announcement();
                if let Some(why) = connection.overflow() {
                    return Err(End::Lost(why));
                }
            }
        }
        loop {
            let rest = socket.frame.get(socket.written..).unwrap_or_default();
            if rest.is_empty() {
                let next = match &socket.role {
                    Role::Open(connection) => connection.next_frame(),
                    _ => None,
                };
                match next {
                    Some(frame) => {
                        socket.frame = frame;
                        socket.written = 0;
                        continue;
                    }
                    None => return finished(socket),
                }
            }
            match socket.stream.write(rest) {
                Ok(0) => return Err(End::Lost(closed_by_peer())),
                Ok(count) => socket.written = socket.written.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(End::Lost(broken(&error))),
            }
        }
    }

    /// Drops the peer that holds most while half-received frames hold too much together.
    fn bound_memory(&mut self, token: usize) {
        let holds = |socket: &Socket| socket.assembler.held_bytes();
        let here = self.sockets.get(&token).map_or(0, holds);
        let most = self.sockets.len().saturating_mul(MAX_BODY_BYTES.saturating_mul(2));
        if here < SCRATCH_BYTES || most <= MAX_HELD_BYTES {
            return;
        }
        if self.sockets.values().map(holds).sum::<usize>() > MAX_HELD_BYTES {
            let largest =
                self.sockets.iter().max_by_key(|(_, socket)| holds(socket)).map(|(token, _)| *token);
            let text = "half-received control messages of all peers take too much memory";
            let error = Error::new(Code::TooManyRequests, Stage::Connect, text);
            self.drop_socket(largest.unwrap_or(token), End::Lost(error));
        }
    }

    /// Pings the silent, drops the dead and those that do not say who they are.
    fn keep_time(&mut self) {
        let now = Instant::now();
        self.next_tick = now.checked_add(self.tick).unwrap_or(now);
        let (ping, silence) =
            (self.inner.config.control_ping_interval, self.inner.config.control_silence_limit);
        let mut ends = Vec::new();
        for (token, socket) in &mut self.sockets {
            match &socket.role {
                Role::Greeting { due } | Role::Refused { due, .. } if *due <= now => {
                    ends.push((*token, End::Done));
                }
                Role::Greeting { .. } | Role::Refused { .. } => {}
                Role::Open(connection) => {
                    let silent = now.saturating_duration_since(socket.heard);
                    if silent > silence {
                        let text = format!("the peer has been silent for {} ms", silent.as_millis());
                        ends.push((*token, End::Lost(Error::new(Code::Timeout, Stage::Connect, text))));
                    } else if silent > ping && now.saturating_duration_since(socket.pinged) > ping {
                        socket.pinged = now;
                        // A full queue means that bytes are under way already; silence decides.
                        let _ = connection.send(Message::Ping);
                    }
                }
            }
        }
        for (token, end) in ends {
            self.drop_socket(token, end);
        }
    }

    fn drop_socket(&mut self, token: usize, end: End) {
        let Some(mut socket) = self.sockets.remove(&token) else { return };
        for held in self.delay.take_of(token) {
            // Its socket is gone already: what it answers has no way any more.
            let _ = self.serve(&held.connection, held.header, held.body);
        }
        // Closing takes the socket out of the kernel's set as well; a failure here changes nothing.
        let _ = self.poll.registry().deregister(&mut socket.stream);
        if let Role::Open(connection) = socket.role {
            match end {
                End::Lost(error) => self.inner.lose(&connection, &error),
                End::Done => self.inner.release(&connection),
            }
        }
    }

    /// Writes what can be written at once, then ends every connection.
    fn finish(mut self) {
        self.inner.peers.stop();
        self.adopt();
        let tokens: Vec<usize> = self.sockets.keys().copied().collect();
        for token in tokens {
            if let Some(Role::Open(connection)) = self.sockets.get(&token).map(|socket| &socket.role) {
                // Only fails when the connection is over or full; then the peer sees a loss, which it is.
                let _ = connection.send(Message::Bye);
            }
            let _ = self.write(token);
            self.drop_socket(token, End::Done);
        }
    }
}

impl Inner {
    /// A peer has connected.
    fn tell_connected(&self, peer: &Hello) {
        if catch_unwind(AssertUnwindSafe(|| self.handler.connected(peer))).is_err() {
            log::error!("telling of the connection of {} met a defect", peer.segment);
        }
    }

    /// A connection broke: its users and then the handler learn of it.
    pub(super) fn lose(&self, connection: &Arc<Connection>, why: &Error) {
        let told = !connection.is_closing();
        let ended = Error::new(Code::Socket, Stage::Connect, "the peer's engine was closed");
        let why = if connection.is_leaving() { &ended } else { why };
        connection.end(why);
        if self.peers.remove(connection, told) && told {
            let peer = connection.peer();
            if connection.is_leaving() {
                log::info!("control connection to {} ({}) ended by the peer", peer.segment, peer.incarnation);
            } else {
                log::warn!("control connection to {} ({}) lost: {why}", peer.segment, peer.incarnation);
            }
            let lost = Lost { peer: peer.incarnation.clone(), why: why.clone().peer(peer.segment.clone()) };
            // Only fails after the end of the thread that tells; then nobody is left to be told.
            if self.lost.send(Some(lost)).is_err() {
                self.peers.lost_told(&connection.peer().incarnation);
            }
        }
    }

    /// A connection that this side is done with.
    pub(super) fn release(&self, connection: &Arc<Connection>) {
        // Only the end of the engine makes its handles stale; a peer that was cut off may be connected to again.
        let code = if self.stop.load(Ordering::Acquire) { Code::StaleHandle } else { Code::Socket };
        connection.end(&Error::new(code, Stage::Connect, "the control connection was closed here"));
        self.peers.remove(connection, false);
    }
}

/// All is written: what that means for the socket.
fn finished(socket: &mut Socket) -> Result<(), End> {
    socket.frame = Vec::new();
    socket.written = 0;
    match &socket.role {
        Role::Open(connection) if connection.is_closing() => Err(End::Done),
        Role::Refused { .. } => {
            // The caller reads the refusal, sees the end and closes; its time to do so is bounded.
            let _ = socket.stream.shutdown(std::net::Shutdown::Write);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn new_socket(stream: TcpStream, address: SocketAddr, role: Role) -> Socket {
    let now = Instant::now();
    Socket {
        stream,
        address,
        role,
        assembler: Assembler::new(MAX_HELLO_BYTES),
        frame: Vec::new(),
        written: 0,
        heard: now,
        pinged: now,
    }
}

fn closed_by_peer() -> Error {
    Error::new(Code::Socket, Stage::Connect, "the peer closed the control connection")
}

fn broken(error: &std::io::Error) -> Error {
    Error::new(Code::Socket, Stage::Connect, format!("the control connection broke: {error}"))
}

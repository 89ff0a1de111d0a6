//! One connection: cut frames from what was read, answer them, write the answers.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use mooncake_wire::Function;
use mooncake_wire::frame::RequestHeader;
use mooncake_wire::limits::MAX_REQUEST_BODY_BYTES;
use mooncake_wire::model::Uuid;
use mooncake_wire::{DecodeError, Profile};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dispatch::{Call, is_long};
use super::workers::Place;
use super::{BYTES_PER_SECOND, FREE_HELD_BYTES, MAX_HELD_BYTES, Server};
use crate::state::State;

/// What is read at a time.
const READ_BYTES: usize = 64 << 10;
/// Answers are written when they come to this, before more calls of a pipeline are answered.
const ANSWER_BYTES: usize = 256 << 10;
/// A thread's buffer for answers is not kept longer than this.
const KEPT_BYTES: usize = 1 << 20;

/// The buffers of a thread. A connection that is between two calls holds none.
struct Buffers {
    input: Box<[u8]>,
    output: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> =
        RefCell::new(Buffers { input: vec![0; READ_BYTES].into(), output: Vec::new() });
}

/// Why a connection ends.
enum End {
    Closed,
    Refused(String),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Closed
    }
}

/// Most clients that are remembered of one connection: a process may have several.
const MAX_CLIENTS_PER_CONNECTION: usize = 8;

/// What is known of a peer.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The connection, which no other had.
    connection: u64,
    /// The clients that have pinged or mounted on it.
    clients: SmallVec<[Uuid; 1]>,
    /// The release its calls so far showed.
    pub(super) profile: Option<Profile>,
    /// Whether a mismatch was logged: once per connection is enough.
    pub(super) complained: bool,
}

impl Peer {
    /// Notes that a client has pinged or mounted.
    pub(super) fn heard(&mut self, state: &State, client: Uuid) {
        let known = self.clients.contains(&client);
        if !known && self.clients.len() >= MAX_CLIENTS_PER_CONNECTION {
            return;
        }
        let remembered = state.heard_on(client, self.connection);
        if remembered && !known {
            self.clients.push(client);
        }
    }
}

pub(super) async fn serve(server: &Arc<Server>, mut stream: TcpStream, address: SocketAddr, place: &Place) {
    let connection = server.next_connection.fetch_add(1, Ordering::Relaxed);
    let mut peer = Peer { address, connection, clients: SmallVec::new(), profile: None, complained: false };
    let end = exchange(server, &mut stream, &mut peer, place).await;
    if !peer.clients.is_empty() {
        server.state.connection_closed(peer.connection, &peer.clients);
    }
    if let Err(End::Refused(reason)) = end {
        server.state.metrics().connections_refused.increment();
        log::warn!("{address}: connection closed: {reason}");
    }
}

/// What comes next on a connection.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Bytes are to be read.
    #[default]
    Read,
    /// What was read begins with whole frames.
    Frames,
    /// It begins with a call that may take long.
    Long,
}

/// What is left after one turn.
#[derive(Default)]
struct Rest {
    /// The start of a frame that is not whole, or what `next` says.
    input: Vec<u8>,
    /// Answers that the peer has not taken.
    output: Vec<u8>,
    /// Whether the journal has to be on the disk before `output` is sent.
    unsynced: bool,
    next: Next,
    /// Whether the last turn answered a frame, so that the one that is not whole began in it.
    answered: bool,
}

/// A connection's share of what all connections hold; given back when it ends.
struct Held<'s> {
    server: &'s Server,
    bytes: usize,
}

impl Held<'_> {
    fn set(&mut self, bytes: usize) -> Result<(), End> {
        if bytes == self.bytes {
            return Ok(());
        }
        let all = &self.server.held;
        let before = if bytes >= self.bytes {
            all.fetch_add(bytes - self.bytes, Ordering::Relaxed)
        } else {
            all.fetch_sub(self.bytes - bytes, Ordering::Relaxed)
        };
        let grown = bytes > self.bytes;
        self.bytes = bytes;
        if grown && before > MAX_HELD_BYTES && bytes > FREE_HELD_BYTES {
            return Err(End::Refused("all connections together hold too much".into()));
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.server.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

async fn exchange(
    server: &Arc<Server>,
    stream: &mut TcpStream,
    peer: &mut Peer,
    place: &Place,
) -> Result<(), End> {
    let mut rest = Rest::default();
    let mut held = Held { server, bytes: 0 };
    let mut begun: Option<Instant> = None;
    loop {
        held.set(rest.input.len() + rest.output.len())?;
        if std::mem::take(&mut rest.unsynced) {
            let state = Arc::clone(&server.state);
            beside(move || state.flush()).await?;
        }
        if !rest.output.is_empty() {
            write(stream, &rest.output, server.settings.frame_timeout).await?;
            rest.output = Vec::new();
        }
        let limit = match rest.next {
            Next::Long => {
                long(server, peer, &mut rest).await?;
                continue;
            }
            Next::Frames => {
                // The other connections of this thread come in between.
                tokio::task::yield_now().await;
                None
            }
            Next::Read if rest.input.is_empty() => {
                begun = None;
                server.settings.idle_timeout
            }
            Next::Read => {
                let start = *begun.filter(|_| !rest.answered).get_or_insert_with(Instant::now);
                begun = Some(start);
                let limit = allowance(server.settings.frame_timeout, rest.input.len());
                Some(limit.saturating_sub(start.elapsed()))
            }
        };
        let whole = rest.input.is_empty();
        let turn = poll_fn(|context| {
            BUFFERS.with_borrow_mut(|buffers| turn(context, server, stream, peer, &mut rest, buffers))
        });
        let more = match limit {
            None => turn.await?,
            Some(limit) => match timeout(limit, turn).await {
                Ok(more) => more?,
                Err(_) if whole => return Err(End::Closed),
                Err(_) => return Err(End::Refused("a frame did not end in time".into())),
            },
        };
        if !more {
            return Ok(());
        }
        place.count_turn();
    }
}

/// Does what may take long on a thread where nobody waits for it.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, End> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| End::Refused(format!("a call ended early: {error}")))
}

/// Answers the call that `rest.input` begins with, beside this thread.
async fn long(server: &Arc<Server>, peer: &mut Peer, rest: &mut Rest) -> Result<(), End> {
    let (server, mut caller) = (Arc::clone(server), peer.clone());
    let mut input = std::mem::take(&mut rest.input);
    let work = move || {
        let mut output = Vec::new();
        let (used, _) = answer(&server, &mut caller, &input, &mut output, true)?;
        server.state.flush();
        input.drain(..used);
        Ok::<_, End>((caller, input, output))
    };
    (*peer, rest.input, rest.output) = beside(work).await??;
    rest.next = if rest.input.is_empty() { Next::Read } else { Next::Frames };
    rest.answered = true;
    Ok(())
}

/// How long so many bytes may take.
fn allowance(least: Duration, bytes: usize) -> Duration {
    least.saturating_add(Duration::from_secs((bytes / BYTES_PER_SECOND) as u64))
}

/// Reads once, answers every whole frame, and writes what the peer takes. False at the end of the connection.
fn turn(
    context: &mut Context<'_>,
    server: &Server,
    stream: &mut TcpStream,
    peer: &mut Peer,
    rest: &mut Rest,
    buffers: &mut Buffers,
) -> Poll<Result<bool, End>> {
    let Buffers { input, output } = buffers;
    let mut read: &[u8] = &[];
    if rest.next == Next::Read {
        let mut buffer = ReadBuf::new(input);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
        let count = buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Ok(false));
        }
        read = input.get(..count).unwrap_or_default();
    }
    output.clear();
    // Most calls are whole in one read and are answered from the thread's buffer.
    let (used, next) = if rest.input.is_empty() {
        let (used, next) = answer(server, peer, read, output, false)?;
        rest.input.extend_from_slice(read.get(used..).unwrap_or_default());
        (0, next)
    } else {
        rest.input.extend_from_slice(read);
        answer(server, peer, &rest.input, output, false)?
    };
    rest.input.drain(..used);
    if rest.input.is_empty() {
        rest.input = Vec::new();
    }
    rest.next = next;
    rest.answered = !output.is_empty();
    if output.is_empty() {
        return Poll::Ready(Ok(true));
    }
    let written = if waits_for_disk(server) {
        rest.unsynced = true;
        0
    } else {
        server.state.flush();
        match stream.try_write(output) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Poll::Ready(Err(error.into())),
        }
    };
    rest.output.extend_from_slice(output.get(written..).unwrap_or_default());
    output.clear();
    output.shrink_to(KEPT_BYTES);
    Poll::Ready(Ok(true))
}

/// Whether something has to come to the disk before the answers may be sent.
fn waits_for_disk(server: &Server) -> bool {
    server.state.journal().is_some_and(|journal| journal.waits_for_disk() && journal.has_unwritten())
}

/// Answers the whole frames at the start of `input`; the answer is how many bytes they took, and what comes next.
///
/// Only if `long` is a call answered that may take long, and then it is the only one.
fn answer(
    server: &Server,
    peer: &mut Peer,
    input: &[u8],
    output: &mut Vec<u8>,
    long: bool,
) -> Result<(usize, Next), End> {
    let mut used = 0;
    loop {
        let rest = input.get(used..).unwrap_or_default();
        let Some(header) = rest.first_chunk::<{ RequestHeader::BYTES }>() else {
            return Ok((used, Next::Read));
        };
        let refused = |error: DecodeError| End::Refused(error.to_string());
        let header = RequestHeader::decode(header, MAX_REQUEST_BODY_BYTES).map_err(refused)?;
        let body_bytes = usize::try_from(header.body_bytes).unwrap_or(usize::MAX);
        let attachment_bytes = usize::try_from(header.attachment_bytes).unwrap_or(usize::MAX);
        let body_end = RequestHeader::BYTES.saturating_add(body_bytes);
        let end = body_end.saturating_add(attachment_bytes);
        let (Some(body), true) = (rest.get(RequestHeader::BYTES..body_end), rest.len() >= end) else {
            return Ok((used, Next::Read));
        };
        if output.len() >= ANSWER_BYTES {
            return Ok((used, Next::Frames));
        }
        let function = Function::from_id(header.function_id);
        if !long && function.is_some_and(is_long) {
            return Ok((used, Next::Long));
        }
        let now = server.clock.now();
        let call = Call {
            state: &server.state,
            fixed: server.settings.profile,
            now,
            header,
            function,
            body,
            heard: Cell::new(None),
        };
        call.answer(peer, output);
        used += end;
        if long {
            return Ok((used, Next::Frames));
        }
    }
}

async fn write(stream: &mut TcpStream, output: &[u8], least: Duration) -> Result<(), End> {
    match timeout(allowance(least, output.len()), stream.write_all(output)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(End::Refused("an answer was not taken in time".into())),
    }
}

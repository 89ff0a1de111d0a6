//! One connection: cut frames from what was read, answer them, write the answers.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mooncake_wire::frame::RequestHeader;
use mooncake_wire::limits::MAX_REQUEST_BODY_BYTES;
use mooncake_wire::{DecodeError, Profile};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dispatch::Call;
use super::{BYTES_PER_SECOND, FREE_HELD_BYTES, MAX_HELD_BYTES, Server};

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

/// What is known of a peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The release its calls so far showed.
    pub(super) profile: Option<Profile>,
    /// Whether a mismatch was logged: once per connection is enough.
    pub(super) complained: bool,
}

pub(super) async fn serve(server: &Server, mut stream: TcpStream, address: SocketAddr) {
    let mut peer = Peer { address, profile: None, complained: false };
    let end = exchange(server, &mut stream, &mut peer).await;
    if let Err(End::Refused(reason)) = end {
        server.state.metrics().connections_refused.increment();
        log::warn!("{address}: connection closed: {reason}");
    }
}

/// What is left after one turn.
#[derive(Default)]
struct Rest {
    /// The start of a frame that is not whole.
    input: Vec<u8>,
    /// Answers that the peer has not taken.
    output: Vec<u8>,
    /// Whether `input` begins with whole frames.
    more: bool,
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

async fn exchange(server: &Server, stream: &mut TcpStream, peer: &mut Peer) -> Result<(), End> {
    let mut rest = Rest::default();
    let mut held = Held { server, bytes: 0 };
    let mut begun: Option<Instant> = None;
    loop {
        held.set(rest.input.len() + rest.output.len())?;
        if !rest.output.is_empty() {
            write(stream, &rest.output, server.settings.frame_timeout).await?;
            rest.output = Vec::new();
        }
        if !rest.more {
            if rest.input.is_empty() {
                wait(stream, server.settings.idle_timeout).await?;
                begun = None;
            } else {
                let start = *begun.filter(|_| !rest.answered).get_or_insert_with(Instant::now);
                begun = Some(start);
                let limit = allowance(server.settings.frame_timeout, rest.input.len())
                    .saturating_sub(start.elapsed());
                let late = |_| End::Refused("a frame did not end in time".into());
                wait(stream, Some(limit)).await.map_err(late)?;
            }
        }
        if !BUFFERS.with_borrow_mut(|buffers| turn(server, stream, peer, &mut rest, buffers))? {
            return Ok(());
        }
    }
}

/// How long so many bytes may take.
fn allowance(least: Duration, bytes: usize) -> Duration {
    least.saturating_add(Duration::from_secs((bytes / BYTES_PER_SECOND) as u64))
}

/// Reads once, answers every whole frame, and writes what the peer takes. False at the end of the connection.
fn turn(
    server: &Server,
    stream: &TcpStream,
    peer: &mut Peer,
    rest: &mut Rest,
    buffers: &mut Buffers,
) -> Result<bool, End> {
    let Buffers { input, output } = buffers;
    output.clear();
    let mut read: &[u8] = &[];
    if !rest.more {
        match stream.try_read(input) {
            Ok(0) => return Ok(false),
            Ok(count) => read = input.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                rest.answered = false;
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Most calls are whole in one read and are answered from the thread's buffer.
    let (used, more) = if rest.input.is_empty() {
        let (used, more) = answer(server, peer, read, output)?;
        rest.input.extend_from_slice(read.get(used..).unwrap_or_default());
        (0, more)
    } else {
        rest.input.extend_from_slice(read);
        answer(server, peer, &rest.input, output)?
    };
    rest.input.drain(..used);
    if rest.input.is_empty() {
        rest.input = Vec::new();
    }
    rest.more = more;
    rest.answered = !output.is_empty();
    if !output.is_empty() {
        flush(server);
        let written = match stream.try_write(output) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        rest.output.extend_from_slice(output.get(written..).unwrap_or_default());
        output.clear();
        output.shrink_to(KEPT_BYTES);
    }
    Ok(true)
}

/// Answers the whole frames at the start of `input`; the answer is how many bytes they took, and whether it stopped
/// before the last of them.
fn answer(
    server: &Server,
    peer: &mut Peer,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<(usize, bool), End> {
    let mut used = 0;
    loop {
        let rest = input.get(used..).unwrap_or_default();
        let Some(header) = rest.first_chunk::<{ RequestHeader::BYTES }>() else {
            return Ok((used, false));
        };
        let refused = |error: DecodeError| End::Refused(error.to_string());
        let header = RequestHeader::decode(header, MAX_REQUEST_BODY_BYTES).map_err(refused)?;
        let body_bytes = usize::try_from(header.body_bytes).unwrap_or(usize::MAX);
        let attachment_bytes = usize::try_from(header.attachment_bytes).unwrap_or(usize::MAX);
        let body_end = RequestHeader::BYTES.saturating_add(body_bytes);
        let end = body_end.saturating_add(attachment_bytes);
        let (Some(body), true) = (rest.get(RequestHeader::BYTES..body_end), rest.len() >= end) else {
            return Ok((used, false));
        };
        if output.len() >= ANSWER_BYTES {
            return Ok((used, true));
        }
        let now = server.clock.now();
        let call = Call { state: &server.state, fixed: server.settings.profile, now, header, body };
        call.answer(peer, output);
        used += end;
    }
}

/// The journal before the answer. Waiting for the disk must not hold the other tasks of this thread.
fn flush(server: &Server) {
    match server.state.journal() {
        Some(journal) if journal.waits_for_disk() => tokio::task::block_in_place(|| server.state.flush()),
        _ => server.state.flush(),
    }
}

async fn write(stream: &mut TcpStream, output: &[u8], least: Duration) -> Result<(), End> {
    match timeout(allowance(least, output.len()), stream.write_all(output)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(End::Refused("an answer was not taken in time".into())),
    }
}

async fn wait(stream: &TcpStream, limit: Option<Duration>) -> Result<(), End> {
    match limit {
        None => Ok(stream.readable().await?),
        Some(limit) => match timeout(limit, stream.readable()).await {
            Ok(ready) => Ok(ready?),
            Err(_) => Err(End::Closed),
        },
    }
}

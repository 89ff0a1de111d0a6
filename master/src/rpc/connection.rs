//! One connection: cut frames from what was read, answer them, write the answers.

use std::net::SocketAddr;
use std::time::Duration;

use mooncake_wire::frame::RequestHeader;
use mooncake_wire::limits::MAX_REQUEST_BODY_BYTES;
use mooncake_wire::{DecodeError, Profile};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dispatch::Call;
use super::{FRAME_TIMEOUT, Server};

/// What is read at a time.
const READ_BYTES: usize = 16 << 10;
/// A buffer longer than this is given back when it is empty.
const KEPT_BYTES: usize = 64 << 10;
/// Answers are written when they come to this, before more calls of a pipeline are answered.
const ANSWER_BYTES: usize = 256 << 10;

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

async fn exchange(server: &Server, stream: &mut TcpStream, peer: &mut Peer) -> Result<(), End> {
    let mut input: Vec<u8> = Vec::new();
    let mut output: Vec<u8> = Vec::new();
    loop {
        let used = answer(server, peer, &input, &mut output)?;
        input.drain(..used);
        if !output.is_empty() {
            flush(server);
            write(stream, &output).await?;
            output.clear();
            output.shrink_to(KEPT_BYTES);
            if used > 0 && !input.is_empty() {
                continue;
            }
        }
        // Nothing is held for a connection that says nothing.
        if input.is_empty() {
            input.shrink_to(KEPT_BYTES);
            wait(stream, server.settings.idle_timeout).await?;
        } else {
            wait(stream, Some(FRAME_TIMEOUT))
                .await
                .map_err(|_| End::Refused("a frame did not end in time".into()))?;
        }
        input.reserve(READ_BYTES);
        match stream.try_read_buf(&mut input) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Answers the whole frames at the start of `input`; the answer is how many bytes they took.
fn answer(server: &Server, peer: &mut Peer, input: &[u8], output: &mut Vec<u8>) -> Result<usize, End> {
    let mut used = 0;
    while output.len() < ANSWER_BYTES {
        let rest = input.get(used..).unwrap_or_default();
        let Some(header) = rest.first_chunk::<{ RequestHeader::BYTES }>() else {
            break;
        };
        let refused = |error: DecodeError| End::Refused(error.to_string());
        let header = RequestHeader::decode(header, MAX_REQUEST_BODY_BYTES).map_err(refused)?;
        let body_bytes = usize::try_from(header.body_bytes).unwrap_or(usize::MAX);
        let attachment_bytes = usize::try_from(header.attachment_bytes).unwrap_or(usize::MAX);
        let body_end = RequestHeader::BYTES.saturating_add(body_bytes);
        let end = body_end.saturating_add(attachment_bytes);
        let (Some(body), true) = (rest.get(RequestHeader::BYTES..body_end), rest.len() >= end) else {
            break;
        };
        let now = server.clock.now();
        let call = Call { state: &server.state, fixed: server.settings.profile, now, header, body };
        call.answer(peer, output);
        used += end;
    }
    Ok(used)
}

/// The journal before the answer. Waiting for the disk must not hold the other tasks of this thread.
fn flush(server: &Server) {
    match server.state.journal() {
        Some(journal) if journal.waits_for_disk() => tokio::task::block_in_place(|| server.state.flush()),
        _ => server.state.flush(),
    }
}

async fn write(stream: &mut TcpStream, output: &[u8]) -> Result<(), End> {
    let written = match stream.try_write(output) {
        Ok(written) => written,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error.into()),
    };
    let rest = output.get(written..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    match timeout(FRAME_TIMEOUT, stream.write_all(rest)).await {
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

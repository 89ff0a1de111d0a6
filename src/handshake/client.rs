//! Asking a peer's handshake listener: one connection for each question, closed right after the answer.
//!
//! Closing at once matters: upstream's listener serves one client at a time and waits for it to close.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::frame::{Assembler, Kind, encode};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::error::{Code, Error, Result, Stage};
use crate::notify::Note;
use crate::segment::json;

/// What is sent where the content is ignored: short, so that a segment with very many buffers can ask, too.
const NOTHING: &[u8] = b"{}\n";

/// What to do about a peer that takes the connection and says nothing.
const SILENT: &str = "the peer's process hangs or is stopped, or another service listens on its port";

/// Bytes read by one call.
const SCRATCH_BYTES: usize = 64 << 10;

/// Fetches the descriptor a peer publishes, as JSON.
///
/// `own` is the asker's descriptor, which receivers ignore; an empty one, or one longer than the peer may take,
/// is replaced by an empty object.
///
/// # Errors
/// [`Code::Dns`], [`Code::Socket`], [`Code::Timeout`], or [`Code::MalformedJson`].
pub fn fetch_descriptor(peer: &Endpoint, own: &[u8], config: &Config, deadline: Deadline) -> Result<Vec<u8>> {
    let fits = !own.is_empty() && own.len() < config.handshake_max_length_bytes;
    exchange(peer, Kind::Metadata, if fits { own } else { NOTHING }, config, deadline)
}

/// Leaves a note at a peer.
///
/// # Errors
/// As [`fetch_descriptor`], and [`Code::Metadata`] when the peer did not take it.
pub fn send_notify(peer: &Endpoint, note: &Note, config: &Config, deadline: Deadline) -> Result<()> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        notify_msg: String,
    }
    let mut body = serde_json::to_vec(note).map_err(|error| {
        Error::new(Code::InvalidArgument, Stage::Handshake, format!("the note cannot be written: {error}"))
    })?;
    body.push(b'\n');
    if body.len() >= config.handshake_max_length_bytes {
        return Err(Error::new(
            Code::InvalidArgument,
            Stage::Handshake,
            format!(
                "a note of {} bytes; less than {} are taken",
                body.len(),
                config.handshake_max_length_bytes
            ),
        ));
    }
    let reply = exchange(peer, Kind::Notify, &body, config, deadline)?;
    let answer: Answer =
        json::parse(&reply, "the answer to a note", Stage::Handshake).map_err(|error| named(error, peer))?;
    if answer.notify_msg.is_empty() {
        let text = "the peer did not take the note";
        return Err(named(Error::new(Code::Metadata, Stage::Handshake, text), peer));
    }
    Ok(())
}

/// Asks whether a peer is there.
///
/// # Errors
/// As [`fetch_descriptor`].
pub fn probe(peer: &Endpoint, config: &Config, deadline: Deadline) -> Result<()> {
    let reply = exchange(peer, Kind::Probe, NOTHING, config, deadline)?;
    json::parse::<IgnoredAny>(&reply, "the answer to a probe", Stage::Handshake)
        .map(|_| ())
        .map_err(|error| named(error, peer))
}

/// One question and its answer, at the first address of the peer that answers.
fn exchange(
    peer: &Endpoint,
    kind: Kind,
    body: &[u8],
    config: &Config,
    deadline: Deadline,
) -> Result<Vec<u8>> {
    let frame = encode(kind, body);
    let stream_deadline = deadline.sooner(Deadline::after(config.handshake_reply_timeout));
    let mut last = None;
    for address in addresses(peer, config.handshake_port, config, deadline)? {
        match ask(address, kind, &frame, config, stream_deadline) {
            Ok(reply) => return Ok(reply),
            // The peer was reached and speaks nonsense; another of its addresses would, too.
            Err(error) if error.code() == Code::MalformedJson => return Err(named(error, peer)),
            Err(error) => last = Some(error),
        }
        if stream_deadline.expired() {
            break;
        }
    }
    let error = last.unwrap_or_else(|| Error::new(Code::Dns, Stage::Resolve, "the peer has no address"));
    Err(named(error, peer))
}

/// Addresses of a peer in the order in which they are tried.
pub(crate) fn addresses(
    peer: &Endpoint,
    default_port: u16,
    config: &Config,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>> {
    let mut addresses = peer.resolve_by(default_port, deadline)?;
    if config.use_ipv6 {
        addresses.sort_by_key(SocketAddr::is_ipv4);
    }
    Ok(addresses)
}

/// A connection made within the configured time and the deadline.
pub(crate) fn connect(address: SocketAddr, config: &Config, deadline: Deadline) -> Result<TcpStream> {
    let limit = config.handshake_connect_timeout.min(deadline.remaining());
    if limit.is_zero() {
        return Err(Error::new(
            Code::Timeout,
            Stage::Connect,
            format!("no time left to connect to {address}"),
        )
        .advice("give the call more time, or check that the peer's host answers"));
    }
    TcpStream::connect_timeout(&address, limit).map_err(|error| {
        if error.kind() == ErrorKind::TimedOut {
            let text = format!("{address} did not accept a connection in {} ms", limit.as_millis());
            return Error::new(Code::Timeout, Stage::Connect, text)
                .advice("check that the host is up and no firewall drops the port");
        }
        Error::new(Code::Socket, Stage::Connect, format!("cannot connect to {address}: {error}"))
            .advice("check that the peer runs and that its name holds the right port")
    })
}

/// Sends all of `bytes` by the deadline.
pub(crate) fn write_all(stream: &mut TcpStream, mut bytes: &[u8], deadline: Deadline) -> Result<()> {
    while !bytes.is_empty() {
        arm(stream, deadline)?;
        match stream.write(bytes) {
            Ok(0) => return Err(broken(stream, "the peer takes no more bytes")),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) => retry(stream, &error)?,
        }
    }
    Ok(())
}

/// Receives some bytes by the deadline; 0 at the end of the stream.
pub(crate) fn read_some(stream: &mut TcpStream, buffer: &mut [u8], deadline: Deadline) -> Result<usize> {
    loop {
        arm(stream, deadline)?;
        match stream.read(buffer) {
            Ok(count) => return Ok(count),
            Err(error) => retry(stream, &error)?,
        }
    }
}

fn arm(stream: &TcpStream, deadline: Deadline) -> Result<()> {
    let remaining = deadline.remaining();
    if remaining.is_zero() {
        let text = format!("{} did not answer in time", address_of(stream));
        return Err(Error::new(Code::Timeout, Stage::Handshake, text).advice(SILENT));
    }
    stream
        .set_read_timeout(Some(remaining))
        .and_then(|()| stream.set_write_timeout(Some(remaining)))
        .map_err(|error| broken(stream, &error.to_string()))
}

/// Nothing for a failure after which the call is made again; the deadline ends such a loop.
fn retry(stream: &TcpStream, error: &std::io::Error) -> Result<()> {
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
        _ => Err(broken(stream, &error.to_string())),
    }
}

fn broken(stream: &TcpStream, why: &str) -> Error {
    Error::new(
        Code::Socket,
        Stage::Handshake,
        format!("the connection to {} broke: {why}", address_of(stream)),
    )
}

fn address_of(stream: &TcpStream) -> String {
    stream.peer_addr().map_or_else(|_| "the peer".to_owned(), |address| address.to_string())
}

fn named(error: Error, peer: &Endpoint) -> Error {
    error.peer(peer.to_string())
}

fn ask(
    address: SocketAddr,
    kind: Kind,
    frame: &[u8],
    config: &Config,
    deadline: Deadline,
) -> Result<Vec<u8>> {
    let mut stream = connect(address, config, deadline)?;
    // Without it the last piece of a frame may wait for an acknowledgement; the exchange works either way.
    let _ = stream.set_nodelay(true);
    write_all(&mut stream, frame, deadline)?;
    let mut assembler = Assembler::new(config.handshake_max_length_bytes);
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        let count = read_some(&mut stream, &mut scratch, deadline)?;
        if count == 0 {
            return Err(Error::new(
                Code::Socket,
                Stage::Handshake,
                format!("{address} closed the connection without an answer"),
            )
            .advice("is the port that of a transfer engine's handshake?"));
        }
        if assembler.push(scratch.get(..count).unwrap_or_default())? {
            break;
        }
    }
    match assembler.parts() {
        Some((answered, body)) if answered == kind => Ok(body.to_vec()),
        _ => Err(Error::new(
            Code::Socket,
            Stage::Handshake,
            format!("{address} answered another question than {kind:?}"),
        )),
    }
}

//! Opening a control connection: blocking, on the thread that wants it.

use std::net::{SocketAddr, TcpStream};

use serde::{Deserialize, Serialize};

use super::frame::{HEADER_BYTES, Header, Kind, MAX_HELLO_BYTES, encode};
use super::message::{Failure, Hello, PROTOCOL_VERSION};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::{Endpoint, Incarnation};
use crate::error::{Code, Error, Result, Stage};
use crate::handshake::client;

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// Whether the opener should look for a connection that crossed with its own and try again.
    pub(super) retry: bool,
    /// Why.
    pub(super) failure: Failure,
}

/// Why there is no connection.
pub(super) enum Refused {
    /// Look again a little later.
    Retry,
    /// Give up.
    Final(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Connects to the control listener at `host` and `port`, and exchanges hellos.
pub(super) fn dial(
    host: &str,
    port: u16,
    hello: &Hello,
    expected: &Incarnation,
    config: &Config,
    deadline: Deadline,
) -> Result<(TcpStream, Hello), Refused> {
    let peer = Endpoint::new(host, Some(port))?;
    let mut last = None;
    for address in client::addresses(&peer, port, config, deadline)? {
        match greet(address, hello, expected, config, deadline) {
            Ok(done) => return Ok(done),
            Err(Refused::Retry) => return Err(Refused::Retry),
            Err(Refused::Final(error)) => {
                // Another address of the same host may lead elsewhere, but not back to a dead process.
                let stop = error.code() == Code::StaleIncarnation || deadline.expired();
                last = Some(error);
                if stop {
                    break;
                }
            }
        }
    }
    // The record's peer is for the caller to name, who knows the segment; the address stands in the message.
    let none = || Error::new(Code::Dns, Stage::Resolve, format!("{} has no address", peer.session()));
    Err(Refused::Final(last.unwrap_or_else(none)))
}

fn greet(
    address: SocketAddr,
    hello: &Hello,
    expected: &Incarnation,
    config: &Config,
    deadline: Deadline,
) -> Result<(TcpStream, Hello), Refused> {
    let mut stream = client::connect(address, config, deadline)?;
    // Small frames must not wait for one another; without it all still works, slower.
    let _ = stream.set_nodelay(true);
    client::write_all(&mut stream, &encode(Kind::Hello, 0, hello)?, deadline)?;
    let (kind, body) = read_frame(&mut stream, address, deadline)?;
    match kind {
        Kind::Hello => {
            let answer: Hello = parse(&body, address)?;
            check(&answer, hello, expected, address)?;
            Ok((stream, answer))
        }
        Kind::Refused => {
            let refusal: Refusal = parse(&body, address)?;
            if refusal.retry {
                return Err(Refused::Retry);
            }
            let error = refusal.failure.to_error(&address.to_string());
            if error.code() == Code::Unsupported {
                log::error!("{error}");
            }
            Err(Refused::Final(error))
        }
        _ => Err(Refused::Final(nonsense(address, "its first frame is no hello"))),
    }
}

/// Reads one frame and not a byte more: what follows belongs to the loop.
fn read_frame(stream: &mut TcpStream, address: SocketAddr, deadline: Deadline) -> Result<(Kind, Vec<u8>)> {
    let mut head = [0; HEADER_BYTES];
    read_exact(stream, &mut head, address, deadline)?;
    let header = Header::decode(&head, MAX_HELLO_BYTES).inspect_err(|error| {
        if error.code() == Code::Unsupported {
            log::error!("{address}: {error}");
        }
    })?;
    let mut body = vec![0; header.body_bytes];
    read_exact(stream, &mut body, address, deadline)?;
    Ok((header.kind, body))
}

fn read_exact(
    stream: &mut TcpStream,
    mut buffer: &mut [u8],
    address: SocketAddr,
    deadline: Deadline,
) -> Result<()> {
    while !buffer.is_empty() {
        let count = client::read_some(stream, buffer, deadline)?;
        if count == 0 {
            return Err(nonsense(address, "it closed the connection without an answer"));
        }
        buffer = buffer.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8], address: SocketAddr) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| nonsense(address, &error.to_string()))
}

fn check(answer: &Hello, hello: &Hello, expected: &Incarnation, address: SocketAddr) -> Result<()> {
    if answer.protocol != PROTOCOL_VERSION {
        return Err(other_protocol(answer.protocol));
    }
    if answer.incarnation != *expected {
        return Err(stale(expected, &answer.incarnation));
    }
    if answer.connection != hello.connection {
        return Err(nonsense(address, "it answered for another connection"));
    }
    Ok(())
}

fn nonsense(address: SocketAddr, why: &str) -> Error {
    Error::new(Code::RejectHandshake, Stage::Handshake, format!("no control connection to {address}: {why}"))
}

/// The process behind an address is not the one that was meant.
pub(super) fn stale(expected: &Incarnation, found: &Incarnation) -> Error {
    Error::new(
        Code::StaleIncarnation,
        Stage::Handshake,
        format!("the peer is {found}, not {expected} any more"),
    )
    .advice("the peer was restarted; fetch its descriptor again")
}

pub(super) fn other_protocol(version: u32) -> Error {
    Error::new(
        Code::Unsupported,
        Stage::Handshake,
        format!("the peer speaks control protocol {version}, this side {PROTOCOL_VERSION}"),
    )
    .advice("run the same release of mooncake-transfer at both ends")
}

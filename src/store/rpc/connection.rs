//! One connection to a master: one call at a time, each with a deadline.
//!
//! A connection is good for another call only after a call that was answered whole; whatever else happens ends it.
//! Nothing that the master sends makes a buffer grow by more than what has arrived.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mooncake_wire::frame::{self, RequestHeader, ResponseHeader};
use mooncake_wire::limits::{MAX_REQUEST_BODY_BYTES, MAX_RESPONSE_BODY_BYTES};
use mooncake_wire::method::{BatchGetReplicaList, BatchPutStart, ServiceReady};
use mooncake_wire::model::{ReplicateConfig, Tenant, Uuid};
use mooncake_wire::{DecodeError, EncodeError, Function, Method, Profile, RpcError, STORE_VERSION};

use crate::deadline::Deadline;

/// What is read at a time.
const READ_BYTES: usize = 64 << 10;
/// Buffers are not kept longer than this between two calls.
const KEPT_BYTES: usize = 1 << 20;
/// A socket call returns after this time to look at the deadline.
const LOOK: Duration = Duration::from_millis(50);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Broken(#[from] std::io::Error),
    /// The master closed the connection.
    #[error("the master closed the connection")]
    Closed,
    /// The deadline passed.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The master did not carry the call out.
    #[error("the master refused the call: {0}")]
    Refused(RpcError),
    /// The answer is not what the call is answered by.
    #[error("the answer to {function} cannot be read: {error}")]
    Malformed {
        /// The call.
        function: Function,
        /// What is wrong.
        error: DecodeError,
    },
    /// The frame is not an answer to this call.
    #[error("the answer to {0} is corrupted: it does not belong to the call")]
    Corrupted(Function),
    /// The call cannot be put in a frame.
    #[error("the call cannot be written: {0}")]
    Unwritable(#[from] EncodeError),
}

impl CallError {
    /// Whether the connection can be used for another call.
    fn leaves_connection(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unwritable(_))
    }
}

/// A connection; see the module.
pub(crate) struct Connection {
    stream: Arc<TcpStream>,
    /// Which of the masters it goes to.
    master: usize,
    profile: Profile,
    sequence: u32,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Where the socket is read to.
    chunk: Box<[u8]>,
    usable: bool,
}

impl Connection {
    /// Connects, and finds out which release the master speaks.
    pub(crate) fn open(address: SocketAddr, master: usize, deadline: Deadline) -> Result<Self, CallError> {
        let limit = deadline.remaining();
        if limit.is_zero() {
            return Err(CallError::Late(limit));
        }
        let stream = TcpStream::connect_timeout(&address, limit).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => CallError::Late(limit),
            _ => CallError::Broken(error),
        })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        let mut connection = Self {
            stream: Arc::new(stream),
            master,
            profile: Profile::default(),
            sequence: 0,
            output: Vec::new(),
            input: Vec::new(),
            chunk: vec![0; READ_BYTES].into(),
            usable: true,
        };
        connection.greet(deadline)?;
        Ok(connection)
    }

    /// Which of the masters it goes to.
    pub(crate) fn master(&self) -> usize {
        self.master
    }

    /// The socket, for whoever has to end a call from outside.
    pub(crate) fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// Whether another call can be made: the last one was answered whole and the master has not hung up since.
    pub(crate) fn is_usable(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let socket = socket2::SockRef::from(&*self.stream);
        // Nothing is under way, so that anything to read is the end of the connection, or a fault.
        self.usable
            && socket
                .recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT)
                .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Makes a call and waits for its answer.
    pub(crate) fn call<'a, M: Method<'a>>(
        &mut self,
        method: &M,
        deadline: Deadline,
    ) -> Result<M::Reply, CallError> {
        let outcome = self.exchange(method, deadline);
        if let Err(error) = &outcome
            && !error.leaves_connection()
        {
            self.usable = false;
            let _ended = self.stream.shutdown(Shutdown::Both);
        }
        self.output.shrink_to(KEPT_BYTES);
        self.input.shrink_to(KEPT_BYTES);
        outcome
    }

    fn greet(&mut self, deadline: Deadline) -> Result<(), CallError> {
        if let Ok(version) = self.call(&ServiceReady {}, deadline)?
            && version != STORE_VERSION
        {
            log::warn!("the master calls its version {version:?}; {STORE_VERSION:?} is expected");
        }
        let mut refusal = None;
        for profile in Profile::ALL {
            self.profile = *profile;
            match self.try_profile(deadline) {
                Ok(()) => return Ok(()),
                Err(CallError::Refused(error)) => refusal = Some(error),
                Err(CallError::Malformed { error: DecodeError::Hash { .. }, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let spoken: Vec<_> = Profile::ALL.iter().map(|profile| profile.release()).collect();
        let words = refusal.map_or_else(String::new, |error| format!(" ({})", error.message));
        let message = format!("it speaks none of the releases {}{words}", spoken.join(", "));
        Err(CallError::Refused(RpcError { code: u16::from(RpcError::INVALID_ARGUMENTS), message }))
    }

    /// Two calls without effect, whose shapes together tell the releases apart.
    fn try_profile(&mut self, deadline: Deadline) -> Result<(), CallError> {
        let list = BatchGetReplicaList { keys: Vec::new(), tenant: Tenant::default() };
        let start = BatchPutStart {
            client: Uuid::default(),
            keys: Vec::new(),
            lengths: Vec::new(),
            config: ReplicateConfig::default(),
            tenant: Tenant::default(),
        };
        // A hash of another release leaves the connection in step: the frame was whole.
        self.exchange(&list, deadline)?;
        self.exchange(&start, deadline)?;
        Ok(())
    }

    fn exchange<'a, M: Method<'a>>(&mut self, method: &M, deadline: Deadline) -> Result<M::Reply, CallError> {
        let limit = deadline.remaining();
        let late = || CallError::Late(limit);
        self.sequence = self.sequence.wrapping_add(1);
        self.output.clear();
        let profile = self.profile;
        frame::request(&mut self.output, self.sequence, M::FUNCTION.id(), |body| {
            profile.encode_request(method, body)
        })?;
        let body_bytes = self.output.len().saturating_sub(RequestHeader::BYTES);
        if body_bytes > usize::try_from(MAX_REQUEST_BODY_BYTES).unwrap_or(usize::MAX) {
            return Err(EncodeError::TooLong(body_bytes).into());
        }
        self.write(deadline).map_err(|error| error.unwrap_or_else(late))?;
        self.input.clear();
        self.fill(ResponseHeader::BYTES, deadline).map_err(|error| error.unwrap_or_else(late))?;
        let malformed = |error| CallError::Malformed { function: M::FUNCTION, error };
        let corrupted = || CallError::Corrupted(M::FUNCTION);
        let head = self.input.first_chunk::<{ ResponseHeader::BYTES }>().ok_or_else(corrupted)?;
        let header = ResponseHeader::decode(head, MAX_RESPONSE_BODY_BYTES).map_err(malformed)?;
        if header.sequence != self.sequence {
            return Err(corrupted());
        }
        let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        let end = ResponseHeader::BYTES.saturating_add(size(header.body_bytes));
        let whole = end.saturating_add(size(header.attachment_bytes));
        self.fill(whole, deadline).map_err(|error| error.unwrap_or_else(late))?;
        if self.input.len() != whole {
            return Err(corrupted());
        }
        let body = self.input.get(ResponseHeader::BYTES..end).ok_or_else(corrupted)?;
        if header.error != 0 {
            return Err(CallError::Refused(RpcError::decode(header.error, body).map_err(malformed)?));
        }
        self.profile.decode_reply::<M>(body).map_err(malformed)
    }

    /// Writes the whole request; `None` is the deadline.
    fn write(&self, deadline: Deadline) -> Result<(), Option<CallError>> {
        let mut rest = self.output.as_slice();
        while !rest.is_empty() {
            match (&*self.stream).write(rest) {
                Ok(0) => return Err(Some(CallError::Closed)),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) => waited(error, deadline)?,
            }
        }
        Ok(())
    }

    /// Reads until at least so many bytes are there; `None` is the deadline.
    fn fill(&mut self, wanted: usize, deadline: Deadline) -> Result<(), Option<CallError>> {
        while self.input.len() < wanted {
            match (&*self.stream).read(&mut self.chunk) {
                Ok(0) => return Err(Some(CallError::Closed)),
                Ok(count) => self.input.extend_from_slice(self.chunk.get(..count).unwrap_or_default()),
                Err(error) => waited(error, deadline)?,
            }
        }
        Ok(())
    }
}

/// Goes on after a pause of the socket, unless the deadline has passed.
fn waited(error: std::io::Error, deadline: Deadline) -> Result<(), Option<CallError>> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock | ErrorKind::TimedOut if deadline.expired() => Err(None),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Err(Some(CallError::Closed))
        }
        _ => Err(Some(CallError::Broken(error))),
    }
}

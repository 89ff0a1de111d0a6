//! The masters, called: a bounded pool of connections, an address list, deadlines.
//!
//! A name is resolved again each time a connection is made, so that a master that has moved is found. Addresses are
//! tried in turn, beginning with the one that answered last; all of a client's calls, its heartbeat too, go to the same
//! one, since each master has a pool of its own. A call that must not be carried out twice is sent once;
//! the others are sent again on a new connection when the first one turns out to be dead.

mod connection;

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mooncake_wire::{ErrorCode, Method};
use parking_lot::{Condvar, Mutex};

use super::failure::{Failure, Outcome};
use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::error::{Code, Error, Result, Stage};

pub(super) use connection::{CallError, Connection};

/// Most connections to the master that calls use at a time; one more call waits for one, within its deadline.
pub const MAX_CONNECTIONS: usize = 32;
/// Most addresses of masters.
pub const MAX_MASTERS: usize = 16;
/// How often a call that may be repeated is sent.
pub const MAX_SENDS: usize = 2;
/// After all masters were found unreachable, calls fail at once for this long.
const COOL_DOWN: Duration = Duration::from_millis(100);
/// Port of an address that has none.
const DEFAULT_PORT: u16 = 50_051;

/// Whether a call may be sent again when it is not known whether the master has carried it out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The second time has the same effect and the same answer.
    Harmless,
    /// It is sent once.
    Never,
}

/// Time limits of the calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For an answer.
    pub(super) call: Duration,
    /// For a connection.
    pub(super) connect: Duration,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Connections in use or being made.
    leased: usize,
    /// The sockets of all, so that close can end them.
    streams: Vec<Weak<TcpStream>>,
    /// Why no master could be reached, and when.
    unreachable: Option<(Instant, Failure)>,
}

/// The masters; see the module.
pub(super) struct Master {
    addresses: Vec<Endpoint>,
    /// Which address answered last.
    current: AtomicUsize,
    limits: Limits,
    pool: Mutex<Pool>,
    returned: Condvar,
    closed: AtomicBool,
}

/// A place in the pool; given back when dropped.
struct Lease<'m>(&'m Master);

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.0.pool.lock().leased -= 1;
        self.0.returned.notify_one();
    }
}

impl Master {
    /// The masters of an address list. Nothing is connected yet.
    pub(super) fn new(list: &str, limits: Limits) -> Result<Self> {
        let mut addresses = Vec::new();
        if let Some((scheme, _)) = list.split_once("://") {
            let text = format!("masters found by {scheme} are not offered");
            return Err(Error::new(Code::NotImplemented, Stage::Configure, text)
                .advice("give the masters' addresses as host:port, separated by commas"));
        }
        for entry in list.split([',', ';']).map(str::trim).filter(|entry| !entry.is_empty()) {
            addresses.push(entry.parse::<Endpoint>()?);
        }
        if addresses.is_empty() || addresses.len() > MAX_MASTERS {
            let text = format!("{} addresses of masters; 1 to {MAX_MASTERS} are needed", addresses.len());
            return Err(Error::new(Code::InvalidArgument, Stage::Configure, text)
                .advice("give master_server_address as host:port"));
        }
        Ok(Self {
            addresses,
            current: AtomicUsize::new(0),
            limits,
            pool: Mutex::default(),
            returned: Condvar::new(),
            closed: AtomicBool::new(false),
        })
    }

    /// The time one call may take.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.limits.call)
    }

    /// Makes a call with the usual deadline.
    pub(super) fn call<'a, M: Method<'a>>(&self, method: &M, repeat: Repeat) -> Outcome<M::Reply> {
        self.call_by(method, repeat, self.deadline())
    }

    /// Makes a call.
    pub(super) fn call_by<'a, M: Method<'a>>(
        &self,
        method: &M,
        repeat: Repeat,
        deadline: Deadline,
    ) -> Outcome<M::Reply> {
        self.call_until(method, repeat, deadline).map(|(reply, _sent)| reply)
    }

    /// Makes a call that may be repeated, with the usual deadline; answers also how often it was sent.
    pub(super) fn call_counted<'a, M: Method<'a>>(&self, method: &M) -> Outcome<(M::Reply, usize)> {
        self.call_until(method, Repeat::Harmless, self.deadline())
    }

    fn call_until<'a, M: Method<'a>>(
        &self,
        method: &M,
        repeat: Repeat,
        deadline: Deadline,
    ) -> Outcome<(M::Reply, usize)> {
        let lease = self.lease(deadline)?;
        let mut sent = 0;
        loop {
            let mut connection = self.take(deadline)?;
            sent += 1;
            let failure = match connection.call(method, deadline) {
                Ok(reply) => {
                    self.give_back(connection, lease);
                    return Ok((reply, sent));
                }
                Err(error) => {
                    let closed = matches!(error, CallError::Closed | CallError::Broken(_));
                    let again = closed && repeat == Repeat::Harmless && sent < MAX_SENDS;
                    if again && !deadline.expired() && !self.closed.load(Ordering::Acquire) {
                        continue;
                    }
                    self.explain(&error)
                }
            };
            if connection.is_usable() {
                self.give_back(connection, lease);
            }
            return Err(failure);
        }
    }

    /// A connection outside of the pool: the heartbeat's.
    pub(super) fn connect(&self, deadline: Deadline) -> Outcome<Connection> {
        let mut last = None;
        let count = self.addresses.len();
        let first = self.current.load(Ordering::Relaxed);
        for step in 0..count {
            let index = first.wrapping_add(step) % count;
            let Some(endpoint) = self.addresses.get(index) else { continue };
            let deadline = deadline.sooner(Deadline::after(self.limits.connect));
            match open(endpoint, index, deadline) {
                Ok(connection) => {
                    self.current.store(index, Ordering::Relaxed);
                    let mut pool = self.pool.lock();
                    pool.streams.retain(|stream| stream.strong_count() > 0);
                    pool.streams.push(Arc::downgrade(connection.stream()));
                    drop(pool);
                    // Whoever closes shuts the streams that it finds, after it has said so.
                    if self.closed.load(Ordering::Acquire) {
                        return Err(closed());
                    }
                    return Ok(connection);
                }
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.unwrap_or_else(|| ErrorCode::RPC_FAIL.into()))
    }

    /// Whether a connection can be used for another call, and goes to the master that all calls go to.
    pub(super) fn serves(&self, connection: &Connection) -> bool {
        connection.master() == self.current.load(Ordering::Relaxed) && connection.is_usable()
    }

    /// Says why a call failed.
    pub(super) fn explain(&self, error: &CallError) -> Failure {
        let index = self.current.load(Ordering::Relaxed);
        let name = self.addresses.get(index).map_or_else(String::new, Endpoint::session);
        explain(error, &name)
    }

    /// Ends what is under way and refuses the rest.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let streams = {
            let mut pool = self.pool.lock();
            pool.idle.clear();
            std::mem::take(&mut pool.streams)
        };
        for stream in streams.iter().filter_map(Weak::upgrade) {
            let _ended = stream.shutdown(Shutdown::Both);
        }
        self.returned.notify_all();
    }

    fn lease(&self, deadline: Deadline) -> Outcome<Lease<'_>> {
        let mut pool = self.pool.lock();
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(closed());
            }
            if pool.leased < MAX_CONNECTIONS {
                pool.leased += 1;
                return Ok(Lease(self));
            }
            if self.returned.wait_until(&mut pool, deadline.at()).timed_out() {
                let text = format!("{MAX_CONNECTIONS} calls to the master are under way and none ends");
                let error = Error::new(Code::Timeout, Stage::Connect, text);
                return Err(Failure::new(ErrorCode::RPC_TIMEOUT, error));
            }
        }
    }

    fn take(&self, deadline: Deadline) -> Outcome<Connection> {
        loop {
            let idle = {
                let mut pool = self.pool.lock();
                let idle = pool.idle.pop();
                if idle.is_none()
                    && let Some((since, failure)) = &pool.unreachable
                    && since.elapsed() < COOL_DOWN
                {
                    return Err(failure.clone());
                }
                idle
            };
            match idle {
                Some(connection) if self.serves(&connection) => return Ok(connection),
                Some(_) => {}
                None => break,
            }
        }
        let connected = self.connect(deadline);
        self.pool.lock().unreachable = connected.as_ref().err().map(|error| (Instant::now(), error.clone()));
        connected
    }

    fn give_back(&self, connection: Connection, lease: Lease<'_>) {
        {
            let mut pool = self.pool.lock();
            if !self.closed.load(Ordering::Acquire) {
                pool.idle.push(connection);
            }
        }
        drop(lease);
    }
}

fn closed() -> Failure {
    Failure::new(
        ErrorCode::RPC_FAIL,
        Error::new(Code::StaleHandle, Stage::Configure, "the store is closed").advice("set it up again"),
    )
}

fn open(endpoint: &Endpoint, index: usize, deadline: Deadline) -> Outcome<Connection> {
    let name = endpoint.session();
    let resolved = endpoint.resolve_by(DEFAULT_PORT, deadline);
    let addresses = resolved.map_err(|error| Failure::new(ErrorCode::RPC_FAIL, error.peer(&name)))?;
    let mut last = None;
    for address in addresses {
        match Connection::open(address, index, deadline) {
            Ok(connection) => return Ok(connection),
            Err(error) => last = Some(error),
        }
    }
    Err(explain(&last.unwrap_or(CallError::Closed), &name))
}

fn explain(error: &CallError, name: &str) -> Failure {
    let (number, code, advice) = match error {
        CallError::Broken(_) | CallError::Closed => {
            (ErrorCode::RPC_FAIL, Code::Socket, "check that the master runs and is reachable")
        }
        CallError::Late(_) => (
            ErrorCode::RPC_TIMEOUT,
            Code::Timeout,
            "check the master; MC_RPC_TIMEOUT_MS and MC_RPC_CONNECT_TIMEOUT_MS set the limits",
        ),
        CallError::Refused(_) => {
            (ErrorCode::RPC_FAIL, Code::RejectHandshake, "use a client and a master of one release")
        }
        CallError::Malformed { .. } | CallError::Corrupted(_) => (
            ErrorCode::RPC_FAIL,
            Code::RejectHandshake,
            "what answers at the master's address is no master of a known release",
        ),
        CallError::Unwritable(_) => (ErrorCode::INVALID_PARAMS, Code::InvalidArgument, "split the call"),
    };
    let stage = if matches!(error, CallError::Unwritable(_)) { Stage::Submit } else { Stage::Connect };
    Failure::new(
        number,
        Error::new(code, stage, error.to_string()).peer(format!("master {name}")).advice(advice),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { call: Duration::from_secs(5), connect: Duration::from_secs(5) };

    #[test]
    fn an_address_list_is_read() {
        let master = Master::new("a:1, [::1]:2;c", LIMITS).unwrap();
        let names: Vec<_> = master.addresses.iter().map(Endpoint::session).collect();
        assert_eq!(names, ["a:1", "[::1]:2", "c"]);
        for list in ["", " , ", "etcd://a:1", "a:b"] {
            assert!(Master::new(list, LIMITS).is_err(), "{list:?}");
        }
    }

    #[test]
    fn a_master_that_is_not_there_is_an_error_at_once() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let master = Master::new(&format!("127.0.0.1:{port}"), LIMITS).unwrap();
        let ping = mooncake_wire::method::ServiceReady {};
        let start = Instant::now();
        let failure = master.call(&ping, Repeat::Harmless).unwrap_err();
        assert_eq!(failure.code(), ErrorCode::RPC_FAIL);
        assert!(failure.to_string().contains("127.0.0.1"), "{failure}");
        assert!(start.elapsed() < LIMITS.call);
        master.close();
        assert!(master.call(&ping, Repeat::Harmless).unwrap_err().to_string().contains("closed"));
    }
}

//! Memory that this process offers to others under a number (facts 1.6, sharing): who may have it, and the exchange
//! of the open file behind it.
//!
//! A process that shares listens on one abstract socket, named by its *token*, a random number that is the upper half
//! of every number it gives out; so a number is enough to find its process, and a dead process's numbers find nobody.
//! The kernel tells who asks; the list of allowed processes is checked here, in the owner.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::arena::{self, Arena};
use crate::clock::{self, Deadline};
use crate::copy;
use crate::fd_channel;
use crate::settings::settings;
use crate::status::{Fail, Outcome, acl};

/// How long one exchange may take.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// Attempts to find a token that nobody has.
const TOKEN_ATTEMPTS: u32 = 16;

/// What is offered.
#[derive(Debug, Clone)]
pub struct Offered {
    /// A second number that an importer must know; 0 where the first one is all there is.
    pub secret: u64,
    /// The memory.
    pub arena: Arc<Arena>,
    /// First byte in the arena's file.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
    /// 4096, 2 MiB or 1 GiB.
    pub page_size: usize,
    /// The device that holds it; None for host memory.
    pub physical_id: Option<u32>,
    /// Whether only listed processes may have it.
    pub is_restricted: bool,
    /// Whether other servers of the super pod may have it.
    pub crosses_servers: bool,
    /// The processes that may.
    pub process_ids: Vec<i32>,
}

/// What an importer receives.
#[derive(Debug)]
pub struct Received {
    /// The file.
    pub file: OwnedFd,
    /// First byte in the file.
    pub offset: usize,
    /// Bytes.
    pub length: usize,
    /// 4096, 2 MiB or 1 GiB.
    pub page_size: usize,
    /// The device that holds it; None for host memory.
    pub physical_id: Option<u32>,
}

#[derive(Default)]
struct Offers {
    /// The process that listens, which a fork changes.
    process_id: i32,
    token: u32,
    next: u32,
    offered: HashMap<u64, Offered>,
}

static OFFERS: LazyLock<Mutex<Offers>> = LazyLock::new(Mutex::default);

/// Answers of the owner.
const GRANTED: u64 = 0;
const UNKNOWN: u64 = 1;
const FORBIDDEN: u64 = 2;
const TOO_FAR: u64 = 3;

fn address(token: u64) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("cann-sim-share/{}/{token:08x}", settings().namespace))
}

/// A number that nobody can guess.
pub fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the buffer has the length that is given.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if filled == 8 {
        u64::from_le_bytes(bytes)
    } else {
        // Without the kernel's numbers the clock and the process must do.
        clock::now_us() ^ (u64::from(std::process::id()) << 32)
    }
}

/// Offers memory and answers its number.
pub fn offer(offered: Offered) -> Outcome<u64> {
    let failed = |error: io::Error| {
        Fail::new(acl::DRV_INTERNAL_ERROR, format!("cannot share memory with other processes: {error}"))
    };
    let mut offers = OFFERS.lock();
    if offers.process_id != copy::own_pid() {
        // After a fork the parent's offers stay the parent's.
        *offers =
            Offers { process_id: copy::own_pid(), token: listen().map_err(failed)?, ..Offers::default() };
    }
    offers.next += 1;
    let id = (u64::from(offers.token) << 32) | u64::from(offers.next);
    offers.offered.insert(id, offered);
    Ok(id)
}

/// Changes an offer of this process; false when it has none of that number.
pub fn change(id: u64, change: impl FnOnce(&mut Offered)) -> bool {
    OFFERS.lock().offered.get_mut(&id).map(change).is_some()
}

/// Takes an offer back; false when this process has none of that number.
pub fn withdraw(id: u64) -> bool {
    OFFERS.lock().offered.remove(&id).is_some()
}

/// Whether the number is of this process.
pub fn is_own(id: u64) -> bool {
    let offers = OFFERS.lock();
    offers.process_id == copy::own_pid() && u64::from(offers.token) == id >> 32
}

fn listen() -> io::Result<u32> {
    for _ in 0..TOKEN_ATTEMPTS {
        let token = u32::try_from(random() >> 33).unwrap_or(1);
        match UnixListener::bind_addr(&address(u64::from(token))?) {
            Ok(listener) => {
                std::thread::Builder::new().name("cann-sim-share".to_owned()).spawn(move || {
                    for client in listener.incoming().flatten() {
                        // A client that goes away or talks nonsense gets no memory.
                        let _ = serve(&client);
                    }
                })?;
                return Ok(token);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The process at the other end, as the kernel knows it.
fn peer_process(socket: &UnixStream) -> io::Result<i32> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the buffer is a ucred and its length is given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(credentials.pid) } else { Err(io::Error::last_os_error()) }
}

fn send(socket: &UnixStream, words: &[u64], deadline: Deadline) -> io::Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    fd_channel::send(socket, &bytes, deadline)
}

fn receive<const COUNT: usize>(socket: &UnixStream, deadline: Deadline) -> io::Result<[u64; COUNT]> {
    let mut words = [0; COUNT];
    for word in &mut words {
        let mut bytes = [0; 8];
        fd_channel::receive(socket, &mut bytes, deadline)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

/// Where a process is: server and super pod.
fn own_place() -> (u64, u64) {
    (u64::from(settings().server_index), u64::from(settings().super_pod_id))
}

fn word(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn serve(socket: &UnixStream) -> io::Result<()> {
    let deadline = Instant::now().checked_add(EXCHANGE_LIMIT);
    let [id, secret, server, super_pod] = receive::<4>(socket, deadline)?;
    let process_id = peer_process(socket)?;
    let found = OFFERS.lock().offered.get(&id).filter(|offered| offered.secret == secret).cloned();
    let verdict = match &found {
        None => UNKNOWN,
        Some(offered) => {
            let (own_server, own_super_pod) = own_place();
            let is_near = server == own_server && super_pod == own_super_pod;
            let is_reachable =
                is_near || (offered.crosses_servers && settings().is_a3 && super_pod == own_super_pod);
            if !is_reachable {
                TOO_FAR
            } else if offered.is_restricted && !offered.process_ids.contains(&process_id) {
                FORBIDDEN
            } else {
                GRANTED
            }
        }
    };
    let (Some(offered), GRANTED) = (found, verdict) else { return send(socket, &[verdict], deadline) };
    let file = offered.arena.fd().try_clone_to_owned()?;
    let place = offered.physical_id.map_or(u64::MAX, u64::from);
    let words = [GRANTED, word(offered.offset), word(offered.length), word(offered.page_size), place];
    send(socket, &words, deadline)?;
    fd_channel::send_files(socket, &[file], deadline)
}

/// Asks the owner of a number for its memory.
pub fn import(id: u64, secret: u64) -> Outcome<Received> {
    let deadline = Instant::now().checked_add(EXCHANGE_LIMIT);
    let exchange = || {
        let socket = UnixStream::connect_addr(&address(id >> 32)?)?;
        let (server, super_pod) = own_place();
        send(&socket, &[id, secret, server, super_pod], deadline)?;
        let [verdict] = receive::<1>(&socket, deadline)?;
        if verdict != GRANTED {
            return Ok(Err(verdict));
        }
        let [offset, length, page_size, place] = receive::<4>(&socket, deadline)?;
        let file =
            fd_channel::receive_files(&socket, 1, deadline)?.pop().ok_or(io::ErrorKind::InvalidData)?;
        let size = |value: u64| usize::try_from(value).map_err(|_| io::ErrorKind::InvalidData);
        let (offset, length, page_size) = (size(offset)?, size(length)?, size(page_size)?);
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidData)?;
        if !arena::is_sealed(file.as_fd(), end) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Ok(Received { file, offset, length, page_size, physical_id: u32::try_from(place).ok() }))
    };
    match exchange() {
        Ok(Ok(received)) => Ok(received),
        Ok(Err(FORBIDDEN)) => Err(Fail::new(
            acl::NO_PERMISSION,
            "the owner of the shared memory did not list this process; it does so by the process id that \
             aclrtDeviceGetBareTgid answers",
        )),
        Ok(Err(TOO_FAR)) => Err(Fail::new(
            acl::FEATURE_NOT_SUPPORT,
            "the shared memory is in another server; only fabric handles cross servers, inside one A3 super pod",
        )),
        Ok(Err(_)) => {
            Err(Fail::new(acl::DRV_INTERNAL_ERROR, "the owner does not share this memory any more"))
        }
        Err(error) => Err(Fail::new(
            acl::DRV_INTERNAL_ERROR,
            format!("the process that shares the memory cannot be reached: {error}"),
        )),
    }
}

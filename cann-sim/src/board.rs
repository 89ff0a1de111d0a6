//! The board: what all processes of a namespace know together, which is how much memory of each NPU is in
//! use, the counters of fault rules that go over processes, and the times of the cost model's resources.
//!
//! It is one sealed memfd, mapped by every process. No file names it and nobody serves it: a process that has
//! it binds an abstract socket whose name says under which descriptor, and a newcomer opens that descriptor
//! in `/proc`. Each process writes into its own slot and holds a lock of the kernel's on the slot's number.
//! The lock ends with the process, however it ends, and then the next one to look takes the slot for empty: a
//! killed process gives its memory back, and when the last one is gone the board is gone.
//!
//! Where a process cannot reach the others (no `/proc`, another process or network namespace), it has a board
//! of its own; that is told once on the standard error output when it is an error.
//!
//! Locks: `BOARD` is a leaf in the process; the kernel's lock on byte 0 is taken under it, for a few
//! microseconds.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::arena;
use crate::cost::ledger::{self, Ledger, RESOURCE_WORDS, RESOURCES};
use crate::rendezvous;
use crate::settings::settings;

/// "cannsimc", version 2 of the layout.
const MAGIC: u64 = 0x6361_6e6e_7369_6d63;
/// Processes of one namespace.
const SLOTS: usize = 256;
/// NPUs a process can hold memory of.
const ENTRIES: usize = 64;
/// Counters of rules.
const COUNTERS: usize = 256;
/// Place, device and bytes.
const ENTRY_WORDS: usize = 3;
const SLOT_WORDS: usize = 1 + ENTRIES * ENTRY_WORDS;
const COUNTERS_AT: usize = 1;
const SLOTS_AT: usize = COUNTERS_AT + COUNTERS * 2;
const LEDGER_AT: usize = SLOTS_AT + SLOTS * SLOT_WORDS;
const WORDS: usize = LEDGER_AT + RESOURCES * RESOURCE_WORDS;
/// Name of the memfd, as `/proc` shows it.
const NAME: &std::ffi::CStr = c"cann-sim-board";
/// How long a process waits for others that are looking for the board.
const SEARCH_LIMIT: Duration = Duration::from_secs(5);
const SEARCH_PAUSE: Duration = Duration::from_millis(1);

/// One NPU among all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Npu {
    /// Super pod and server in one number.
    pub server: u64,
    /// Physical id.
    pub physical_id: u32,
}

/// Memory that a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The process.
    pub process: u64,
    /// The NPU.
    pub npu: Npu,
    /// Bytes.
    pub bytes: u64,
}

/// A mapped board.
struct Board {
    words: &'static [AtomicU64],
    file: File,
    /// The process that claimed the slot; another one after a fork.
    owner: u32,
    slot: usize,
    /// Tells newcomers where the board is; gone with the process.
    _sign: Option<UnixDatagram>,
}

static BOARD: Mutex<Option<Board>> = Mutex::new(None);

fn sign_prefix(namespace: &str) -> String {
    format!("cann-sim-board/{}/", rendezvous::key(&[namespace.as_bytes()]))
}

/// Locks or unlocks one byte of the file for this process; without `wait` a lock of another process is an
/// error.
fn lock_byte(file: &File, byte: usize, kind: i32, wait: bool) -> io::Result<()> {
    let request = flock(byte, kind)?;
    let command = if wait { libc::F_SETLKW } else { libc::F_SETLK };
    loop {
        // SAFETY: the descriptor is open and the request is a plain struct that outlives the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const request) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether another process holds the lock on a byte.
fn is_locked(file: &File, byte: usize) -> io::Result<bool> {
    let mut request = flock(byte, libc::F_WRLCK)?;
    // SAFETY: as in `lock_byte`; the kernel writes its answer into the struct.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(request.l_type) != libc::F_UNLCK)
}

fn flock(byte: usize, kind: i32) -> io::Result<libc::flock> {
    // SAFETY: all bytes zero is a valid value of this plain struct.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::c_short::try_from(kind).map_err(|_| io::ErrorKind::InvalidInput)?;
    request.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(|_| io::ErrorKind::InvalidInput)?;
    request.l_start = libc::off_t::try_from(byte).map_err(|_| io::ErrorKind::InvalidInput)?;
    request.l_len = 1;
    Ok(request)
}

fn map(file: &File) -> io::Result<&'static [AtomicU64]> {
    let mapping = arena::Mapping::new(file.as_fd(), 0, WORDS * 8, libc::PROT_READ | libc::PROT_WRITE)?;
    let base = mapping.base() as *const AtomicU64;
    // A board stays mapped for the life of the process.
    std::mem::forget(mapping);
    // SAFETY: the mapping is aligned, long enough, sealed against shrinking and never unmapped; every process
    // touches it through atomics only.
    Ok(unsafe { std::slice::from_raw_parts(base, WORDS) })
}

/// The boards that processes of the namespace show, by process and descriptor.
fn signs(namespace: &str) -> io::Result<Vec<(u32, u32)>> {
    let wanted = format!("@{}", sign_prefix(namespace));
    let text = std::fs::read_to_string("/proc/net/unix")?;
    let place = |line: &str| {
        let (process, descriptor) = line.split_whitespace().nth(7)?.strip_prefix(&wanted)?.split_once('/')?;
        Some((process.parse().ok()?, descriptor.parse().ok()?))
    };
    Ok(text.lines().filter_map(place).collect())
}

/// Opens the board that another process shows; none when that process is gone or shows something else.
fn open_shown(process: u32, descriptor: u32) -> Option<(File, &'static [AtomicU64])> {
    let path = format!("/proc/{process}/fd/{descriptor}");
    let target = std::fs::read_link(&path).ok()?;
    if !target.to_str()?.starts_with(&format!("/memfd:{}", NAME.to_str().ok()?)) {
        return None;
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path).ok()?;
    if !arena::is_sealed(file.as_fd(), WORDS * 8) {
        return None;
    }
    let words = map(&file).ok()?;
    (words.first()?.load(Ordering::Acquire) == MAGIC).then_some((file, words))
}

/// Only one process of the namespace looks for the board at a time, so that two first ones do not make two.
fn search_turn(namespace: &str) -> io::Result<UnixDatagram> {
    let name = format!("cann-sim-board-search/{}", rendezvous::key(&[namespace.as_bytes()]));
    let address = SocketAddr::from_abstract_name(name)?;
    let deadline = Instant::now() + SEARCH_LIMIT;
    loop {
        match UnixDatagram::bind_addr(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(SEARCH_PAUSE);
            }
            other => return other,
        }
    }
}

fn find_shown(namespace: &str) -> io::Result<Option<(File, &'static [AtomicU64])>> {
    Ok(signs(namespace)?.into_iter().find_map(|(process, descriptor)| open_shown(process, descriptor)))
}

fn create() -> io::Result<(File, &'static [AtomicU64])> {
    let file = File::from(arena::sealed_memfd(NAME, WORDS * 8)?);
    let words = map(&file)?;
    if let Some(magic) = words.first() {
        magic.store(MAGIC, Ordering::Release);
    }
    Ok((file, words))
}

impl Board {
    fn attach(namespace: &str) -> io::Result<Self> {
        let _turn = search_turn(namespace)?;
        let (file, words) = match find_shown(namespace)? {
            Some(found) => found,
            None => create()?,
        };
        Self::claim(file, words, namespace)
    }

    /// Takes a free slot and shows the board to newcomers.
    fn claim(file: File, words: &'static [AtomicU64], namespace: &str) -> io::Result<Self> {
        let slot = (0..SLOTS)
            .find(|slot| lock_byte(&file, 1 + slot, libc::F_WRLCK, false).is_ok())
            .ok_or_else(|| io::Error::other(format!("more than {SLOTS} processes share the namespace")))?;
        let owner = std::process::id();
        let name = format!("{}{owner}/{}", sign_prefix(namespace), file.as_raw_fd());
        let sign = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        let board = Self { words, file, owner, slot, _sign: Some(sign) };
        board.clear(slot);
        board.store(board.slot_at(slot), u64::from(owner));
        Ok(board)
    }

    fn slot_at(&self, slot: usize) -> usize {
        SLOTS_AT + slot * SLOT_WORDS
    }

    fn load(&self, at: usize) -> u64 {
        self.words.get(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.words.get(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn clear(&self, slot: usize) {
        let first = self.slot_at(slot);
        for at in first..first + SLOT_WORDS {
            self.store(at, 0);
        }
    }

    /// Runs `work` while no other process changes the board.
    fn locked<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        lock_byte(&self.file, 0, libc::F_WRLCK, true)?;
        let result = work();
        lock_byte(&self.file, 0, libc::F_UNLCK, false)?;
        Ok(result)
    }

    /// What live processes hold; slots of dead ones are cleared. To be called under the lock.
    fn usage(&self) -> Vec<Usage> {
        let mut found = Vec::new();
        for slot in 0..SLOTS {
            let first = self.slot_at(slot);
            let process = self.load(first);
            if process == 0 {
                continue;
            }
            if slot != self.slot && !is_locked(&self.file, 1 + slot).unwrap_or(true) {
                self.clear(slot);
                continue;
            }
            for entry in 0..ENTRIES {
                let at = first + 1 + entry * ENTRY_WORDS;
                let (server, device, bytes) = (self.load(at), self.load(at + 1), self.load(at + 2));
                if let (Some(device), true) = (device.checked_sub(1), bytes > 0) {
                    let npu = Npu { server, physical_id: u32::try_from(device).unwrap_or(u32::MAX) };
                    found.push(Usage { process, npu, bytes });
                }
            }
        }
        found
    }

    /// The word that holds our bytes of an NPU, made when it is missing.
    fn own_bytes(&self, npu: Npu) -> Option<&'static AtomicU64> {
        let first = self.slot_at(self.slot) + 1;
        let device = u64::from(npu.physical_id) + 1;
        for at in (0..ENTRIES).map(|entry| first + entry * ENTRY_WORDS) {
            let empty = self.load(at + 1) == 0;
            if empty {
                self.store(at, npu.server);
                self.store(at + 1, device);
            }
            if empty || (self.load(at), self.load(at + 1)) == (npu.server, device) {
                return self.words.get(at + 2);
            }
        }
        None
    }

    /// The counter of a text, made when it is missing.
    fn counter(&self, text: &str) -> Option<&'static AtomicU64> {
        let key = u64::from_str_radix(rendezvous::key(&[text.as_bytes()]).get(..16)?, 16).ok()?.max(1);
        (0..COUNTERS).map(|index| COUNTERS_AT + index * 2).find_map(|at| {
            if self.load(at) == 0 {
                self.store(at, key);
            }
            if self.load(at) == key { self.words.get(at + 1) } else { None }
        })
    }
}

/// Runs `work` on the board, attached and claimed for this process; None when there is none.
fn with<T>(work: impl FnOnce(&Board) -> io::Result<T>) -> Option<T> {
    let mut place = BOARD.lock();
    let attached = match place.take() {
        Some(board) if board.owner == std::process::id() => Ok(board),
        // After a fork: the slot is the parent's, its locks are not ours.
        Some(board) => Board::claim(board.file, board.words, &settings().namespace),
        None => Board::attach(&settings().namespace),
    };
    let result = attached.and_then(|board| work(place.insert(board)));
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            static ONCE: std::sync::Once = std::sync::Once::new();
            ONCE.call_once(|| {
                // As the settings do: whoever runs the process must see it.
                let _ =
                    writeln!(io::stderr(), "cann-sim: the other processes of the NPUs are not seen: {error}");
            });
            None
        }
    }
}

/// Charges memory of an NPU to this process, unless all processes together would hold more than `limit`
/// bytes. None when the other processes cannot be seen.
pub fn charge(npu: Npu, bytes: u64, limit: u64) -> Option<bool> {
    with(|board| {
        board.locked(|| {
            let used: u64 =
                board.usage().iter().filter(|usage| usage.npu == npu).map(|usage| usage.bytes).sum();
            let fits = used.checked_add(bytes).is_some_and(|sum| sum <= limit);
            if fits && let Some(own) = board.own_bytes(npu) {
                own.fetch_add(bytes, Ordering::AcqRel);
            }
            fits
        })
    })
}

/// Gives a charge back.
pub fn discharge(npu: Npu, bytes: u64) {
    // Without a board there was no charge.
    let _ = with(|board| {
        board.locked(|| {
            if let Some(own) = board.own_bytes(npu) {
                own.store(own.load(Ordering::Acquire).saturating_sub(bytes), Ordering::Release);
            }
        })
    });
}

/// Bytes of an NPU that all processes hold. None when the other processes cannot be seen.
pub fn used_bytes(npu: Npu) -> Option<u64> {
    with(|board| {
        board.locked(|| board.usage().iter().filter(|usage| usage.npu == npu).map(|usage| usage.bytes).sum())
    })
}

/// Counts one more of what `text` names over all processes; answers how many there were before.
pub fn count(text: &str) -> u64 {
    let counted = with(|board| {
        board.locked(|| board.counter(text).map(|counter| counter.fetch_add(1, Ordering::AcqRel)))
    });
    // Without a board, or with all counters taken, no call is the Nth of all processes.
    counted.flatten().unwrap_or(u64::MAX - 1)
}

/// The words of the cost model's resources. None when the other processes cannot be seen.
pub fn ledger() -> Option<&'static [AtomicU64]> {
    with(|board| Ok(board.words.get(LEDGER_AT..WORDS).unwrap_or_default()))
}

/// What the processes of a namespace took of the cost model's resources; empty when there are none.
pub fn resources(namespace: &str) -> io::Result<Vec<ledger::Usage>> {
    let words = find_shown(namespace)?.and_then(|(_, words)| words.get(LEDGER_AT..WORDS));
    Ok(words.map(|words| Ledger::over(words).usage()).unwrap_or_default())
}

/// What the processes of a namespace hold, for a process that holds nothing itself (its own locks would end
/// with the look); empty when there are none.
pub fn usage(namespace: &str) -> io::Result<Vec<Usage>> {
    let Some((file, words)) = find_shown(namespace)? else { return Ok(Vec::new()) };
    let board = Board { words, file, owner: 0, slot: SLOTS, _sign: None };
    board.locked(|| board.usage())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_end_with_what_fits() {
        let npu = Npu { server: 77, physical_id: std::process::id() };
        assert_eq!(charge(npu, 60, 100), Some(true));
        assert_eq!(charge(npu, 50, 100), Some(false));
        assert_eq!(used_bytes(npu), Some(60));
        discharge(npu, 20);
        assert_eq!(charge(npu, 50, 100), Some(true));
        assert_eq!(used_bytes(npu), Some(90));
        discharge(npu, 90);
    }

    #[test]
    fn counters_are_found_by_their_text() {
        let text = format!("rule of {}", std::process::id());
        assert_eq!([count(&text), count(&text)], [0, 1]);
        assert_eq!(count(&format!("{text}!")), 0);
    }
}

//! The engine through its C interface, as any program sees it: found by the loader, called by address.
//!
//! One of the few modules of this crate with `unsafe`: a benchmark that is to
//! prove the C interface has to call it. Nothing unsafe leaves the module. Functions of
//! `mooncake_transfer.h` are optional, so that a library with upstream's interface alone can be measured too.

#![expect(unsafe_code, reason = "the C interface is what is measured")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

/// The library's name.
pub const LIBRARY_NAME: &str = "libmooncake_transfer.so";

/// Fetch from, or store to, the target: the numbers of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The target's memory is read.
    Read,
    /// The target's memory is written.
    Write,
}

impl Operation {
    /// As in upstream's `--operation`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// `struct transfer_request`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Request {
    opcode: c_int,
    source: *mut c_void,
    target_id: i32,
    target_offset: u64,
    length: u64,
}

// SAFETY: the address in it is a number to this program; nobody here follows it.
unsafe impl Send for Request {}
// SAFETY: as above.
unsafe impl Sync for Request {}

impl Request {
    /// A request that moves `length_bytes` between the local and the remote address.
    #[must_use]
    pub fn new(operation: Operation, local: u64, segment: i32, remote: u64, length_bytes: u64) -> Self {
        Self {
            opcode: match operation {
                Operation::Read => 0,
                Operation::Write => 1,
            },
            source: std::ptr::with_exposed_provenance_mut(usize::try_from(local).unwrap_or(0)),
            target_id: segment,
            target_offset: remote,
            length: length_bytes,
        }
    }
}

/// `struct transfer_status`.
#[repr(C)]
#[derive(Default)]
struct Status {
    status: c_int,
    transferred_bytes: u64,
}

/// `struct notify_msg`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    name: *mut c_char,
    text: *mut c_char,
}

/// `struct mooncake_transfer_error`.
#[repr(C)]
struct ErrorRecord {
    struct_size: usize,
    code: i32,
    stage: i32,
    negative: i32,
    status: i32,
    known: u32,
    device: i32,
    range_start: u64,
    range_length_bytes: u64,
    vendor_code: i32,
    reserved: i32,
    code_name: *const c_char,
    stage_name: *const c_char,
    message: *const c_char,
    peer: *const c_char,
    vendor_function: *const c_char,
    vendor_text: *const c_char,
    vendor_log: *const c_char,
    advice: *const c_char,
    text: *const c_char,
}

const _: () = {
    assert!(size_of::<Request>() == 40);
    assert!(size_of::<Status>() == 16);
    assert!(size_of::<Message>() == 16);
};

const STATUS_COMPLETED: c_int = 4;
const STATUS_FAILED: c_int = 6;
const INVALID_BATCH: u64 = u64::MAX;

type EngineHandle = *mut c_void;
type Create = unsafe extern "C" fn(*const c_char, *const c_char, *const c_char, u64, c_int) -> EngineHandle;
type Destroy = unsafe extern "C" fn(EngineHandle);
type LocalName = unsafe extern "C" fn(EngineHandle, *mut c_char, usize) -> c_int;
type Install = unsafe extern "C" fn(EngineHandle, *const c_char, *mut *mut c_void) -> *mut c_void;
type Open = unsafe extern "C" fn(EngineHandle, *const c_char) -> i32;
type Register = unsafe extern "C" fn(EngineHandle, *mut c_void, usize, *const c_char, c_int) -> c_int;
type Unregister = unsafe extern "C" fn(EngineHandle, *mut c_void) -> c_int;
type Allocate = unsafe extern "C" fn(EngineHandle, usize) -> u64;
type Submit = unsafe extern "C" fn(EngineHandle, u64, *mut Request, usize) -> c_int;
type Poll = unsafe extern "C" fn(EngineHandle, u64, usize, *mut Status) -> c_int;
type Free = unsafe extern "C" fn(EngineHandle, u64) -> c_int;
type TakeNotes = unsafe extern "C" fn(EngineHandle, *mut c_int) -> *mut Message;
type FreeNotes = unsafe extern "C" fn(*mut Message, c_int) -> c_int;
type SendNote = unsafe extern "C" fn(EngineHandle, u64, Message) -> c_int;
type Wait = unsafe extern "C" fn(EngineHandle, u64, i64) -> c_int;
type Version = unsafe extern "C" fn() -> *const c_char;
type LastError = unsafe extern "C" fn(*mut ErrorRecord) -> c_int;

/// The opened library; it is never closed, since its threads may outlive any scope here.
pub struct Library {
    path: PathBuf,
    create: Create,
    destroy: Destroy,
    local_name: LocalName,
    install: Install,
    open: Open,
    register: Register,
    unregister: Unregister,
    allocate: Allocate,
    submit: Submit,
    poll: Poll,
    free: Free,
    take_notes: TakeNotes,
    free_notes: FreeNotes,
    send_note: SendNote,
    wait: Option<Wait>,
    version: Option<Version>,
    last_error: Option<LastError>,
}

impl Library {
    /// Opens the library at `path`, or else the one beside this program, in the `lib` directory beside that of
    /// this program, or on the loader's path.
    ///
    /// # Errors
    /// If there is none, or it lacks a function of `transfer_engine_c.h` that is called here.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let path = path.map_or_else(find, Path::to_path_buf);
        // SAFETY: initialisers of the engine's library start nothing and touch nothing of ours.
        let handle = unsafe { Handle::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }
            .with_context(|| format!("cannot open the engine's library {}", path.display()))?;
        // SAFETY: every type below is that of the function's declaration in the two headers.
        let library = unsafe {
            Self {
                create: required(&handle, "createTransferEngine")?,
                destroy: required(&handle, "destroyTransferEngine")?,
                local_name: required(&handle, "getLocalIpAndPort")?,
                install: required(&handle, "installTransport")?,
                open: required(&handle, "openSegment")?,
                register: required(&handle, "registerLocalMemory")?,
                unregister: required(&handle, "unregisterLocalMemory")?,
                allocate: required(&handle, "allocateBatchID")?,
                submit: required(&handle, "submitTransfer")?,
                poll: required(&handle, "getTransferStatus")?,
                free: required(&handle, "freeBatchID")?,
                take_notes: required(&handle, "getNotifsFromEngine")?,
                free_notes: required(&handle, "freeNotifsMsgBuf")?,
                send_note: required(&handle, "genNotifyInEngine")?,
                wait: optional(&handle, "mooncake_transfer_wait"),
                version: optional(&handle, "mooncake_transfer_version"),
                last_error: optional(&handle, "mooncake_transfer_last_error"),
                path,
            }
        };
        // The function addresses above must stay valid for the life of the process.
        let _address = handle.into_raw();
        Ok(library)
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version; unknown for a library that has upstream's interface alone.
    #[must_use]
    pub fn version(&self) -> String {
        // SAFETY: the function cannot fail and its text is static.
        self.version.map_or_else(|| "unknown".to_owned(), |version| unsafe { text(version()) })
    }

    /// The calling thread's last failure in words.
    fn failure(&self, what: &str) -> anyhow::Error {
        let Some(last_error) = self.last_error else { return anyhow!("{what}") };
        // SAFETY: all-zero is a valid record: numbers and null texts.
        let mut record: ErrorRecord = unsafe { std::mem::zeroed() };
        record.struct_size = size_of::<ErrorRecord>();
        // SAFETY: the record is ours and says its size; its texts live until this thread asks again.
        let words = unsafe {
            if last_error(&raw mut record) == 0 { text(record.text) } else { "no record".to_owned() }
        };
        anyhow!("{what}: {words}")
    }
}

fn find() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_path_buf));
    let candidates = beside.iter().flat_map(|directory| [directory.clone(), directory.join("../lib")]);
    candidates
        .map(|directory| directory.join(LIBRARY_NAME))
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(LIBRARY_NAME))
}

/// # Safety
/// `F` must be the type of the function of that name.
unsafe fn required<F: Copy>(handle: &Handle, name: &str) -> Result<F> {
    // SAFETY: the caller vouches for the type.
    let symbol = unsafe { handle.get::<F>(name.as_bytes()) };
    symbol.map(|symbol| *symbol).with_context(|| format!("the library has no {name}"))
}

/// # Safety
/// `F` must be the type of the function of that name.
unsafe fn optional<F: Copy>(handle: &Handle, name: &str) -> Option<F> {
    // SAFETY: the caller vouches for the type.
    unsafe { handle.get::<F>(name.as_bytes()) }.ok().map(|symbol| *symbol)
}

/// # Safety
/// `pointer` must be null or a text closed by NUL.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// An engine; dropping it destroys it.
pub struct Engine<'library> {
    library: &'library Library,
    handle: EngineHandle,
}

// SAFETY: any thread may call any function of the interface (both headers say so).
unsafe impl Send for Engine<'_> {}
// SAFETY: as above.
unsafe impl Sync for Engine<'_> {}

impl<'library> Engine<'library> {
    /// Makes an engine and installs a transport.
    ///
    /// # Errors
    /// If either fails; the text is the library's own record.
    pub fn new(
        library: &'library Library,
        metadata: &str,
        local_name: &str,
        auto_discover: bool,
    ) -> Result<Self> {
        let metadata = CString::new(metadata)?;
        let name = CString::new(local_name)?;
        // SAFETY: three texts closed by NUL that outlive the call.
        let handle = unsafe {
            (library.create)(metadata.as_ptr(), name.as_ptr(), name.as_ptr(), 0, c_int::from(auto_discover))
        };
        if handle.is_null() {
            return Err(library.failure("cannot create an engine"));
        }
        Ok(Self { library, handle })
    }

    /// Installs a transport, with a NIC priority matrix if there is one.
    ///
    /// # Errors
    /// If the library does not offer it.
    pub fn install(&self, protocol: &str, priority_matrix: Option<&str>) -> Result<()> {
        let name = CString::new(protocol)?;
        let matrix = priority_matrix.map(CString::new).transpose()?;
        let first = matrix.as_ref().map_or(std::ptr::null_mut(), |text| text.as_ptr().cast_mut().cast());
        let mut arguments: [*mut c_void; 2] = [first, std::ptr::null_mut()];
        // SAFETY: the name and the array outlive the call; the array is closed by a null.
        let transport = unsafe { (self.library.install)(self.handle, name.as_ptr(), arguments.as_mut_ptr()) };
        if transport.is_null() {
            return Err(self.library.failure(&format!("cannot install the transport {protocol}")));
        }
        Ok(())
    }

    /// The name that peers open.
    ///
    /// # Errors
    /// If the library does not tell it.
    pub fn local_name(&self) -> Result<String> {
        let mut buffer = [0_u8; 256];
        // SAFETY: the buffer is ours and as long as said.
        let code =
            unsafe { (self.library.local_name)(self.handle, buffer.as_mut_ptr().cast(), buffer.len()) };
        if code != 0 {
            return Err(self.library.failure("cannot get the engine's name"));
        }
        let name = CStr::from_bytes_until_nul(&buffer)?.to_str()?;
        // The interface prints no brackets, but a name with an IPv6 host opens only with them.
        match name.rsplit_once(':') {
            Some((host, port)) if host.contains(':') && !host.starts_with('[') => {
                Ok(format!("[{host}]:{port}"))
            }
            _ => Ok(name.to_owned()),
        }
    }

    /// Opens a peer's segment.
    ///
    /// # Errors
    /// If the peer does not answer.
    pub fn open(&self, name: &str) -> Result<i32> {
        let text = CString::new(name)?;
        // SAFETY: a text closed by NUL that outlives the call.
        let id = unsafe { (self.library.open)(self.handle, text.as_ptr()) };
        if id < 0 { Err(self.library.failure(&format!("cannot open segment {name}"))) } else { Ok(id) }
    }

    /// Registers memory that lives until [`Engine::unregister`] or the end of the engine.
    ///
    /// # Errors
    /// If the library refuses it.
    pub fn register(&self, address: u64, length_bytes: u64, location: &str) -> Result<()> {
        let location = CString::new(location)?;
        let length = usize::try_from(length_bytes)?;
        // SAFETY: the library takes the address as a number; the caller keeps the memory alive.
        let code =
            unsafe { (self.library.register)(self.handle, pointer(address)?, length, location.as_ptr(), 1) };
        self.check(code, || format!("cannot register {length_bytes} bytes at {address:#x}"))
    }

    /// Withdraws memory.
    ///
    /// # Errors
    /// If it is in use or not registered.
    pub fn unregister(&self, address: u64) -> Result<()> {
        // SAFETY: the library takes the address as a number.
        let code = unsafe { (self.library.unregister)(self.handle, pointer(address)?) };
        self.check(code, || format!("cannot unregister {address:#x}"))
    }

    /// Runs one batch: submits all requests, waits until each is complete, frees the batch. Returns the time
    /// from before the batch was made until its last request was seen complete.
    ///
    /// # Errors
    /// If any request fails or the time is up.
    pub fn run(&self, requests: &mut [Request], limit: Duration) -> Result<Duration> {
        let library = self.library;
        let start = Instant::now();
        // SAFETY: a checked handle and a number.
        let batch = unsafe { (library.allocate)(self.handle, requests.len()) };
        if batch == INVALID_BATCH {
            return Err(library.failure("cannot allocate a batch"));
        }
        // SAFETY: the array is ours for the call and copied by it.
        let code = unsafe { (library.submit)(self.handle, batch, requests.as_mut_ptr(), requests.len()) };
        if code != 0 {
            return Err(library.failure(&format!("submit answered {code}")));
        }
        match library.wait {
            Some(wait) => {
                let milliseconds = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
                // SAFETY: a checked handle and numbers.
                let code = unsafe { wait(self.handle, batch, milliseconds) };
                if code != 0 {
                    return Err(library.failure(&format!("wait answered {code}")));
                }
            }
            None => self.poll_all(batch, requests.len(), start + limit)?,
        }
        let elapsed = start.elapsed();
        // SAFETY: a checked handle and a number.
        let code = unsafe { (library.free)(self.handle, batch) };
        self.check(code, || format!("freeing the batch answered {code}"))?;
        Ok(elapsed)
    }

    fn poll_all(&self, batch: u64, count: usize, end: Instant) -> Result<()> {
        for task in 0..count {
            loop {
                let mut status = Status::default();
                // SAFETY: the record is ours.
                let code = unsafe { (self.library.poll)(self.handle, batch, task, &raw mut status) };
                self.check(code, || format!("asking for task {task} answered {code}"))?;
                match status.status {
                    STATUS_COMPLETED => break,
                    STATUS_FAILED => {
                        return Err(self.library.failure(&format!("task {task} FAILED")));
                    }
                    _ if Instant::now() >= end => bail!("task {task} was not complete in time"),
                    _ => std::hint::spin_loop(),
                }
            }
        }
        Ok(())
    }

    /// Sends a notification to an open segment.
    ///
    /// # Errors
    /// If the peer does not take it.
    pub fn send_note(&self, segment: i32, name: &str, message: &str) -> Result<()> {
        let name = CString::new(name)?;
        let message = CString::new(message)?;
        let note = Message { name: name.as_ptr().cast_mut(), text: message.as_ptr().cast_mut() };
        let target = u64::try_from(segment)?;
        // SAFETY: both texts outlive the call, which copies them.
        let code = unsafe { (self.library.send_note)(self.handle, target, note) };
        self.check(code, || "cannot send a notification".to_owned())
    }

    /// Takes the notifications that arrived: names and messages.
    ///
    /// # Errors
    /// If the library does not answer.
    pub fn take_notes(&self) -> Result<Vec<(String, String)>> {
        let mut count: c_int = 0;
        // SAFETY: the count is ours.
        let first = unsafe { (self.library.take_notes)(self.handle, &raw mut count) };
        if first.is_null() {
            return if count < 0 {
                Err(self.library.failure("cannot take notifications"))
            } else {
                Ok(Vec::new())
            };
        }
        let length = usize::try_from(count)?;
        // SAFETY: the library returned an array of that many, each with two texts closed by NUL.
        let notes = unsafe {
            let notes = std::slice::from_raw_parts(first, length);
            notes.iter().map(|note| (text(note.name), text(note.text))).collect()
        };
        // SAFETY: the array and its length are as the library gave them, and given back once.
        let code = unsafe { (self.library.free_notes)(first, count) };
        self.check(code, || "cannot give back notifications".to_owned())?;
        Ok(notes)
    }

    fn check(&self, code: c_int, what: impl FnOnce() -> String) -> Result<()> {
        if code == 0 { Ok(()) } else { Err(self.library.failure(&what())) }
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        // SAFETY: made by create and destroyed once, here.
        unsafe { (self.library.destroy)(self.handle) };
    }
}

/// An address as the C interface takes it.
fn pointer(address: u64) -> Result<*mut c_void> {
    Ok(std::ptr::with_exposed_provenance_mut(usize::try_from(address)?))
}

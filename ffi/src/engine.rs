//! `transfer_engine_t`: an engine, its settings that calls need, and its making and ending.

use std::ffi::{c_char, c_int};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mooncake::config::Config;
use mooncake::engine::{Engine, EngineOptions};
use mooncake::error::{Code, Error, Result, Stage};

use crate::abi::{Handle, Options};
use crate::boundary::{invalid, minus_one, negative, null, output, text, write_cut};
use crate::handle::ENGINES;
use crate::{abi, code, graceful, log_line, log_sink};

/// Longest wait that a caller can ask for: 30 days, so that no deadline overflows the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Smallest options struct that is accepted. It never grows.
const SMALLEST_OPTIONS_BYTES: usize = size_of::<Options>();

/// An engine that is closed with the last of its holders: its own handle, and each store that shares it.
pub(crate) struct EngineOwner(Arc<Engine>);

impl EngineOwner {
    /// The engine.
    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.0)
    }
}

impl Drop for EngineOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What an engine handle stands for.
pub(crate) struct EngineEntry {
    /// The engine.
    pub(crate) engine: Arc<Engine>,
    /// The handle's share in the engine, until it is destroyed.
    owner: Mutex<Option<Arc<EngineOwner>>>,
    /// What a negative `timeout_ms` stands for.
    default_timeout: Duration,
    /// Whether a protocol that needs NPUs is an error where there are none.
    pub(crate) require_npu: bool,
    /// Whether the environment asks for TCP only.
    pub(crate) force_tcp: bool,
}

impl EngineEntry {
    /// The wait that a caller's `timeout_ms` asks for.
    pub(crate) fn timeout(&self, timeout_ms: i64) -> Duration {
        wait_of(timeout_ms, self.default_timeout)
    }
}

/// The wait that a caller's `timeout_ms` asks for, where a negative one stands for `default`.
pub(crate) fn wait_of(timeout_ms: i64, default: Duration) -> Duration {
    u64::try_from(timeout_ms)
        .map_or(default, |timeout_ms| Duration::from_millis(timeout_ms).min(LONGEST_WAIT))
}

/// The engine behind a handle.
pub(crate) fn engine(handle: Handle) -> Result<Arc<EngineEntry>> {
    ENGINES.get(handle)
}

/// A share in the engine behind a handle: it lives until the share and the handle are gone.
pub(crate) fn share(handle: Handle) -> Result<Arc<EngineOwner>> {
    let entry = engine(handle)?;
    let owner = entry.owner.lock().unwrap_or_else(PoisonError::into_inner);
    owner.clone().ok_or_else(|| {
        Error::new(Code::StaleHandle, Stage::Configure, format!("engine {handle:p} is being destroyed"))
    })
}

/// Makes an engine and gives it a handle.
fn create(metadata: String, local_name: String, device: Option<i32>, auto_discover: bool) -> Result<Handle> {
    let config = log_line::with_log(Config::from_env);
    raise_open_files();
    let (default_timeout, require_npu, force_tcp) =
        (config.transfer_timeout, config.require_npu, config.force_tcp);
    let engine = Engine::new(EngineOptions { metadata, local_name, device, auto_discover, config })?;
    let owner = Mutex::new(Some(Arc::new(EngineOwner(Arc::clone(&engine)))));
    ENGINES.insert(Arc::new(EngineEntry { engine, owner, default_timeout, require_npu, force_tcp }))
}

/// Raises the soft limit of open files to the hard one, as upstream does: a peer costs a few of them.
pub(crate) fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a struct of ours that both calls only read or fill.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0
            && (limit.rlim_cur >= limit.rlim_max || {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
            })
    };
    if !raised {
        log::debug!("the limit of open files stays: {}", std::io::Error::last_os_error());
    }
}

export! {
    /// Makes an engine.
    fn createTransferEngine(
        metadata_conn_string: *const c_char,
        local_server_name: *const c_char,
        ip_or_host_name: *const c_char,
        rpc_port: u64,
        auto_discover: c_int,
    ) -> Handle,
    failure null, {
        // Upstream ignores both in every mode; names and ports come from the local name.
        let _ignored = (ip_or_host_name, rpc_port);
        // SAFETY: the header asks for texts closed by NUL.
        let metadata = unsafe { text(metadata_conn_string, "metadata_conn_string", Stage::Configure) }?;
        // SAFETY: as above.
        let local_name = unsafe { text(local_server_name, "local_server_name", Stage::Configure) }?;
        create(metadata, local_name, None, auto_discover != 0)
    }
}

export! {
    /// Makes an engine, with an explicit device.
    fn mooncake_transfer_create(options: *const abi::Options, engine: *mut Handle) -> c_int,
    failure code::of, {
        // SAFETY: the header asks for a place of the caller's.
        let engine = unsafe { output(engine, "engine", Stage::Configure) }?;
        if options.is_null() || !options.is_aligned() {
            return Err(invalid(Stage::Configure, format!("options is NULL or not aligned: {options:p}")));
        }
        // SAFETY: not NULL and aligned; the caller set the first field.
        let room_bytes = unsafe { (&raw const (*options).struct_size).read() };
        if room_bytes < SMALLEST_OPTIONS_BYTES {
            let message = format!("struct_size is {room_bytes}, at least {SMALLEST_OPTIONS_BYTES} is needed");
            return Err(invalid(Stage::Configure, message).advice("set struct_size to sizeof the struct"));
        }
        // SAFETY: the struct is as long as ours, and the caller does not change it meanwhile.
        let options = unsafe { &*options };
        // SAFETY: the header asks for texts closed by NUL.
        let metadata = unsafe { text(options.metadata, "metadata", Stage::Configure) }?;
        // SAFETY: as above.
        let local_name = unsafe { text(options.local_name, "local_name", Stage::Configure) }?;
        let device = (options.device >= 0).then_some(options.device);
        engine.write(create(metadata, local_name, device, options.auto_discover != 0)?);
        Ok(0)
    }
}

export! {
    /// Stops an engine.
    fn destroyTransferEngine(engine: Handle) -> (),
    failure |_| (), {
        let entry = ENGINES.remove(engine)?;
        let owner = entry.owner.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A store that shares the engine keeps it, and has it closed at a signal as before.
        if owner.as_ref().is_some_and(|owner| Arc::strong_count(owner) == 1) {
            graceful::forget(&entry.engine);
        }
        drop(owner);
        Ok(())
    }
}

export! {
    /// Writes `host:port` without brackets.
    fn getLocalIpAndPort(engine: Handle, buf_out: *mut c_char, buf_len: usize) -> c_int,
    failure minus_one, {
        let entry = self::engine(engine)?;
        let (host, port) = entry.engine.host_and_port();
        // SAFETY: the header asks for a buffer of that length.
        unsafe { write_cut(&format!("{host}:{port}"), buf_out, buf_len, Stage::Configure) }?;
        Ok(0)
    }
}

export! {
    /// Writes the name that peers open.
    fn mooncake_transfer_session_name(engine: Handle, name: *mut c_char, capacity: usize) -> c_int,
    failure code::of, {
        let entry = self::engine(engine)?;
        let session = entry.engine.name();
        if session.len() >= capacity {
            let message = format!("the name takes {} bytes, the buffer has {capacity}", session.len() + 1);
            return Err(Error::new(Code::TooManyRequests, Stage::Configure, message));
        }
        // SAFETY: the header asks for a buffer of that length.
        unsafe { write_cut(session, name, capacity, Stage::Configure) }?;
        Ok(0)
    }
}

export! {
    /// Asks whether a peer answers.
    fn mooncake_transfer_probe(engine: Handle, segment_name: *const c_char) -> c_int,
    failure code::of, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for a text closed by NUL.
        let name = unsafe { text(segment_name, "segment_name", Stage::Resolve) }?;
        entry.engine.probe(&name)?;
        Ok(0)
    }
}

export! {
    /// Looks again at what the machine has.
    fn discoverTopology(engine: Handle) -> c_int,
    failure negative, {
        self::engine(engine)?.engine.discover_topology()?;
        Ok(0)
    }
}

export! {
    /// Routes the log.
    fn mooncake_transfer_set_log(sink: abi::LogSink, user: *mut std::ffi::c_void, level: c_int) -> c_int,
    failure code::of, {
        log_sink::set(sink, user, level)?;
        Ok(0)
    }
}

//! `mooncake_store_t`: a client of the pool, its joining and leaving.
//!
//! - [`guard`]: how a call of the store enters and leaves. What it returns are the store's own numbers.
//! - [`arguments`]: keys, buffers and placements as C gives them.
//! - [`upstream`]: the functions of `store_c.h`; [`objects`] and [`catalog`]: ours.
//!
//! A handle lives from create to destroy; what is joined and left meanwhile is a [`Store`] of the core. No lock is
//! held while the core runs: a setup that was overtaken by a close or another setup gives its store up again.

mod arguments;
pub(crate) mod catalog;
pub(crate) mod code;
pub(crate) mod objects;
pub(crate) mod upstream;

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mooncake::config::Config;
use mooncake::error::{self, Error, Stage};
use mooncake::store::{ErrorCode, Failure, Store, StoreOptions};

use crate::abi::{self, Handle};
use crate::boundary::{from_panic, invalid, output, text};
use crate::engine::EngineOwner;
use crate::handle::STORES;
use crate::{engine, log_line};

/// What `NULL` stands for as the master's address.
const DEFAULT_MASTER: &str = "127.0.0.1:50051";
/// What `NULL` stands for as the protocol.
const DEFAULT_PROTOCOL: &str = "tcp";
/// What `NULL` stands for as the tenant.
const DEFAULT_TENANT: &str = "default";
/// Smallest options struct that is accepted.
const SMALLEST_OPTIONS_BYTES: usize = size_of::<abi::StoreOptions>();

/// Why a call has no answer; made from a failure of the store and from an argument that cannot be used.
pub(crate) struct Refusal(pub(crate) Failure);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(Failure::new(ErrorCode::INVALID_PARAMS, error))
    }
}

/// What the body of a function of the store gives.
pub(crate) type Answer<T> = Result<T, Refusal>;

/// Makes an exported function out of a body that returns an [`Answer`].
///
/// `failure` turns the failure into the function's failure value.
macro_rules! store_export {
    ($(#[$meta:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty,
     failure $failure:expr, $body:block) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// The pointers are NULL or point to what the header says, for the time of the call.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            $crate::store::guard($failure, || $body)
        }
    };
}
pub(crate) use store_export;

/// Runs the body of an export: no panic leaves it, and a failure becomes the thread's last error.
pub(crate) fn guard<T>(failure: impl FnOnce(&Failure) -> T, body: impl FnOnce() -> Answer<T>) -> T {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(Refusal(Failure::new(ErrorCode::INTERNAL_ERROR, from_panic(panic.as_ref()))))
    });
    match outcome {
        Ok(value) => value,
        Err(Refusal(refused)) => {
            error::set_last(refused.to_error());
            failure(&refused)
        }
    }
}

/// Failure value of the functions that answer in the store's numbers.
pub(crate) fn code(failure: &Failure) -> c_int {
    failure.code().0
}

/// The same for those that answer with a length or a count.
pub(crate) fn wide_code(failure: &Failure) -> i64 {
    i64::from(failure.code().0)
}

/// What a store handle stands for.
#[derive(Default)]
pub(crate) struct StoreEntry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts setups and closes: one that began earlier does not win over one that began later.
    turn: u64,
    joined: Option<Joined>,
}

/// A store that is set up, with the engine that it shares. The store ends before the engine does.
struct Joined {
    store: Arc<Store>,
    /// What a negative `timeout_ms` stands for.
    default_timeout: Duration,
    _engine: Option<Arc<EngineOwner>>,
}

impl StoreEntry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, while it is set up.
    fn store(&self) -> Option<Arc<Store>> {
        self.lock().joined.as_ref().map(|joined| Arc::clone(&joined.store))
    }

    /// The wait that a caller's `timeout_ms` asks for.
    fn wait_of(&self, timeout_ms: i64) -> Duration {
        let default = self.lock().joined.as_ref().map_or(Duration::ZERO, |joined| joined.default_timeout);
        engine::wait_of(timeout_ms, default)
    }

    /// Leaves the pool; the turn that begins with it.
    fn leave(&self) -> u64 {
        let (turn, joined) = {
            let mut state = self.lock();
            state.turn = state.turn.wrapping_add(1);
            (state.turn, state.joined.take())
        };
        if let Some(joined) = joined {
            joined.store.close();
        }
        turn
    }

    fn join(&self, options: StoreOptions, shared: Option<Arc<EngineOwner>>) -> Answer<()> {
        let turn = self.leave();
        let default_timeout = options.config.transfer_timeout;
        let store = Store::setup(options)?;
        let overtaken = {
            let mut state = self.lock();
            if state.turn == turn {
                state.joined = Some(Joined { store: Arc::clone(&store), default_timeout, _engine: shared });
            }
            state.turn != turn
        };
        if overtaken {
            store.close();
            let message = "the store was closed, or set up again, while it was being set up";
            return Err(invalid(Stage::Configure, message).into());
        }
        Ok(())
    }
}

/// The entry behind a handle.
fn entry(handle: Handle) -> Answer<Arc<StoreEntry>> {
    Ok(STORES.get(handle)?)
}

/// The store behind a handle, which has to be set up.
pub(crate) fn store(handle: Handle) -> Answer<Arc<Store>> {
    entry(handle)?
        .store()
        .ok_or_else(|| invalid(Stage::Configure, "the store is not set up").advice("call setup first").into())
}

/// A text argument that may be NULL.
///
/// # Safety
/// As [`text`].
unsafe fn text_or(value: *const std::ffi::c_char, default: &str, name: &str) -> Answer<String> {
    if value.is_null() {
        return Ok(default.to_owned());
    }
    // SAFETY: the caller vouches for it.
    Ok(unsafe { text(value, name, Stage::Configure) }?)
}

/// Joins the pool as the options say.
///
/// # Safety
/// The texts in `options` are NULL or closed by NUL.
unsafe fn set_up(handle: Handle, options: &abi::StoreOptions) -> Answer<()> {
    let entry = entry(handle)?;
    // SAFETY: the caller vouches for the texts; so for all of them.
    let local_hostname = unsafe { text(options.local_hostname, "local_hostname", Stage::Configure) }?;
    // SAFETY: as above.
    let metadata_server = unsafe { text(options.metadata_server, "metadata_server", Stage::Configure) }?;
    // SAFETY: as above.
    let protocol = unsafe { text_or(options.protocol, DEFAULT_PROTOCOL, "protocol") }?;
    // SAFETY: as above.
    let device_names = unsafe { text_or(options.device_names, "", "device_names") }?;
    // SAFETY: as above.
    let master = unsafe { text_or(options.master_address, DEFAULT_MASTER, "master_address") }?;
    // SAFETY: as above.
    let tenant = unsafe { text_or(options.tenant, DEFAULT_TENANT, "tenant") }?;
    let config = log_line::with_log(Config::from_env);
    engine::raise_open_files();
    let shared = if options.engine.is_null() { None } else { Some(engine::share(options.engine)?) };
    let options = StoreOptions {
        local_hostname,
        metadata_server,
        global_segment_size_bytes: options.global_segment_size_bytes,
        local_buffer_size_bytes: options.local_buffer_size_bytes,
        protocol,
        device_names,
        master_server_address: master,
        engine: shared.as_ref().map(|owner| owner.engine()),
        tenant,
        config,
    };
    entry.join(options, shared)
}

store_export! {
    /// Joins a pool, with all settings.
    fn mooncake_transfer_store_setup(store: Handle, options: *const abi::StoreOptions) -> c_int,
    failure code, {
        if options.is_null() || !options.is_aligned() {
            let message = format!("options is NULL or not aligned: {options:p}");
            return Err(invalid(Stage::Configure, message).into());
        }
        // SAFETY: not NULL and aligned; the caller set the first field.
        let room_bytes = unsafe { (&raw const (*options).struct_size).read() };
        if room_bytes < SMALLEST_OPTIONS_BYTES {
            let message = format!("struct_size is {room_bytes}, at least {SMALLEST_OPTIONS_BYTES} is needed");
            let error = invalid(Stage::Configure, message).advice("set struct_size to sizeof the struct");
            return Err(error.into());
        }
        // SAFETY: the struct is as long as ours, and the caller does not change it meanwhile.
        let options = unsafe { &*options };
        // SAFETY: the header asks for texts closed by NUL.
        unsafe { set_up(store, options) }?;
        Ok(0)
    }
}

store_export! {
    /// Leaves the pool.
    fn mooncake_transfer_store_close(store: Handle) -> c_int,
    failure code, {
        entry(store)?.leave();
        Ok(0)
    }
}

store_export! {
    /// Waits for transfers that were given up.
    fn mooncake_transfer_store_drain(store: Handle, timeout_ms: i64, left: *mut usize) -> c_int,
    failure code, {
        // SAFETY: the header asks for a place of the caller's.
        let left = unsafe { output(left, "left", Stage::Drain) }?;
        let wait = entry(store)?.wait_of(timeout_ms);
        left.write(self::store(store)?.drain(wait));
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_code_and_a_record() {
        error::clear_last();
        let value = guard(code, || -> Answer<c_int> { panic!("on purpose") });
        assert_eq!(value, ErrorCode::INTERNAL_ERROR.0);
        assert!(error::last().unwrap().to_string().contains("on purpose"));
    }

    #[test]
    fn a_store_that_is_not_set_up_is_an_error_that_says_so() {
        let handle = STORES.insert(Arc::new(StoreEntry::default())).unwrap();
        let refused = store(handle).err().unwrap().0;
        assert_eq!(refused.code(), ErrorCode::INVALID_PARAMS);
        assert!(refused.to_string().contains("not set up"), "{refused}");
        STORES.remove(handle).unwrap().leave();
        assert!(store(handle).is_err());
    }
}

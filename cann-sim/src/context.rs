//! Contexts: thread-local current context, one default context per process and device, explicit ones.
//!
//! `aclrtSetDevice` makes (first call) or shares (later calls, any thread) the device's default context and counts;
//! `aclrtResetDevice` counts down and at zero waits for the work and ends it. A thread that never bound a context,
//! or whose context ended, is told 107002 by every call that needs one (facts 1.6).

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use crate::clock::Deadline;
use crate::device::Device;
use crate::handle::Handles;
use crate::status::{Fail, Outcome, acl};
use crate::stream::{STREAMS, Stream};

/// One context.
pub struct Context {
    /// The handle C holds.
    pub handle: usize,
    /// Its device.
    pub device: &'static Device,
    is_default: bool,
    stops_on_failure: AtomicBool,
    failure: Mutex<Option<Fail>>,
    default_stream: Mutex<Option<Arc<Stream>>>,
}

/// Live contexts.
pub static CONTEXTS: Handles<Context> = Handles::new(0x51);

/// Default context and reference count, by user id.
static DEFAULTS: LazyLock<Mutex<HashMap<u32, (usize, usize)>>> = LazyLock::new(Mutex::default);

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

impl Context {
    fn create(device: &'static Device, is_default: bool) -> Outcome<Arc<Self>> {
        let handle = CONTEXTS.reserve();
        let context = Arc::new(Self {
            handle,
            device,
            is_default,
            stops_on_failure: AtomicBool::new(false),
            failure: Mutex::new(None),
            default_stream: Mutex::new(None),
        });
        let stream = Stream::create(device, Arc::downgrade(&context), handle, 0)?;
        *context.default_stream.lock() = Some(stream);
        CONTEXTS.insert(handle, Arc::clone(&context));
        Ok(context)
    }

    /// The stream that NULL means.
    pub fn default_stream(&self) -> Outcome<Arc<Stream>> {
        self.default_stream.lock().clone().ok_or_else(|| {
            Fail::new(acl::CONTEXT_NULL, "the context has ended and its default stream with it")
        })
    }

    /// Makes the context stop at the first failing task.
    pub fn stop_on_failure(&self) {
        self.stops_on_failure.store(true, Ordering::Release);
    }

    /// Keeps the first failure, if this context stops on failures.
    pub fn fail(&self, fail: &Fail) {
        if self.stops_on_failure.load(Ordering::Acquire) {
            self.failure.lock().get_or_insert_with(|| fail.clone());
        }
    }

    /// The failure that stopped this context.
    pub fn failure(&self) -> Option<Fail> {
        if self.stops_on_failure.load(Ordering::Acquire) { self.failure.lock().clone() } else { None }
    }

    /// The live streams of this context, the default one included.
    fn streams(&self) -> Vec<Arc<Stream>> {
        STREAMS.all().into_iter().filter(|stream| stream.context_handle() == self.handle).collect()
    }

    /// Ends the context: waits for its work (or stops it), then its streams go.
    fn end(&self, force: bool) {
        for stream in self.streams() {
            if force {
                stream.abort();
            } else {
                // The failures of a context that ends have nobody left to hear them.
                let _ = stream.synchronize(None);
            }
            stream.retire();
        }
        self.default_stream.lock().take();
    }
}

/// The calling thread's context.
pub fn current() -> Outcome<Arc<Context>> {
    let handle = CURRENT.try_with(Cell::get).unwrap_or(0);
    let null = || {
        Fail::new(
            acl::CONTEXT_NULL,
            "ctx is NULL: call aclrtSetDevice or aclrtSetCurrentContext on this thread",
        )
    };
    if handle == 0 {
        return Err(null());
    }
    CONTEXTS.get(handle).ok_or_else(null)
}

/// Makes a context current on this thread.
pub fn bind(handle: usize) {
    // A thread that is ending has no binding to keep.
    let _ = CURRENT.try_with(|current| current.set(handle));
}

/// `aclrtSetDevice`.
pub fn set_device(device: &'static Device) -> Outcome {
    let mut defaults = DEFAULTS.lock();
    let handle = match defaults.get_mut(&device.user_id) {
        Some((handle, count)) => {
            *count += 1;
            *handle
        }
        None => {
            let handle = Context::create(device, true)?.handle;
            defaults.insert(device.user_id, (handle, 1));
            handle
        }
    };
    drop(defaults);
    bind(handle);
    Ok(())
}

/// `aclrtResetDevice`; `force` ignores the count and the work.
pub fn reset_device(device: &'static Device, force: bool) -> Outcome {
    let mut defaults = DEFAULTS.lock();
    let Some((handle, count)) = defaults.get_mut(&device.user_id) else {
        return Err(Fail::new(
            acl::CONTEXT_NULL,
            format!("device {} was not set in this process", device.user_id),
        ));
    };
    *count = if force { 0 } else { count.saturating_sub(1) };
    if *count > 0 {
        return Ok(());
    }
    let handle = *handle;
    defaults.remove(&device.user_id);
    drop(defaults);
    if let Some(context) = CONTEXTS.get(handle) {
        context.end(force);
    }
    CONTEXTS.remove(handle);
    Ok(())
}

/// `aclrtCreateContext`: the new context becomes current.
pub fn create(device: &'static Device) -> Outcome<usize> {
    let handle = Context::create(device, false)?.handle;
    bind(handle);
    Ok(handle)
}

/// `aclrtDestroyContext`.
pub fn destroy(handle: usize) -> Outcome {
    let removed = CONTEXTS.remove_if(handle, |context| {
        if context.is_default {
            Err(Fail::new(acl::PARAM_INVALID, "the default context ends with aclrtResetDevice"))
        } else {
            Ok(())
        }
    });
    match removed {
        None => Err(unknown(handle)),
        Some(Err(refusal)) => Err(refusal),
        Some(Ok(context)) => {
            context.end(false);
            Ok(())
        }
    }
}

/// `aclrtSetCurrentContext`.
pub fn set_current(handle: usize) -> Outcome {
    CONTEXTS.get(handle).ok_or_else(|| unknown(handle))?;
    bind(handle);
    Ok(())
}

/// Waits for all streams of the current context's device.
pub fn synchronize_device(deadline: Deadline) -> Outcome {
    let device = current()?.device;
    let mut outcome = Ok(());
    for stream in STREAMS.all().into_iter().filter(|stream| stream.device.user_id == device.user_id) {
        outcome = outcome.and(stream.synchronize(deadline));
    }
    outcome
}

/// `aclrtDeviceTaskAbort`: every stream of the device in this process.
pub fn abort_device(device: &Device) {
    for stream in STREAMS.all().into_iter().filter(|stream| stream.device.user_id == device.user_id) {
        stream.abort_as(acl::DEVICE_TASK_ABORT);
    }
}

/// The stream of a handle, NULL being the current context's default stream; it must belong to that context.
pub fn resolve_stream(handle: usize) -> Outcome<Arc<Stream>> {
    let context = current()?;
    if handle == 0 {
        return context.default_stream();
    }
    let stream = STREAMS
        .get(handle)
        .ok_or_else(|| Fail::new(acl::INVALID_HANDLE, format!("{handle:#x} is no live stream")))?;
    if stream.context_handle() != context.handle {
        return Err(Fail::new(
            acl::STREAM_CONTEXT,
            "the stream belongs to another context than the current one",
        ));
    }
    Ok(stream)
}

/// `aclrtCreateStream` in the current context.
pub fn create_stream(flags: u32) -> Outcome<usize> {
    let context = current()?;
    Ok(Stream::create(context.device, Arc::downgrade(&context), context.handle, flags)?.handle)
}

/// `aclrtDestroyStream`: waits for the work unless `force`.
pub fn destroy_stream(handle: usize, force: bool) -> Outcome {
    let stream = resolve_stream(handle)?;
    if force {
        stream.abort();
    } else {
        // Failures of work nobody waited for end with the stream.
        let _ = stream.synchronize(None);
    }
    stream.retire();
    Ok(())
}

/// The number for a context that never was or has ended is inferred (the runtime's for handles it does not know).
fn unknown(handle: usize) -> Fail {
    Fail::new(acl::INVALID_HANDLE, format!("{handle:#x} is no live context"))
}

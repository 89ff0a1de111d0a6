//! Contexts, streams, events.

use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::cases;
use crate::case::Answer;
use crate::gate;
use crate::probe::{Probe, acl, step};

cases! {
    context_is_thread_local, "1.6, 7.1", "Has a thread that never set a device no context?";
    contexts_have_streams_of_their_own, "1.6", "Is a stream refused under another context?";
    default_stream_is_null, "7.1", "Does NULL stand for the default stream in ACL calls?";
    streams_are_asynchronous_and_in_order, "1.6, 7.1",
        "Do submissions return at once, run in order, and leave other streams alone?";
    wait_with_timeout_leaves_the_work, "1.6, 7.1",
        "Does a bounded wait answer 507046 and let the work go on?";
    abort_tells_waiters, "1.6, 7.1", "Does a concurrent waiter get 107023 when its stream is aborted?";
    stream_after_abort, "8.9", "Can a stream be used again after aclrtStreamAbort?";
    event_status_is_inverted, "1.4", "Is a recorded event 1 when complete, and 1 when never recorded?";
    callback_needs_a_thread, "1.6",
        "Is aclrtLaunchCallback refused with 107015 where no thread takes reports?";
    failure_mode_is_set_once, "1.6", "Can STOP_ON_FAILURE be set on the default stream, and once only?";
}

fn context_is_thread_local(probe: &mut Probe) -> Answer {
    let device = probe.on_device(0)?;
    let mut current = -1;
    probe.acl("aclrtGetDevice after aclrtSetDevice", 0, acl!(probe, aclrtGetDevice(&raw mut current)));
    probe.value("device", device, current);
    let probe = &*probe;
    let body = || -> Answer {
        let mut address = ptr::null_mut();
        let mut context = ptr::null_mut();
        probe.acl(
            "aclrtMalloc on another thread",
            107_002,
            acl!(probe, aclrtMalloc(&raw mut address, 4096, 0)),
        );
        probe.acl(
            "aclrtMallocHost on another thread",
            107_002,
            acl!(probe, aclrtMallocHost(&raw mut address, 4096)),
        );
        probe.acl(
            "aclrtSynchronizeStream(NULL) there",
            107_002,
            acl!(probe, aclrtSynchronizeStream(ptr::null_mut())),
        );
        let code = acl!(probe, aclrtGetCurrentContext(&raw mut context));
        probe.acl("aclrtGetCurrentContext there", 107_002, code);
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(body).join()).unwrap_or(Ok(()))
}

fn contexts_have_streams_of_their_own(probe: &mut Probe) -> Answer {
    let device = probe.on_device(0)?;
    let stream = probe.stream()?;
    let (mut context, mut current) = (ptr::null_mut(), ptr::null_mut());
    step!(probe, acl aclrtCreateContext(&raw mut context, device));
    step!(probe, acl aclrtGetCurrentContext(&raw mut current));
    probe.holds("a created context is current", current == context);
    probe.acl("wait for a stream of another context", 107_003, acl!(probe, aclrtSynchronizeStream(stream)));
    probe.acl("aclrtDestroyContext", 0, acl!(probe, aclrtDestroyContext(context)));
    Ok(())
}

fn default_stream_is_null(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let (memory, host) = (probe.device_memory(4096)?, probe.pinned_memory(4096)?);
    let kind = cann_sys::ACL_MEMCPY_HOST_TO_DEVICE;
    let (target, source) = (crate::probe::at(memory), crate::probe::at(host));
    let code = acl!(probe, aclrtMemcpyAsync(target, 4096, source, 4096, kind, ptr::null_mut()));
    probe.acl("aclrtMemcpyAsync on NULL", 0, code);
    probe.acl("aclrtSynchronizeStream(NULL)", 0, acl!(probe, aclrtSynchronizeStream(ptr::null_mut())));
    Ok(())
}

fn streams_are_asynchronous_and_in_order(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let (slow, fast) = (probe.stream()?, probe.stream()?);
    gate::close(probe, slow)?; // returns although the function is held
    for number in 0..4 {
        gate::note(probe, slow, number)?;
    }
    let mut status = 0;
    probe.acl("aclrtStreamQuery of a busy stream", 0, acl!(probe, aclrtStreamQuery(slow, &raw mut status)));
    probe.value("its status (1: not ready)", 1, status);
    gate::note(probe, fast, 9)?;
    probe.acl("wait for another stream", 0, crate::pair::wait(probe, fast)?);
    probe.value("only the other stream ran", "[9]".to_owned(), format!("{:?}", gate::notes()));
    gate::open();
    probe.acl("wait for the first stream", 0, crate::pair::wait(probe, slow)?);
    probe.value("order", "[9, 0, 1, 2, 3]".to_owned(), format!("{:?}", gate::notes()));
    Ok(())
}

fn wait_with_timeout_leaves_the_work(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let stream = probe.stream()?;
    gate::close(probe, stream)?;
    gate::note(probe, stream, 5)?;
    let start = Instant::now();
    probe.acl("wait of 50 ms", 507_046, acl!(probe, aclrtSynchronizeStreamWithTimeout(stream, 50)));
    probe.measured("it took ms", start.elapsed().as_millis());
    probe.acl("wait of -2 ms", 107_000, acl!(probe, aclrtSynchronizeStreamWithTimeout(stream, -2)));
    gate::open();
    probe.acl("wait without limit", 0, acl!(probe, aclrtSynchronizeStreamWithTimeout(stream, -1)));
    probe.value("the work was done", "[5]".to_owned(), format!("{:?}", gate::notes()));
    Ok(())
}

/// A stream whose running task, a wait for another stream's event, does not end by itself.
fn stuck_stream(probe: &Probe) -> Answer<(usize, usize)> {
    let (holder, stuck) = (probe.stream()?, probe.stream()?);
    let event = probe.event()?;
    gate::close(probe, holder)?;
    step!(probe, acl aclrtRecordEvent(event, holder));
    step!(probe, acl aclrtStreamWaitEvent(stuck, event));
    Ok((holder as usize, stuck as usize))
}

/// Waits until the thread sleeps: after it told its id, the only place where it can is the wait for the
/// stream. A runtime that waits without sleeping is given two seconds.
fn await_sleeping(thread: &AtomicI32) {
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let path = format!("/proc/self/task/{}/stat", thread.load(Ordering::Acquire));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The state follows the name, which stands in parentheses and may contain any character.
        if text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S')) {
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn abort_tells_waiters(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let (holder, stuck) = stuck_stream(probe)?;
    let mut context = ptr::null_mut();
    step!(probe, acl aclrtGetCurrentContext(&raw mut context));
    let context = context as usize;
    let probe = &*probe;
    let waiter_id = AtomicI32::new(0);
    let code = std::thread::scope(|scope| -> Answer<i32> {
        let waiter = scope.spawn(|| -> Answer<i32> {
            step!(probe, acl aclrtSetCurrentContext(crate::probe::at(context)));
            // SAFETY: gettid has no preconditions and cannot fail.
            waiter_id.store(unsafe { libc::gettid() }, Ordering::Release);
            Ok(acl!(probe, aclrtSynchronizeStreamWithTimeout(crate::probe::at(stuck), 30_000)))
        });
        await_sleeping(&waiter_id);
        probe.acl("aclrtStreamAbort", 0, acl!(probe, aclrtStreamAbort(crate::probe::at(stuck))));
        waiter.join().unwrap_or(Ok(-1))
    })?;
    probe.acl("the waiter's code", 107_023, code);
    gate::open();
    probe.acl("the other stream ends well", 0, crate::pair::wait(probe, crate::probe::at(holder))?);
    Ok(())
}

fn stream_after_abort(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let memory = probe.device_memory(4096)?;
    let host = probe.pinned_memory(4096)?;
    let (holder, stuck) = stuck_stream(probe)?;
    let stuck = crate::probe::at(stuck);
    probe.write(memory, &[7; 4096])?;
    let kind = cann_sys::ACL_MEMCPY_DEVICE_TO_HOST;
    let copy = |probe: &Probe| -> Answer<i32> {
        Ok(acl!(
            probe,
            aclrtMemcpyAsync(crate::probe::at(host), 4096, crate::probe::at(memory), 4096, kind, stuck)
        ))
    };
    probe.acl("a copy behind a stuck task", 0, copy(probe)?);
    probe.acl("aclrtStreamAbort", 0, acl!(probe, aclrtStreamAbort(stuck)));
    // SAFETY: our own pinned block of 4096 bytes.
    let first = || unsafe { ptr::read_volatile(host as *const u8) };
    probe.value("the queued copy was dropped (its byte)", 0, first());
    probe.acl("a copy on the aborted stream", 0, copy(probe)?);
    probe.acl("wait for it", 0, crate::pair::wait(probe, stuck)?);
    probe.value("its byte", 7, first());
    gate::open();
    crate::pair::wait(probe, crate::probe::at(holder))?;
    Ok(())
}

fn event_status_is_inverted(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let stream = probe.stream()?;
    let event = probe.event()?;
    let mut status = 9;
    probe.acl("aclrtQueryEventStatus", 0, acl!(probe, aclrtQueryEventStatus(event, &raw mut status)));
    probe.value("never recorded", 1, status);
    gate::close(probe, stream)?;
    step!(probe, acl aclrtRecordEvent(event, stream));
    step!(probe, acl aclrtQueryEventStatus(event, &raw mut status));
    probe.value("recorded behind work", 0, status);
    let code = acl!(probe, aclrtSynchronizeEventWithTimeout(event, 20));
    probe.acl("a bounded wait for it", 507_047, code);
    gate::open();
    step!(probe, acl aclrtSynchronizeEvent(event));
    step!(probe, acl aclrtQueryEventStatus(event, &raw mut status));
    probe.value("complete", 1, status);
    Ok(())
}

unsafe extern "C" fn never(_argument: *mut std::ffi::c_void) {}

fn callback_needs_a_thread(probe: &mut Probe) -> Answer {
    probe.on_device(0)?;
    let stream = probe.stream()?;
    let code = acl!(
        probe,
        aclrtLaunchCallback(Some(never), ptr::null_mut(), cann_sys::ACL_CALLBACK_NO_BLOCK, stream)
    );
    probe.acl("without a subscriber", 107_015, code);
    Ok(())
}

fn failure_mode_is_set_once(probe: &mut Probe) -> Answer {
    let device = probe.on_device(0)?;
    let mut context = ptr::null_mut();
    step!(probe, acl aclrtCreateContext(&raw mut context, device));
    let mode = cann_sys::ACL_STOP_ON_FAILURE;
    let null = ptr::null_mut();
    probe.acl("on the default stream", 0, acl!(probe, aclrtSetStreamFailureMode(null, mode)));
    probe.acl("once more", 107_000, acl!(probe, aclrtSetStreamFailureMode(null, mode)));
    probe.acl("aclrtDestroyContext", 0, acl!(probe, aclrtDestroyContext(context)));
    Ok(())
}

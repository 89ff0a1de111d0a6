//! Which copies `aclrtMemcpy` and `aclrtMemcpyAsync` allow (facts 1.6).
//!
//! The synchronous copy follows the real addresses and ignores the direction the caller names. The asynchronous one
//! corrects the named direction when both sides are known to the runtime, refuses host to host, and turns into a
//! blocking copy when host memory is not pinned.

use crate::block::Owner;
use crate::context::{self, Context};
use crate::copy::{self, End};
use crate::cost::{self, clock};
use crate::device::{self, Device};
use crate::settings::settings;
use crate::status::{Fail, Outcome, acl};
use crate::stream::Stream;
use crate::task::Task;
use crate::virtual_memory;
use std::sync::Arc;

/// `aclrtMemcpyKind` values.
const HOST_TO_HOST: i32 = 0;
const HOST_TO_DEVICE: i32 = 1;
const DEVICE_TO_HOST: i32 = 2;
const DEFAULT: i32 = 4;
const HOST_TO_BUFFER_TO_DEVICE: i32 = 5;
const LAST_KIND: i32 = 7;

/// One requested copy, pointers checked for NULL.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Target address.
    pub target: usize,
    /// Room at the target.
    pub target_limit: usize,
    /// Source address.
    pub source: usize,
    /// Bytes.
    pub length: usize,
    /// `aclrtMemcpyKind`.
    pub kind: i32,
}

impl Request {
    /// The checks that need no look at the addresses; false when nothing is to be copied.
    fn check(&self) -> Outcome<bool> {
        if self.length > self.target_limit {
            return Err(Fail::new(
                acl::PARAM_INVALID,
                format!("{} bytes are more than the target's room of {}", self.length, self.target_limit),
            ));
        }
        if !(HOST_TO_HOST..=LAST_KIND).contains(&self.kind) {
            return Err(Fail::new(acl::PARAM_INVALID, format!("{} is no copy kind", self.kind)));
        }
        Ok(self.target != self.source)
    }

    /// `aclrtMemcpy`.
    pub fn run_now(&self) -> Outcome {
        let context = context::current()?;
        if !self.check()? {
            return Ok(());
        }
        let target = End::locate(self.target, self.length)?;
        let source = End::locate(self.source, self.length)?;
        check_peer_access(&context, &target, &source, true)?;
        charged_now(context.device, &target, &source, self.length, || {
            copy::copy_now(&target, &source, self.length, self.target, self.source)
        })
    }

    /// `aclrtMemcpyAsync`.
    pub fn submit(&self, stream: &Arc<Stream>) -> Outcome {
        if !self.check()? {
            return Ok(());
        }
        let context = context::current()?;
        let ends = End::locate(self.target, self.length)
            .and_then(|target| Ok((target, End::locate(self.source, self.length)?)));
        let (target, source) = match ends {
            Ok(ends) => ends,
            // Only the device finds out that a range leaves its allocation: the stream fails, not the call.
            Err(fail) => return stream.submit(Task::Fail(fail.with_code(acl::SYS_DMA_ERROR))),
        };
        check_kind(self.kind, &target, &source)?;
        check_peer_access(&context, &target, &source, false)?;
        // An old driver does not tell ordinary memory from pinned: nothing protects the copy (facts 8.11).
        if settings().has_old_driver || (target.is_known() && source.is_known()) {
            return submit_copy(stream, target, source, self.length);
        }
        // Host memory that is not pinned may be paged out under the DMA: the runtime waits for the stream and
        // copies at once, so that the call blocks.
        stream.synchronize(None)?;
        charged_now(context.device, &target, &source, self.length, || {
            copy::copy_now(&target, &source, self.length, self.target, self.source)
        })
    }
}

/// Puts a copy on a stream; the calling thread launches it.
pub fn submit_copy(stream: &Arc<Stream>, target: End, source: End, length: usize) -> Outcome {
    let launch = launch(stream.device, &target, &source);
    launch.submit(stream, Task::Copy { target, source, length })
}

/// The launch of a task by the calling thread: when it began and ended by the cost model, if one charges.
#[derive(Debug, Clone, Copy)]
pub struct Launch(Option<(u64, u64)>);

/// The calling thread launches a copy.
pub fn launch(device: &Device, target: &End, source: &End) -> Launch {
    Launch(cost::costs().map(|costs| (clock::launching_ns(), costs.launch_copy(device, target, source))))
}

impl Launch {
    /// Puts the launched task on its stream.
    pub fn submit(self, stream: &Arc<Stream>, task: Task) -> Outcome {
        let Some((began_ns, ended_ns)) = self.0 else { return stream.submit(task) };
        stream.submit_at(task, ended_ns)?;
        clock::pass(began_ns, ended_ns, clock::LEAD_NS);
        Ok(())
    }
}

/// Runs a copy that the caller waits for, and charges it.
pub fn charged_now(
    device: &Device,
    target: &End,
    source: &End,
    length: usize,
    run: impl FnOnce() -> Outcome,
) -> Outcome {
    let Some(costs) = cost::costs() else { return run() };
    let began_ns = clock::launching_ns();
    let launched_ns = costs.launch_copy(device, target, source);
    let end_ns = costs.copy(device, target, source, length, launched_ns);
    run()?;
    clock::pass(began_ns, end_ns, 0);
    clock::saw_end();
    Ok(())
}

/// The direction of an asynchronous copy.
fn check_kind(kind: i32, target: &End, source: &End) -> Outcome {
    let no_host_to_host =
        || Fail::new(acl::FEATURE_NOT_SUPPORT, "an asynchronous copy from host to host is not supported");
    let implausible = || {
        Fail::new(
            acl::PARAM_INVALID,
            format!("copy kind {kind} does not fit addresses of which one is unknown to the runtime"),
        )
    };
    match (source.device().is_some(), target.device().is_some()) {
        (true, true) => Ok(()),
        (false, false) if source.is_known() && target.is_known() => Err(no_host_to_host()),
        (false, false) if kind == DEFAULT || kind == HOST_TO_HOST => Err(no_host_to_host()),
        (false, true) if source.is_known() => Ok(()),
        (true, false) if target.is_known() => Ok(()),
        (false, true) if matches!(kind, HOST_TO_DEVICE | DEFAULT | HOST_TO_BUFFER_TO_DEVICE) => Ok(()),
        (true, false) if matches!(kind, DEVICE_TO_HOST | DEFAULT) => Ok(()),
        _ => Err(implausible()),
    }
}

/// Whether a device may reach memory of another one, by the physical id that facts 1.6 let it enable.
fn is_enabled(issuing: &Device, matches: impl Fn(&Device) -> bool) -> bool {
    let peers = issuing.peers.lock();
    device::devices().iter().any(|device| matches(device) && peers.contains(&device.user_id))
}

/// A copy between two devices of this process needs access enabled from the issuing device, or given to it for
/// mapped memory (facts 1.6).
pub fn check_peer_access(context: &Context, target: &End, source: &End, is_synchronous: bool) -> Outcome {
    let issuing = context.device;
    check_foreign(issuing, target, source, is_synchronous)?;
    check_foreign(issuing, source, target, is_synchronous)?;
    let (Some(one), Some(other)) = (source.device(), target.device()) else { return Ok(()) };
    if one == other {
        return Ok(());
    }
    for (user_id, end) in [(one, source), (other, target)] {
        let is_given = || {
            end.block().is_some_and(|block| {
                block.owner == Owner::Mapped && virtual_memory::has_access(block.start, issuing.user_id)
            })
        };
        if user_id != issuing.user_id && !is_enabled(issuing, |peer| peer.user_id == user_id) && !is_given() {
            return Err(Fail::new(
                acl::PARAM_INVALID,
                format!(
                    "device {} has no access to device {user_id}: call aclrtDeviceEnablePeerAccess first",
                    issuing.user_id
                ),
            ));
        }
    }
    Ok(())
}

/// What is allowed with memory imported by key: copies with other device memory, on a stream or from another device,
/// by a device that has access (facts 1.6, sharing).
fn check_foreign(issuing: &Device, end: &End, other: &End, is_synchronous: bool) -> Outcome {
    let Some(Owner::Foreign { physical_id, is_granted }) = end.block().map(|block| block.owner) else {
        return Ok(());
    };
    let refused = |why: &str| Err(Fail::new(acl::PARAM_INVALID, format!("memory imported by key: {why}")));
    if other.device().is_none() {
        return refused("no copies to or from the host");
    }
    if physical_id == issuing.physical_id {
        return if is_synchronous {
            refused("no synchronous copy on the device that holds it")
        } else {
            Ok(())
        };
    }
    if is_granted || is_enabled(issuing, |peer| peer.physical_id == physical_id) {
        return Ok(());
    }
    refused("this device has no access to the one that holds it: call aclrtDeviceEnablePeerAccess first")
}

/// `aclrtMemset` and, with a stream, `aclrtMemsetAsync`.
pub fn fill(target: usize, limit: usize, value: i32, length: usize, stream: Option<&Arc<Stream>>) -> Outcome {
    context::current()?;
    if length > limit {
        return Err(Fail::new(
            acl::PARAM_INVALID,
            format!("{length} bytes are more than the room of {limit}"),
        ));
    }
    let value = value.to_le_bytes().first().copied().unwrap_or(0);
    let target = End::locate(target, length)?;
    match stream {
        Some(stream) => stream.submit(Task::Fill { target, value, length }),
        None => copy::fill(&target, value, length),
    }
}

/// `aclrtDeviceEnablePeerAccess` from the current device.
pub fn enable_peer_access(peer: i32, enable: bool) -> Outcome {
    let issuing = context::current()?.device;
    let peer = device::by_user_id(peer)?;
    if peer.user_id == issuing.user_id {
        return Err(Fail::new(acl::PARAM_INVALID, "a device has no peer access to itself"));
    }
    let mut peers = issuing.peers.lock();
    if enable {
        peers.insert(peer.user_id);
    } else {
        peers.remove(&peer.user_id);
    }
    Ok(())
}

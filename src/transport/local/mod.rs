//! Copies inside the process: both ends of the transfer are memory that this process has mapped.
//!
//! Host to host is a memory copy, on the caller's thread when it is small, else on a few threads of our own. As soon
//! as one side is an NPU's memory the copy is queued on a stream of that NPU, by one worker per device.
//!
//! Invariants: no request is touched after it has been finished; a stop (deadline, cancel, shutdown) is seen within
//! a chunk of a host copy, or within 50 ms of a device copy.

mod device;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use self::device::DeviceCopier;
use super::ascend::Runtime;
use super::copier::{Block, HostCopier, Mover};
use super::{Job, Request};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::copy::{Caching, copy_host};
use crate::plan::Direction;

/// The transport of requests whose both ends are in this process.
pub struct Local {
    config: Arc<Config>,
    host: HostCopier,
    memory: Arc<dyn Mover>,
    /// Empty after shutdown, and then no more are made.
    devices: Mutex<Option<BTreeMap<i32, Arc<DeviceCopier>>>>,
}

impl Local {
    /// Makes the transport. Threads start with the first request that needs them.
    #[must_use]
    pub fn start(config: &Config) -> Self {
        Self {
            config: Arc::new(config.clone()),
            host: HostCopier::new("mct-copy"),
            memory: Arc::new(Memory),
            devices: Mutex::new(Some(BTreeMap::new())),
        }
    }

    /// Takes a job. Small copies between host memory are done when this returns, all others are finished later
    /// through the job's submission.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] after [`shutdown`](Self::shutdown), [`Code::Internal`] without a thread,
    /// [`Code::LibraryUnavailable`] for NPU memory without CANN. The job is finished as failed then.
    pub fn submit(&self, job: Job) -> Result<()> {
        let device = match (job.local_device, job.remote_device) {
            (None, None) => None,
            // A write is issued by the side that has the data, a read by the side that wants it: the local one.
            (Some(local), _) => Some(local),
            (None, Some(remote)) => Some(remote),
        };
        let request = Request::new(job);
        let submitted = match device {
            None => self.host.submit(&request, &self.memory),
            Some(device) => self.copier(device).and_then(|copier| copier.submit(&request)),
        };
        submitted.inspect_err(|error| request.fail(error))
    }

    /// Ends the threads; what they have not finished fails as cancelled.
    ///
    /// # Errors
    /// [`Code::StillRunning`] when a copy is still running at the deadline.
    pub fn shutdown(&self, deadline: Deadline) -> Result<()> {
        let devices = self.devices.lock().take().unwrap_or_default();
        self.host.stop();
        for copier in devices.values() {
            copier.stop();
        }
        self.host.wait_stopped(deadline)?;
        devices.values().try_for_each(|copier| copier.wait_stopped(deadline))
    }

    fn copier(&self, device: i32) -> Result<Arc<DeviceCopier>> {
        let stopped = || Error::new(Code::StaleHandle, Stage::Submit, "the engine was shut down");
        if let Some(copier) = self.devices.lock().as_ref().ok_or_else(stopped)?.get(&device) {
            return Ok(Arc::clone(copier));
        }
        let runtime = Runtime::loaded().ok_or_else(|| {
            Error::new(Code::LibraryUnavailable, Stage::Load, "NPU memory, and no CANN in this process")
                .device(device)
        })?;
        let made = DeviceCopier::start(&runtime, device, Arc::clone(&self.config))?;
        let mut devices = self.devices.lock();
        let devices = devices.as_mut().ok_or_else(stopped)?;
        Ok(Arc::clone(devices.entry(device).or_insert(made)))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown(Deadline::after(self.config.drain_grace)) {
            log::warn!("{error}");
        }
    }
}

/// Target and source of an extent, by direction.
fn ends(direction: Direction, local: u64, remote: u64) -> (u64, u64) {
    match direction {
        Direction::Read => (local, remote),
        Direction::Write => (remote, local),
    }
}

/// Copies within the process.
struct Memory;

impl Mover for Memory {
    fn copy(&self, direction: Direction, blocks: &[Block], caching: Caching) -> Result<()> {
        blocks.iter().try_for_each(|block| {
            let (target, source) = ends(direction, block.local, block.remote);
            copy_host(target, source, block.length_bytes, caching)
        })
    }
}

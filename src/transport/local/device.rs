//! Copies with an NPU's memory on at least one side, by one worker thread and stream per device.
//!
//! Requests are done one after another; inside one, copies are queued in groups with an event behind each group.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::copier::shut_down;
use super::ends;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::plan::{Direction, Route};
use crate::transport::Request;
use crate::transport::ascend::Runtime;
use crate::transport::ascend::device::Device;
use crate::transport::ascend::print::Line;
use crate::transport::ascend::raw::{CopyKind, Wait};
use crate::transport::ascend::session::{Lane, WINDOW};

/// Copies with one event behind them.
const GROUP_COPIES: usize = 64;

/// Bytes with one event behind them, and the longest single copy; short, so that a stop is prompt.
const GROUP_BYTES: u64 = 64 << 20;

/// Longest uninterrupted wait for the vendor.
const SLICE_MS: i32 = 50;

#[derive(Default)]
struct Queue {
    requests: VecDeque<Arc<Request>>,
    stopped: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Copies from and to the memory of one device.
pub struct DeviceCopier(Arc<Shared>);

impl DeviceCopier {
    /// Starts the worker.
    ///
    /// # Errors
    /// What the vendor says about the device.
    pub fn start(runtime: &Arc<Runtime>, device: i32, config: Arc<Config>) -> Result<Arc<Self>> {
        let device = Device::open(runtime, device)?;
        let shared: Arc<Shared> = Arc::default();
        let on_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("mct-copy-npu{}", device.id()))
            .spawn(move || {
                on_thread.run(&device, &config);
                on_thread.queue.lock().ended = true;
                on_thread.changed.notify_all();
            })
            .map_err(|error| {
                Error::new(Code::Internal, Stage::Submit, format!("no copying thread: {error}"))
            })?;
        Ok(Arc::new(Self(shared)))
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] after [`stop`](Self::stop).
    pub fn submit(&self, request: &Arc<Request>) -> Result<()> {
        let mut queue = self.0.queue.lock();
        if queue.stopped || queue.ended {
            return Err(Error::new(Code::StaleHandle, Stage::Submit, "the engine was shut down"));
        }
        queue.requests.push_back(Arc::clone(request));
        self.0.changed.notify_all();
        Ok(())
    }

    /// Ends the worker; what is queued fails.
    pub fn stop(&self) {
        self.0.queue.lock().stopped = true;
        self.0.changed.notify_all();
    }

    /// Waits for the worker's end.
    ///
    /// # Errors
    /// [`Code::StillRunning`] at the deadline.
    pub fn wait_stopped(&self, deadline: Deadline) -> Result<()> {
        let mut queue = self.0.queue.lock();
        while !queue.ended {
            if self.0.changed.wait_until(&mut queue, deadline.at()).timed_out() {
                return Err(Error::new(
                    Code::StillRunning,
                    Stage::Drain,
                    "a copy of an NPU is still running",
                ));
            }
        }
        Ok(())
    }
}

impl Drop for DeviceCopier {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, device: &Device, config: &Config) {
        let mut lane = None;
        let mut peers = BTreeSet::new();
        while let Some(request) = self.next() {
            let (waited, start) = (request.accepted().elapsed(), Instant::now());
            // A lane that failed is not used again: its stream has stopped.
            let result = match lane.take() {
                Some(lane) => Ok(lane),
                None => Lane::new(device),
            }
            .and_then(|fresh| {
                let result = self.copy(device, &fresh, &mut peers, &request);
                if result.is_ok() {
                    lane = Some(fresh);
                } else {
                    quiesce(&fresh, &request, config);
                }
                result
            });
            match result {
                Ok(()) if config.ascend_print => print(&request, waited, start.elapsed()),
                Ok(()) => {}
                Err(error) => request.fail(&error.device(device.id())),
            }
        }
    }

    fn next(&self) -> Option<Arc<Request>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                let left = std::mem::take(&mut queue.requests);
                drop(queue);
                for request in left {
                    request.fail(&shut_down());
                }
                return None;
            }
            if let Some(request) = queue.requests.pop_front() {
                return Some(request);
            }
            self.changed.wait(&mut queue);
        }
    }

    fn stop_reason(&self, request: &Request) -> Option<Error> {
        if self.queue.lock().stopped {
            return Some(shut_down());
        }
        request.must_stop(Stage::Execute, "the copy was stopped")
    }

    /// Does one request. On failure something of it may still be on the stream.
    fn copy(&self, device: &Device, lane: &Lane, peers: &mut BTreeSet<i32>, request: &Request) -> Result<()> {
        let kind = kind(request);
        reach(device, peers, request)?;
        let stream = lane.stream()?;
        let runtime = lane.runtime();
        // For each group in flight: the extents that have arrived with it, and its event.
        let mut groups: VecDeque<(usize, usize)> = VecDeque::with_capacity(WINDOW);
        let (mut event, mut copies, mut bytes) = (0, 0, 0);
        for (index, extent) in request.extents().iter().enumerate() {
            let mut skip_bytes = 0;
            while skip_bytes < extent.length_bytes {
                let step_bytes = (extent.length_bytes - skip_bytes).min(GROUP_BYTES);
                let (target, source) =
                    ends(request.direction(), extent.local + skip_bytes, extent.remote + skip_bytes);
                runtime.copy_async(target, source, step_bytes, kind, stream)?;
                skip_bytes += step_bytes;
                copies += 1;
                bytes += step_bytes;
                let last = skip_bytes == extent.length_bytes && index + 1 == request.extents().len();
                if copies == GROUP_COPIES || bytes >= GROUP_BYTES || last {
                    runtime.record_event(lane.event(event)?, stream)?;
                    let arrived = if skip_bytes == extent.length_bytes { index + 1 } else { index };
                    groups.push_back((arrived, event));
                    event = (event + 1) % WINDOW;
                    (copies, bytes) = (0, 0);
                }
                while groups.len() == WINDOW || (last && !groups.is_empty()) {
                    self.wait(lane, &mut groups, request)?;
                }
            }
        }
        Ok(())
    }

    fn wait(&self, lane: &Lane, groups: &mut VecDeque<(usize, usize)>, request: &Request) -> Result<()> {
        let Some((arrived, event)) = groups.front().copied() else { return Ok(()) };
        loop {
            if lane.runtime().synchronize_event(lane.event(event)?, SLICE_MS)? == Wait::Done {
                groups.pop_front();
                request.arrived(arrived);
                return Ok(());
            }
            lane.runtime().query_stream(lane.stream()?)?;
            if let Some(error) = self.stop_reason(request) {
                return Err(error);
            }
        }
    }
}

/// The line that is asked for; a copy has no link.
fn print(request: &Request, planning: Duration, executing: Duration) {
    let line = Line {
        request,
        route: Route::Local,
        link: "-",
        planning,
        submitting: None,
        executing,
        modelled_us: None,
    };
    log::info!("{line}");
}

fn kind(request: &Request) -> CopyKind {
    let job = request.job();
    let (target, source) = match job.direction {
        Direction::Read => (job.local_device, job.remote_device),
        Direction::Write => (job.remote_device, job.local_device),
    };
    match (target, source) {
        (Some(_), Some(_)) => CopyKind::DeviceToDevice,
        (None, _) => CopyKind::DeviceToHost,
        (Some(_), None) => CopyKind::HostToDevice,
    }
}

/// Makes the other device's memory reachable, once.
fn reach(device: &Device, peers: &mut BTreeSet<i32>, request: &Request) -> Result<()> {
    let job = request.job();
    for other in [job.local_device, job.remote_device].into_iter().flatten() {
        if other != device.id() && !peers.contains(&other) {
            device.runtime().enable_peer_access(device.id(), other)?;
            peers.insert(other);
        }
    }
    Ok(())
}

/// Stops the stream and waits until it is quiet, for ever if need be: nobody may reuse the memory before.
fn quiesce(lane: &Lane, request: &Request, config: &Config) {
    lane.abort();
    while !lane.quiet_within(SLICE_MS) {
        request.report_if_stuck(config.drain_grace);
    }
}

//! One NPU as this process sees it: its ids, its place among the links, and a thread that has it bound.
//!
//! Calls that need the device current (registering memory) run on that thread, so that no thread of the caller is
//! ever bound to a device by us and nothing has to be restored. Threads of our own that work on a device hold a
//! [`BoundContext`].
//!
//! Invariants: there is one [`Device`] per process and id while anybody uses it, whatever the number of engines;
//! its service thread runs one task at a time and lives until the last user is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::family::Family;
use super::rank::{Chip, SERVER_ID_LIMIT_BYTES, hccn_address};
use super::raw::{Context, Runtime};
use super::registration::DeviceMemory;
use crate::config::Config;
use crate::control::RankDevice;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// Tasks that may wait for the service thread of a device; more callers wait for a place.
const SERVICE_QUEUE_LIMIT: usize = 256;

/// `aclrtDevAttr`: the device's number in its super pod, and the super pod's.
const SUPER_POD_DEVICE_ID: u32 = 403;
const SUPER_POD_ID: u32 = 405;

/// How long opening a device may take: the vendor starts its firmware on first use.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// How long the end of a device waits for its thread.
const END_LIMIT: Duration = Duration::from_secs(2);

type Task = Box<dyn FnOnce() + Send>;

/// A context of our own, current on the thread that holds this.
pub struct BoundContext {
    runtime: Arc<Runtime>,
    context: Context,
}

impl BoundContext {
    /// Makes a context on `device` and binds this thread to it.
    ///
    /// # Errors
    /// What the vendor says.
    pub fn new(runtime: &Arc<Runtime>, device: i32) -> Result<Self> {
        let context = runtime.create_context(device)?;
        runtime.set_current_context(context)?;
        Ok(Self { runtime: Arc::clone(runtime), context })
    }
}

impl Drop for BoundContext {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.destroy_context(self.context) {
            log::warn!("{error}");
        }
    }
}

/// An NPU of this process.
pub struct Device {
    runtime: Arc<Runtime>,
    id: i32,
    physical: u32,
    chip: Chip,
    service: Option<Sender<Task>>,
    ended: Receiver<()>,
    memory: DeviceMemory,
}

/// By process id and device: a child of a fork must not use its parent's threads.
static DEVICES: Mutex<BTreeMap<(u32, i32), Weak<Device>>> = Mutex::new(BTreeMap::new());

impl Device {
    /// The device with this id (the one `aclrtSetDevice` takes), shared by all engines of the process.
    ///
    /// # Errors
    /// What the vendor says; [`Code::Timeout`] when it does not answer.
    pub fn open(runtime: &Arc<Runtime>, id: i32) -> Result<Arc<Self>> {
        let key = (std::process::id(), id);
        if let Some(device) = DEVICES.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(device);
        }
        // Made outside the lock, since it calls the vendor; of two that race the later one is dropped.
        let made = Arc::new(Self::start(runtime, id)?);
        let mut devices = DEVICES.lock();
        devices.retain(|_, device| device.strong_count() > 0);
        if let Some(device) = devices.get(&key).and_then(Weak::upgrade) {
            return Ok(device);
        }
        devices.insert(key, Arc::downgrade(&made));
        Ok(made)
    }

    fn start(runtime: &Arc<Runtime>, id: i32) -> Result<Self> {
        let chip = Chip::of(&runtime.soc_name()?);
        let physical = runtime.physical_device(id).map_err(|error| error.device(id))?;
        let (service, tasks) = bounded::<Task>(SERVICE_QUEUE_LIMIT);
        let (ready, opened) = bounded(1);
        let (end, ended) = bounded::<()>(0);
        let on_thread = Arc::clone(runtime);
        std::thread::Builder::new()
            .name(thread_name(id))
            .spawn(move || {
                serve(&on_thread, id, &tasks, &ready);
                drop(end);
            })
            .map_err(|error| Error::new(Code::Internal, Stage::Load, format!("no thread: {error}")))?;
        match opened.recv_timeout(OPEN_LIMIT) {
            Ok(result) => result?,
            Err(_) => {
                return Err(
                    Error::new(Code::Timeout, Stage::Load, "the device did not open in 60 s").device(id)
                );
            }
        }
        Ok(Self {
            runtime: Arc::clone(runtime),
            id,
            physical,
            chip,
            service: Some(service),
            ended,
            memory: DeviceMemory::default(),
        })
    }

    /// The vendor's functions.
    #[must_use]
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// The id `aclrtSetDevice` takes.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The host's number of the device.
    #[must_use]
    pub fn physical(&self) -> u32 {
        self.physical
    }

    /// Its generation.
    #[must_use]
    pub fn chip(&self) -> Chip {
        self.chip
    }

    /// What is registered on it.
    #[must_use]
    pub fn memory(&self) -> &DeviceMemory {
        &self.memory
    }

    /// Runs `work` with the device bound and waits for its result.
    ///
    /// # Errors
    /// What `work` answers; [`Code::StillRunning`] when it is not over at the deadline.
    pub fn run<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = bounded(1);
        let stuck = || {
            Error::new(
                Code::StillRunning,
                Stage::Register,
                "the device is still busy with an earlier vendor call",
            )
            .device(self.id)
            .advice("see the vendor's log; the call is not repeated while it runs")
        };
        let task: Task = Box::new(move || {
            // The receiver is gone when its deadline was past; the work was done all the same.
            let _ = sender.send(work());
        });
        let Some(service) = &self.service else { return Err(stuck()) };
        service.send_timeout(task, deadline.remaining()).map_err(|_| stuck())?;
        receiver.recv_deadline(deadline.at()).map_err(|_| stuck())?
    }

    /// Runs `work` with the device bound, some time soon; waits for a place in the queue only. Not for tasks of the
    /// service thread itself.
    pub fn run_later(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(service) = &self.service
            && service.send(Box::new(work)).is_err()
        {
            log::error!("the service thread of device {} is gone", self.id);
        }
    }

    /// Whether the calling thread is the device's own.
    #[must_use]
    pub fn on_service_thread(&self) -> bool {
        std::thread::current().name() == Some(&thread_name(self.id))
    }

    /// How this device stands in a rank table.
    ///
    /// # Errors
    /// What the vendor says about a super pod's device.
    pub fn rank(&self, config: &Config, boot_id: &str, device_port: Option<u16>) -> Result<RankDevice> {
        let text = std::fs::read_to_string(&config.hccn_conf).unwrap_or_default();
        let attribute = |attribute| -> Result<Option<String>> {
            if self.chip != Chip::A3 {
                return Ok(None);
            }
            self.runtime.device_attribute(self.id, attribute).map(|value| Some(value.to_string()))
        };
        Ok(RankDevice {
            server_id: server_id(config.server_id.as_deref().unwrap_or(boot_id)),
            device_id: self.physical,
            device_ip: hccn_address(&text, self.physical),
            super_device_id: attribute(SUPER_POD_DEVICE_ID)?,
            super_pod_id: attribute(SUPER_POD_ID)?,
            device_port,
            version: self.chip.table_version().to_owned(),
            families: Family::names(&self.runtime),
        })
    }

    /// Whether the network port of this device can be used at all: it has an address.
    #[must_use]
    pub fn has_network(&self, config: &Config) -> bool {
        std::fs::read_to_string(&config.hccn_conf)
            .is_ok_and(|text| hccn_address(&text, self.physical).is_some())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.service = None;
        // The last user may be a task of the thread itself, which cannot wait for its own end.
        if self.on_service_thread() {
            return;
        }
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(END_LIMIT) {
            log::warn!("a vendor call on device {} does not return; its thread is left behind", self.id);
        }
    }
}

fn serve(runtime: &Arc<Runtime>, id: i32, tasks: &Receiver<Task>, ready: &Sender<Result<()>>) {
    let context = match BoundContext::new(runtime, id) {
        Ok(context) => context,
        Err(error) => {
            let _ = ready.send(Err(error.device(id)));
            return;
        }
    };
    if ready.send(Ok(())).is_ok() {
        for task in tasks {
            task();
        }
    }
    drop(context);
}

/// A name for the server that the vendor takes: at most 64 bytes.
fn server_id(name: &str) -> String {
    let mut end = name.len().min(SERVER_ID_LIMIT_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

fn thread_name(id: i32) -> String {
    format!("mct-npu-{id}")
}

/// The device the calling thread has bound, else the one whose physical number is `npu`.
///
/// # Errors
/// See [`Ascend::device_for_caller`](super::Ascend::device_for_caller).
pub fn for_caller(runtime: &Runtime, npu: Option<u32>) -> Result<i32> {
    let fresh = "call torch.npu.set_device (aclrtSetDevice) on this thread first, or name the device as host:port:npu_N";
    let Some(current) = runtime.current_device()? else {
        let Some(npu) = npu else {
            return Err(Error::new(
                Code::Context,
                Stage::Configure,
                "the calling thread has no device, and the server name names none",
            )
            .advice(fresh));
        };
        let count = i32::try_from(runtime.device_count()?).unwrap_or(i32::MAX);
        let found =
            (0..count).find(|device| runtime.physical_device(*device).is_ok_and(|physical| physical == npu));
        return found.ok_or_else(|| {
            Error::new(
                Code::DeviceNotFound,
                Stage::Configure,
                format!("none of the {count} devices of this process is NPU {npu} of the host"),
            )
            .advice("npu_N is the physical number, as npu-smi info shows it; check ASCEND_RT_VISIBLE_DEVICES")
        });
    };
    match npu {
        None => Ok(current),
        Some(npu) => {
            let physical = runtime.physical_device(current)?;
            if physical == npu {
                return Ok(current);
            }
            Err(Error::new(
                Code::InvalidArgument,
                Stage::Configure,
                format!("the server name says NPU {npu}, but the calling thread has bound device {current}, which is NPU {physical}"),
            )
            .device(current)
            .advice("set the device before making the engine, or drop :npu_N from the name"))
        }
    }
}

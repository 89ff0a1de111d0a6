//! Two NPU transports in one process, on devices of the software NPU, joined by a real control connection.
#![allow(dead_code, unreachable_pub, reason = "shared by several tests, each of which uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cann_sys::LoadOptions;
use mooncake::batch::{Batch, Outcome, Submission, Waited};
use mooncake::config::Config;
use mooncake::control::{Answer, Connection, Control, Handler, Message};
use mooncake::deadline::Deadline;
use mooncake::endpoint::Incarnation;
use mooncake::error::{Code, Error, Result, Stage};
use mooncake::memory::{ByteRange, MemoryKind};
use mooncake::plan::{Direction, Extent};
use mooncake::transport::ascend::raw::CopyKind;
use mooncake::transport::ascend::staged::{Held, Memory};
use mooncake::transport::ascend::{Ascend, Runtime};
use mooncake::transport::{Job, Route};
use mooncake_test_support::detour::{self, Detour};
use mooncake_test_support::{artifacts, loopback};

pub const MIB: u64 = 1 << 20;
pub const LONG: Duration = Duration::from_secs(30);

pub fn soon() -> Deadline {
    Deadline::after(LONG)
}

pub fn runtime() -> Arc<Runtime> {
    Runtime::load(&LoadOptions::only(artifacts::software_npu())).unwrap()
}

/// Runs `work` on a thread that has `device` bound, as a caller's thread has.
pub fn on_device<T: Send>(device: i32, work: impl FnOnce(&Runtime) -> T + Send) -> T {
    let runtime = runtime();
    std::thread::scope(|scope| {
        scope
            .spawn(move || {
                let context = runtime.create_context(device).unwrap();
                let result = work(&runtime);
                runtime.destroy_context(context).unwrap();
                result
            })
            .join()
            .unwrap()
    })
}

pub fn allocate(device: i32, length_bytes: u64) -> u64 {
    on_device(device, |runtime| runtime.allocate_device(length_bytes).unwrap())
}

pub fn free(device: i32, address: u64) {
    on_device(device, |runtime| runtime.free_device(address).unwrap());
}

pub fn address_of(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

pub fn store(device: i32, address: u64, bytes: &[u8]) {
    on_device(device, |runtime| {
        runtime.copy(address, address_of(bytes), bytes.len() as u64, CopyKind::HostToDevice).unwrap();
    });
}

pub fn load(device: i32, address: u64, length_bytes: u64) -> Vec<u8> {
    let bytes = vec![0_u8; usize::try_from(length_bytes).unwrap()];
    on_device(device, |runtime| {
        runtime.copy(address_of(&bytes), address, length_bytes, CopyKind::DeviceToHost).unwrap();
    });
    std::hint::black_box(bytes)
}

pub fn pattern(seed: u64, length_bytes: u64) -> Vec<u8> {
    (0..length_bytes)
        .map(|index| (index.wrapping_mul(31).wrapping_add(index >> 8).wrapping_add(seed) % 251) as u8)
        .collect()
}

/// Set in the process that runs the body of a test.
const INSIDE: &str = "MOONCAKE_TEST_INSIDE";

/// Whether this is the process that runs the body; the other one starts it and passes on its verdict.
pub fn inside(test: &str, settings: &[(&str, &str)]) -> bool {
    if std::env::var(INSIDE).is_ok_and(|name| name == test) {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, test)
        .env("CANN_SIM_NAMESPACE", format!("{test}-{}", std::process::id()))
        .env("CANN_SIM_FAULT_SOCKET", "1")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

struct Messages {
    ascend: Arc<Ascend>,
    deaf: bool,
    /// Of a release that does not know of slots.
    old: bool,
}

impl Handler for Messages {
    fn request(&self, from: &Arc<Connection>, message: Message) -> Result<Message> {
        if self.deaf {
            std::thread::sleep(Duration::from_secs(2));
        }
        self.ascend.message(from, message).unwrap_or(Ok(Message::Done))
    }

    fn serve(&self, from: &Arc<Connection>, message: Message, answer: Answer) {
        if self.old && matches!(message, Message::OpenSlot { .. } | Message::MoveDirect(_)) {
            let text = "a control request cannot be read: unknown variant";
            return answer.give(Err(Error::new(Code::MalformedJson, Stage::Connect, text)));
        }
        if let Some((message, answer)) = self.ascend.slot_request(from, message, answer) {
            answer.give(self.request(from, message));
        }
    }

    fn lost(&self, peer: &Incarnation, why: &Error) {
        self.ascend.peer_lost(peer, why);
    }
}

/// What peers may reach by way of slots.
#[derive(Default)]
pub struct Ranges(Mutex<Vec<(ByteRange, MemoryKind, Arc<()>)>>, AtomicBool);

impl Ranges {
    pub fn add(&self, range: ByteRange, kind: MemoryKind) {
        self.0.lock().unwrap().push((range, kind, Arc::new(())));
    }

    /// From now on, or not any more, whoever wants to reach any of them meets a defect.
    pub fn set_defect(&self, there: bool) {
        self.1.store(there, Ordering::Release);
    }

    pub fn remove(&self, start: u64) {
        self.0.lock().unwrap().retain(|(range, ..)| range.start() != start);
    }

    /// How many requests of peers hold the range that starts there.
    pub fn holds(&self, start: u64) -> usize {
        let ranges = self.0.lock().unwrap();
        ranges
            .iter()
            .find(|(range, ..)| range.start() == start)
            .map_or(0, |(_, _, hold)| Arc::strong_count(hold) - 1)
    }
}

impl Memory for Ranges {
    fn pin(&self, range: ByteRange) -> Option<Held> {
        assert!(!self.1.load(Ordering::Acquire), "scripted");
        let ranges = self.0.lock().unwrap();
        let (whole, kind, hold) = ranges.iter().find(|(whole, ..)| whole.contains(range))?;
        Some(Held { range: *whole, kind: *kind, hold: Arc::<()>::clone(hold) })
    }
}

/// What memory is at the ends of a transfer, and which way it goes.
#[derive(Clone, Copy, Default)]
pub struct Ends {
    pub local_host: bool,
    pub remote_host: bool,
    pub route: Route,
}

pub const STAGED: Ends = Ends { local_host: false, remote_host: false, route: Route::Staged };

pub struct Node {
    pub ascend: Arc<Ascend>,
    pub control: Control,
    pub incarnation: Incarnation,
    pub device: i32,
    pub ranges: Arc<Ranges>,
}

pub fn node_with(device: i32, config: &Config, deaf: bool) -> Node {
    make(device, config, deaf, false)
}

/// A node of a release without a relay agent.
pub fn old_node(device: i32) -> Node {
    make(device, &Config::default(), false, true)
}

fn make(device: i32, config: &Config, deaf: bool, old: bool) -> Node {
    let incarnation = Incarnation::new(None).unwrap();
    let ascend = Arc::new(Ascend::start(runtime(), config, incarnation.clone()).unwrap());
    ascend.attach(device).unwrap();
    let ranges = Arc::<Ranges>::default();
    ascend.serve(Arc::<Ranges>::clone(&ranges));
    let handler = Arc::new(Messages { ascend: Arc::clone(&ascend), deaf, old });
    let control = Control::start(config, incarnation.clone(), &format!("node-{device}:1"), handler).unwrap();
    Node { ascend, control, incarnation, device, ranges }
}

pub fn node(device: i32) -> Node {
    node_with(device, &Config::default(), false)
}

impl Node {
    pub fn buffer(&self, length_bytes: u64) -> u64 {
        let address = allocate(self.device, length_bytes);
        self.register(address, length_bytes);
        address
    }

    pub fn register(&self, address: u64, length_bytes: u64) {
        let range = ByteRange::new(address, length_bytes).unwrap();
        assert!(self.ascend.register(range, MemoryKind::Device(self.device), self.device).unwrap());
        self.ranges.add(range, MemoryKind::Device(self.device));
    }

    /// Memory of the host that peers may reach.
    pub fn host(&self, bytes: &[u8]) -> u64 {
        let address = address_of(bytes);
        self.ranges.add(ByteRange::new(address, bytes.len() as u64).unwrap(), MemoryKind::Host);
        address
    }

    pub fn unregister(&self, address: u64, length_bytes: u64) -> Result<()> {
        self.ranges.remove(address);
        self.ascend.unregister(ByteRange::new(address, length_bytes).unwrap(), self.device, soon())
    }

    pub fn release(&self, address: u64, length_bytes: u64) {
        self.unregister(address, length_bytes).unwrap();
        free(self.device, address);
    }

    pub fn connect(&self, to: &Self) -> Arc<Connection> {
        self.control.connect("127.0.0.1", to.control.port(), &to.incarnation, soon()).unwrap()
    }

    /// Connects by a way that can be held up; whatever follows between the two goes over it.
    pub fn connect_by_detour(&self, to: &Self) -> Detour {
        let detour = Detour::to(to.control.port());
        self.control.connect(&loopback::host(), detour.port(), &to.incarnation, soon()).unwrap();
        detour
    }

    pub fn start(
        &self,
        to: &Self,
        direction: Direction,
        blocks: &[(u64, u64, u64)],
        deadline: Deadline,
    ) -> (Arc<Batch>, Result<()>) {
        self.start_by(to, direction, blocks, deadline, Ends::default())
    }

    /// The same with host memory at an end, or with a route.
    pub fn start_by(
        &self,
        to: &Self,
        direction: Direction,
        blocks: &[(u64, u64, u64)],
        deadline: Deadline,
        ends: Ends,
    ) -> (Arc<Batch>, Result<()>) {
        let batch = Arc::new(Batch::new(u32::try_from(blocks.len()).unwrap()).unwrap());
        let submission = Submission::start(&batch, blocks.iter().map(|block| block.2), deadline).unwrap();
        let extents = blocks
            .iter()
            .zip(0..)
            .map(|(&(local, remote, length_bytes), task)| Extent {
                local,
                remote,
                length_bytes,
                first_task: task,
                task_count: 1,
                skip_bytes: 0,
            })
            .collect();
        let job = Job {
            direction,
            extents,
            submission,
            pins: Vec::new(),
            deadline,
            local_device: (!ends.local_host).then_some(self.device),
            remote_device: (!ends.remote_host).then_some(to.device),
            route: ends.route,
            peer: format!("node-{}:1", to.device).into(),
        };
        let submitted = self.ascend.submit(job, &self.connect(to));
        (batch, submitted)
    }

    pub fn transfer(
        &self,
        to: &Self,
        direction: Direction,
        blocks: &[(u64, u64, u64)],
    ) -> (Outcome, Option<Error>) {
        let (batch, submitted) = self.start(to, direction, blocks, soon());
        submitted.unwrap();
        finished(&batch)
    }

    pub fn transfer_by(
        &self,
        to: &Self,
        direction: Direction,
        blocks: &[(u64, u64, u64)],
        ends: Ends,
    ) -> (Outcome, Option<Error>) {
        let (batch, submitted) = self.start_by(to, direction, blocks, soon(), ends);
        submitted.unwrap();
        finished(&batch)
    }

    pub fn must_transfer_by(&self, to: &Self, direction: Direction, blocks: &[(u64, u64, u64)], ends: Ends) {
        let (outcome, error) = self.transfer_by(to, direction, blocks, ends);
        assert!(outcome.is_success(), "{outcome:?}: {}", error.unwrap());
    }

    pub fn must_transfer(&self, to: &Self, direction: Direction, blocks: &[(u64, u64, u64)]) {
        let (outcome, error) = self.transfer(to, direction, blocks);
        assert!(outcome.is_success(), "{outcome:?}: {}", error.unwrap());
    }
}

pub fn finished(batch: &Batch) -> (Outcome, Option<Error>) {
    match batch.wait(Deadline::after(LONG * 2)) {
        Waited::Finished(outcome) => (outcome, batch.first_error()),
        other => panic!("{other:?}"),
    }
}

/// Sends until nothing more has room, not even what is short.
pub fn fill(connection: &Connection) {
    let text = |length: usize| Message::CloseChannel { channel: "x".repeat(length) };
    detour::fill(|length| connection.send(text(length)).is_ok());
}

/// Many gigabytes between two small buffers, so that the transfer lasts as long as it is let.
pub fn endless(near: u64, far: u64) -> Vec<(u64, u64, u64)> {
    vec![(near, far, 256 * MIB); 200]
}

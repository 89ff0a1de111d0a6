//! A server as a child process, with what is lent to it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mooncake_wire::method::*;
use mooncake_wire::model::{ObjectMeta, ReplicateConfig, Segment, Tenant, Uuid};

use crate::client::Client;

/// Lent memory: nobody touches it, the masters only divide it.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES: u64 = 64 << 30;
/// Objects that reads find.
pub const READABLE: usize = 100_000;
pub const OWNER: Uuid = Uuid { first: 1, second: 1 };

#[derive(Clone)]
pub enum Kind {
    Ours,
    Floor,
    Upstream(String),
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Floor => "floor",
            Self::Upstream(_) => "upstream",
        }
    }
}

pub struct Memory {
    pub idle_mib: f64,
    pub full_mib: f64,
    pub bytes_per_object: f64,
    pub removed_mib: f64,
}

pub struct Server {
    kind: Kind,
    child: Child,
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    pinger: Option<JoinHandle<()>>,
}

/// A key of 97 bytes.
pub fn key(space: &str, index: usize) -> String {
    format!("{space:-<64}@1@0@{index:028}")
}

/// A port that is free now. Another process may take it; the bench then ends with an error.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port").port()
}

fn spawn(kind: &Kind) -> (Child, SocketAddr) {
    if let Kind::Floor = kind {
        let own = std::env::current_exe().expect("own path");
        let mut child = Command::new(own).arg("floor").stdout(Stdio::piped()).spawn().expect("floor");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("address");
        return (child, line.trim().parse().expect("address"));
    }
    let program = match kind {
        Kind::Upstream(path) => path.clone(),
        _ => {
            let own = std::env::current_exe().expect("own path");
            own.ancestors().nth(2).expect("target").join("mooncake_master").display().to_string()
        }
    };
    let (rpc, metrics) = (free_port(), free_port());
    let child = Command::new(program)
        .args([format!("--rpc_port={rpc}"), format!("--metrics_port={metrics}")])
        .args(["--rpc_address=127.0.0.1", "--default_kv_lease_ttl=1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("master");
    (child, SocketAddr::from(([127, 0, 0, 1], rpc)))
}

fn wait_for(address: SocketAddr) -> Client {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match Client::connect(address) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn segments(bytes: u64) -> Vec<Segment> {
    (0..SEGMENTS)
        .map(|index| Segment {
            id: Uuid { first: 7, second: index },
            name: format!("10.0.0.{index}:12300"),
            base: 0x1000_0000_0000 + index * bytes,
            size: bytes,
            te_endpoint: format!("10.0.0.{index}:12300"),
            protocol: "tcp".into(),
            host_id: String::new(),
        })
        .collect()
}

impl Server {
    pub fn start(kind: &Kind) -> Self {
        Self::with_segments(kind, SEGMENT_BYTES)
    }

    /// A server whose sixteen segments have this many bytes each.
    fn with_segments(kind: &Kind, bytes: u64) -> Self {
        let (child, address) = spawn(kind);
        let mut client = wait_for(address);
        let stop = Arc::new(AtomicBool::new(false));
        let mut pinger = None;
        if !matches!(kind, Kind::Floor) {
            let _ = client.call(&ServiceReady {});
            client.call(&ReMountSegment { segments: segments(bytes), client: OWNER }).expect("mount");
            let stop = Arc::clone(&stop);
            pinger = Some(std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    client.call(&Ping { client: OWNER }).expect("ping");
                    std::thread::park_timeout(Duration::from_secs(1));
                }
            }));
        }
        Self { kind: kind.clone(), child, address, stop, pinger }
    }

    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub fn is_floor(&self) -> bool {
        matches!(self.kind, Kind::Floor)
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address).expect("connect")
    }

    /// Puts objects, whole, in batches.
    pub fn put(&self, space: &str, objects: usize) {
        let mut client = self.client();
        for start in (0..objects).step_by(500) {
            let keys: Vec<String> =
                (start..(start + 500).min(objects)).map(|index| key(space, index)).collect();
            let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let lengths = vec![4096; keys.len()];
            let config = ReplicateConfig::default();
            let tenant = Tenant::default();
            let start = BatchPutStart { client: OWNER, keys: keys.clone(), lengths, config, tenant };
            assert!(client.call(&start).iter().all(Result::is_ok), "{}: space", self.name());
            let objects = keys.iter().map(|key| ObjectMeta { key, checksum: None }).collect();
            let end = BatchPutEnd { client: OWNER, objects, ..BatchPutEnd::default() };
            assert!(client.call(&end).iter().all(Result::is_ok));
        }
    }

    pub fn fill(&self) {
        if !self.is_floor() {
            self.put("read", READABLE);
        }
    }

    /// Processor time of the process so far, its ended threads included, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("pid"));
        let clock = nix::time::clock_getcpuclockid(pid).expect("the process runs");
        std::time::Duration::from(clock.now().expect("clock")).as_secs_f64() * 1e6
    }

    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().split(' ').next().and_then(|kib| kib.parse::<f64>().ok()).expect("number") / 1024.0
    }

    pub fn memory(&self, objects: usize) -> Memory {
        let idle_mib = self.resident_mib();
        self.put("memory", objects);
        let full_mib = self.resident_mib();
        let removed = self.client().call(&RemoveAll { force: true, ..RemoveAll::default() });
        assert_eq!(usize::try_from(removed), Ok(objects));
        // An allocator may take a moment to give pages back.
        let mut removed_mib = self.resident_mib();
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(100));
            removed_mib = removed_mib.min(self.resident_mib());
        }
        let bytes_per_object = (full_mib - idle_mib) * f64::from(1 << 20) / objects as f64;
        Memory { idle_mib, full_mib, bytes_per_object, removed_mib }
    }

    /// Puts on a pool that is full: latencies of those that got space, in microseconds, and the share that got none.
    pub fn full_pool(kind: &Kind, objects: usize, puts: usize) -> (Vec<f64>, f64) {
        let server = Self::with_segments(kind, (objects as u64 * 4096 / SEGMENTS).next_multiple_of(1 << 24));
        let mut client = server.client();
        let mut filled = 0;
        while filled < objects * 2 {
            let name = key("full", filled);
            if !put_one(&mut client, name.as_bytes()) {
                break;
            }
            filled += 1;
        }
        let (mut latencies, mut failures) = (Vec::new(), 0);
        for index in 0..puts {
            let name = key("more", index);
            let begin = Instant::now();
            if put_one(&mut client, name.as_bytes()) {
                latencies.push(begin.elapsed().as_secs_f64() * 1e6);
            } else {
                failures += 1;
            }
        }
        latencies.sort_by(f64::total_cmp);
        (latencies, failures as f64 / puts as f64 * 100.0)
    }

    /// Milliseconds until the first connection is accepted, and from SIGTERM to the end.
    pub fn start_and_stop_ms(kind: &Kind) -> (f64, f64) {
        let begin = Instant::now();
        let (mut child, address) = spawn(kind);
        let mut client = wait_for(address);
        let _ = client.call(&ServiceReady {});
        let start = begin.elapsed().as_secs_f64() * 1000.0;
        drop(client);
        let begin = Instant::now();
        let signalled = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
        assert!(signalled.success());
        child.wait().expect("wait");
        (start, begin.elapsed().as_secs_f64() * 1000.0)
    }
}

/// Start and end of a put; false if there is no space.
fn put_one(client: &mut Client, key: &[u8]) -> bool {
    let start = PutStart { client: OWNER, key, length: 4096, ..PutStart::default() };
    if client.call(&start).is_err() {
        return false;
    }
    let end = PutEnd { client: OWNER, object: ObjectMeta { key, checksum: None }, ..PutEnd::default() };
    client.call(&end).is_ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(pinger) = self.pinger.take() {
            pinger.thread().unpark();
            let _ = pinger.join();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

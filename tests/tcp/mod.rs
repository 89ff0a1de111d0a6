//! What the tests of the TCP transport share: served memory, jobs, and a raw client.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, and its patterns are bytes"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use mooncake::batch::{Batch, Outcome, Submission, Waited};
use mooncake::config::Config;
use mooncake::deadline::Deadline;
use mooncake::error::Error;
use mooncake::memory::{ByteRange, Location, MemoryKind};
use mooncake::plan::{Direction, Extent};
use mooncake::registry::Registry;
use mooncake::transport::Job;
use mooncake::transport::tcp::{Hold, Served, Settings, Target, Tcp, TcpPeer};
use mooncake_test_support::loopback;

pub const LONG: Duration = Duration::from_secs(30);

/// A registry that is served.
pub struct Memory(pub Registry);

impl Served for Memory {
    fn pin(&self, range: ByteRange) -> Option<Hold> {
        self.0
            .find_containing(range)
            .filter(|region| region.kind() == MemoryKind::Host)?
            .pin()
            .map(Hold::Region)
    }
}

impl Memory {
    pub fn of(buffers: &[&[u8]]) -> Arc<Self> {
        let registry = Registry::new();
        for buffer in buffers {
            let range = ByteRange::new(address_of(buffer), buffer.len() as u64).unwrap();
            registry.insert(range, Location::Cpu(Some(0)), MemoryKind::Host).unwrap();
        }
        Arc::new(Self(registry))
    }
}

pub fn address_of(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

pub fn target_of(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|index| (index.wrapping_mul(31).wrapping_add(index >> 8).wrapping_add(seed * 7) % 253) as u8)
        .collect()
}

pub fn settings() -> Settings {
    Settings::of(&Config::default())
}

pub fn serve(memory: &Arc<Memory>) -> Tcp {
    Tcp::start(settings(), Arc::clone(memory) as Arc<dyn Served>).unwrap()
}

pub fn target(port: u16, version: u32) -> Target {
    Target { name: "peer".into(), hosts: vec![loopback::host()], port, version }
}

pub fn connect(client: &Tcp, port: u16, version: u32) -> Arc<TcpPeer> {
    client.connect(&target(port, version), Deadline::after(LONG)).unwrap()
}

pub fn job(direction: Direction, blocks: &[(u64, u64, u64)], limit: Duration) -> (Arc<Batch>, Job) {
    let deadline = Deadline::after(limit);
    let batch = Arc::new(Batch::new(u32::try_from(blocks.len()).unwrap()).unwrap());
    let submission = Submission::start(&batch, blocks.iter().map(|block| block.2), deadline).unwrap();
    let extents = blocks
        .iter()
        .zip(0..)
        .map(|(&(local, remote, length_bytes), first_task)| Extent {
            local,
            remote,
            length_bytes,
            first_task,
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
        local_device: None,
        remote_device: None,
        route: mooncake::transport::Route::Any,
        peer: "peer".into(),
    };
    (batch, job)
}

pub fn run(
    client: &Tcp,
    peer: &Arc<TcpPeer>,
    direction: Direction,
    blocks: &[(u64, u64, u64)],
) -> Arc<Batch> {
    let (batch, job) = job(direction, blocks, LONG);
    client.submit(job, peer);
    batch
}

pub fn finished(batch: &Batch) -> (Outcome, Option<Error>) {
    match batch.wait(Deadline::after(LONG)) {
        Waited::Finished(outcome) => (outcome, batch.first_error()),
        other => panic!("{other:?}"),
    }
}

pub fn must(client: &Tcp, peer: &Arc<TcpPeer>, direction: Direction, blocks: &[(u64, u64, u64)]) {
    let (outcome, error) = finished(&run(client, peer, direction, blocks));
    assert!(outcome.is_success(), "{error:?}");
}

/// A client that is only a socket.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn to(port: u16) -> Self {
        let stream = loopback::connect(port);
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// A request header as it is captured from upstream, with garbage in the padding.
    pub fn header(operation: u8, address: u64, length_bytes: u64) -> Vec<u8> {
        let mut bytes = length_bytes.to_le_bytes().to_vec();
        bytes.extend(address.to_le_bytes());
        bytes.push(operation);
        bytes.extend([0x62, 0x90, 0xfc, 0xbe, 0x55, 0, 0]);
        bytes
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

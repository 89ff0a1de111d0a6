//! What the tests of the promises share: `promise_peer` as a child process, its failures as values, and the control
//! socket of the software NPU in it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::Command;
use std::time::Duration;

use mooncake_test_support::{Child, SoftwareNpu, artifacts, loopback, wait_until};

/// Longest time for an answer: nothing of these tests takes as long.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Memory that HCCS can take comes in pages of this size.
pub const PAGE: u64 = 2 << 20;

/// A software NPU whose faults can be changed while it runs.
pub fn software_npu(devices: u32) -> SoftwareNpu {
    SoftwareNpu::new().devices(devices).variable("CANN_SIM_FAULT_SOCKET", "1")
}

/// A process with an engine.
pub struct Peer {
    pub child: Child,
    name: String,
    number: u32,
    namespace: String,
}

/// An answer that has not been read yet.
#[derive(Debug, Clone, Copy)]
pub struct Pending(u32);

/// The record of a failure.
#[derive(Debug, Clone)]
pub struct Failure(pub serde_json::Value);

impl Failure {
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or("")
    }

    pub fn code(&self) -> &str {
        self.text("code")
    }

    pub fn stage(&self) -> &str {
        self.text("stage")
    }
}

impl Peer {
    /// Starts a process on a device, or on none.
    pub fn start(npu: &SoftwareNpu, device: Option<u32>) -> Self {
        Self::start_with(npu, device, &[])
    }

    /// The same with more variables.
    pub fn start_with(npu: &SoftwareNpu, device: Option<u32>, variables: &[(&str, &str)]) -> Self {
        Self::try_start(npu, device, variables).unwrap_or_else(|line| panic!("{line}"))
    }

    /// The same; the line of the failure when no engine can be made.
    pub fn try_start(
        npu: &SoftwareNpu,
        device: Option<u32>,
        variables: &[(&str, &str)],
    ) -> Result<Self, String> {
        Self::try_start_as(&loopback::host(), npu, device, variables)
    }

    /// The same under a local name.
    pub fn try_start_as(
        local_name: &str,
        npu: &SoftwareNpu,
        device: Option<u32>,
        variables: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut command = Command::new(artifacts::program("promise_peer"));
        npu.apply(&mut command);
        command.env("MC_LOG_LEVEL", "WARNING").envs(variables.iter().copied());
        command.arg(device.map_or_else(|| "-".to_owned(), |device| device.to_string())).arg(local_name);
        Self::try_start_by(&mut command, npu)
    }

    /// The same by a command that is complete, and runs the program in its own way.
    pub fn try_start_by(command: &mut Command, npu: &SoftwareNpu) -> Result<Self, String> {
        let child = Child::start(command);
        let line =
            child.wait_for_line(LIMIT, |line| line.starts_with("ready ") || line.starts_with("0 failed"));
        let Some(name) = line.strip_prefix("ready ") else { return Err(line) };
        let namespace = npu
            .variables()
            .iter()
            .find(|(name, _)| name == "CANN_SIM_NAMESPACE")
            .map_or_else(String::new, |(_, value)| value.clone());
        Ok(Self { name: name.to_owned(), child, number: 0, namespace })
    }

    /// The name that peers open.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// The process id, for signals.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command without waiting for its answer.
    pub fn begin(&mut self, command: &str) -> Pending {
        self.number += 1;
        self.child.send(&format!("{} {command}", self.number));
        Pending(self.number)
    }

    /// Waits for an answer.
    pub fn finish(&self, pending: Pending) -> Result<String, Failure> {
        self.finish_within(pending, LIMIT)
    }

    /// The same with another limit.
    pub fn finish_within(&self, pending: Pending, limit: Duration) -> Result<String, Failure> {
        let start = format!("{} ", pending.0);
        let line = self.child.wait_for_line(limit, |line| line.starts_with(&start));
        let answer = &line[start.len()..];
        match answer.split_once(' ').unwrap_or((answer, "")) {
            ("ok", values) => Ok(values.to_owned()),
            ("failed", record) => Err(Failure(serde_json::from_str(record).unwrap())),
            _ => panic!("{line}"),
        }
    }

    /// Whether the answer is there.
    pub fn has_finished(&self, pending: Pending) -> bool {
        let start = format!("{} ", pending.0);
        self.child.output().lines().any(|line| line.starts_with(&start))
    }

    /// Gives a command and waits for its answer.
    pub fn ask(&mut self, command: &str) -> Result<String, Failure> {
        let pending = self.begin(command);
        self.finish(pending)
    }

    /// The same, where a failure fails the test.
    #[track_caller]
    pub fn must(&mut self, command: &str) -> String {
        match self.ask(command) {
            Ok(values) => values,
            Err(failure) => panic!("{command}: {}\n{}", failure.0, self.child.output()),
        }
    }

    /// The same, where success fails the test.
    #[track_caller]
    pub fn must_fail(&mut self, command: &str) -> Failure {
        match self.ask(command) {
            Ok(values) => panic!("{command} succeeded: {values}\n{}", self.child.output()),
            Err(failure) => failure,
        }
    }

    /// Allocates and registers host memory of a kind, `host` or `pool` (which peers of this host map), and fills it with the pattern of `seed`.
    #[track_caller]
    pub fn host_buffer(&mut self, kind: &str, length_bytes: u64, seed: u64) -> u64 {
        let address: u64 = self.must(&format!("{kind} {length_bytes}")).parse().unwrap();
        self.must(&format!("fill {address} {length_bytes} {seed}"));
        self.must(&format!("register {address} {length_bytes} cpu:0"));
        address
    }

    /// Allocates and registers memory of a device and fills it with the pattern of `seed`.
    #[track_caller]
    pub fn buffer(&mut self, device: u32, length_bytes: u64, seed: u64) -> u64 {
        let address: u64 = self.must(&format!("alloc {device} {length_bytes}")).parse().unwrap();
        self.must(&format!("fill {address} {length_bytes} {seed}"));
        self.must(&format!("register {address} {length_bytes} npu:{device}"));
        address
    }

    #[track_caller]
    pub fn fill(&mut self, address: u64, length_bytes: u64, seed: u64) {
        self.must(&format!("fill {address} {length_bytes} {seed}"));
    }

    /// Whether the memory holds the pattern of `seed`.
    #[track_caller]
    pub fn holds(&mut self, address: u64, length_bytes: u64, seed: u64) -> bool {
        self.must(&format!("mismatch {address} {length_bytes} {seed}")) == "none"
    }

    /// Gives the software NPU of this process a line of its control socket.
    #[track_caller]
    pub fn fault(&self, line: &str) -> String {
        self.fault_of(self.id(), line)
    }

    /// The same for another process on the same software NPU.
    #[track_caller]
    pub fn fault_of(&self, process: u32, line: &str) -> String {
        let name = format!("cann-sim-fault/{}/{process}", self.namespace);
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let mut socket = UnixStream::connect_addr(&address).expect("the software NPU has a control socket");
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        writeln!(socket, "{line}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(!answer.starts_with("error"), "{answer}");
        answer.trim().to_owned()
    }

    /// How often a vendor's function was called, by device.
    pub fn calls(&self, name: &str) -> Vec<(String, u64)> {
        self.fault("calls")
            .split(';')
            .filter_map(|entry| {
                let (call, count) = entry.split_once(' ')?;
                let (function, device) = call.split_once('/')?;
                (function == name).then(|| (device.to_owned(), count.parse().unwrap()))
            })
            .collect()
    }

    /// How often a vendor's function was called on any device.
    pub fn count(&self, name: &str) -> u64 {
        self.calls(name).iter().map(|(_, count)| count).sum()
    }

    /// Waits until the stream has come to a put or get that was not there before `earlier` calls.
    #[track_caller]
    pub fn wait_for_calls(&self, name: &str, earlier: u64) {
        assert!(wait_until(LIMIT, || self.count(name) > earlier), "{name} was not called");
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn quit(mut self) {
        self.child.close_input();
        let status = self.child.wait(LIMIT);
        assert!(status.success(), "{status}\n{}", self.child.output());
    }
}

/// The words of a transfer: all of `length_bytes` in blocks of `block_bytes`.
pub fn moving(
    direction: &str,
    local: u64,
    peer: &str,
    remote: u64,
    length_bytes: u64,
    block_bytes: u64,
    timeout_ms: u64,
) -> String {
    format!("{direction} {local} {peer} {remote} {length_bytes} {block_bytes} {timeout_ms}")
}

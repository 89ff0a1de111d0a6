//! `tests/c/peer.c` as a child process: one engine on one software NPU, driven by commands.

use std::process::Command;
use std::time::Duration;

use mooncake_test_support::{Child, SoftwareNpu, loopback};

use crate::build::{Program, succeed};

/// Longest time for an answer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A process with an engine.
pub struct Peer {
    child: Child,
    name: String,
    number: u32,
}

/// A registered range of a peer.
#[derive(Clone, Copy)]
pub struct Region {
    pub number: u32,
    pub address: u64,
    pub length_bytes: u64,
}

/// How the requests of a move lie.
#[derive(Clone, Copy)]
pub struct Shape {
    pub block_bytes: u64,
    pub scattered: bool,
}

/// An answer that has not been read yet.
pub struct Pending(u32);

impl Peer {
    /// Starts a process on a device.
    pub fn start(program: &Program, npu: &SoftwareNpu, device: u32) -> Self {
        let mut command = program.command();
        npu.apply(&mut command);
        command.env("MC_LOG_LEVEL", "WARNING").arg(device.to_string()).arg(loopback::host());
        let child = Child::start(&mut command);
        let ready =
            child.wait_for_line(LIMIT, |line| line.starts_with("ready ") || line.starts_with("0 failed"));
        let name =
            ready.strip_prefix("ready ").unwrap_or_else(|| panic!("{ready}\n{}", child.output())).to_owned();
        Self { child, name, number: 0 }
    }

    /// The name that peers open.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives a command without waiting for its answer.
    pub fn begin(&mut self, command: &str) -> Pending {
        self.number += 1;
        self.child.send(&format!("{} {command}", self.number));
        Pending(self.number)
    }

    /// Waits for an answer; the text after its number.
    pub fn finish(&self, pending: Pending) -> String {
        let start = format!("{} ", pending.0);
        self.child.wait_for_line(LIMIT, |line| line.starts_with(&start))[start.len()..].to_owned()
    }

    /// Gives a command and waits for its answer.
    pub fn ask(&mut self, command: &str) -> String {
        let pending = self.begin(command);
        self.finish(pending)
    }

    /// The same, where anything but "ok" fails the test; the rest of the answer.
    pub fn must(&mut self, command: &str) -> String {
        let answer = self.ask(command);
        let rest = answer.strip_prefix("ok");
        rest.unwrap_or_else(|| panic!("{command}: {answer}\n{}", self.child.output())).trim().to_owned()
    }

    /// Allocates and registers NPU or host memory and fills it with the pattern of `seed`.
    pub fn region(&mut self, kind: &str, length_bytes: u64, seed: u64) -> Region {
        let answer = self.must(&format!("alloc {kind} {length_bytes}"));
        let (number, address) = answer.split_once(' ').unwrap();
        let region =
            Region { number: number.parse().unwrap(), address: address.parse().unwrap(), length_bytes };
        self.must(&format!("fill {} {seed}", region.number));
        region
    }

    /// Fills a region anew.
    pub fn fill(&mut self, region: Region, seed: u64) {
        self.must(&format!("fill {} {seed}", region.number));
    }

    /// Fails the test unless every byte of the region is that of `seed`'s pattern.
    pub fn check(&mut self, region: Region, seed: u64) {
        self.must(&format!("check {} {seed}", region.number));
    }

    /// Sends the process a signal, for example `STOP`.
    pub fn signal(&self, name: &str) {
        succeed(Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()));
    }

    /// Ends the process at once, as a crash does.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Ends it in good order.
    pub fn quit(mut self) {
        self.child.close_input();
        let status = self.child.wait(LIMIT);
        assert!(status.success(), "{status}\n{}", self.child.output());
    }
}

/// The command that moves all of `remote` by the calls of `transfer_engine_c.h`.
pub fn moving(direction: &str, local: Region, peer: &str, remote: Region, shape: Shape) -> String {
    transfer("move", direction, local, peer, remote, shape)
}

/// The same by `mooncake_transfer_run`.
pub fn running(direction: &str, local: Region, peer: &str, remote: Region, shape: Shape) -> String {
    transfer("run", direction, local, peer, remote, shape)
}

fn transfer(call: &str, direction: &str, local: Region, peer: &str, remote: Region, shape: Shape) -> String {
    let order = if shape.scattered { "scatter" } else { "order" };
    format!(
        "{call} {direction} {} {peer} {} {} {} {order}",
        local.number, remote.address, remote.length_bytes, shape.block_bytes
    )
}

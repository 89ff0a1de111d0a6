//! What the interop tests share: upstream's wheels, its engine in a process of its own, and ours.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mooncake::config::Config;
use mooncake::engine::{Engine, EngineOptions};
use mooncake_test_support::{Child, artifacts, skip};
use serde_json::Value;

pub const LONG: Duration = Duration::from_secs(60);
pub const NEWEST: &str = "0.3.13.post1";
pub const RELEASES: [&str; 3] = [NEWEST, "0.3.10.post2", "0.3.8"];
/// The releases whose masters and store clients are taken as peers.
pub const STORE_RELEASES: [&str; 2] = [NEWEST, "0.3.11.post1"];

/// The directory of the peers, if there is one with this release.
pub fn peers(release: &str) -> Option<PathBuf> {
    mooncake_test_support::peers::directory(release)
}

pub fn python_of(directory: &Path, release: &str) -> Command {
    mooncake_test_support::peers::python(directory, release)
}

/// Upstream's engine in a process of its own.
pub struct Upstream {
    pub child: Child,
    pub name: String,
    pub base: u64,
    asked: usize,
}

impl Upstream {
    pub fn start(release: &str, host: &str, variables: &[(&str, &str)]) -> Option<Self> {
        Self::start_with(release, &[host, "P2PHANDSHAKE"], variables)
    }

    pub fn start_with(release: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Option<Self> {
        let directory = peers(release)?;
        let mut command = python_of(&directory, release);
        command.arg(artifacts::workspace().join("tests/interop/engine_peer.py")).args(arguments);
        // It must be seen by its ports and names only: what we set for ourselves is none of its business.
        command.envs(variables.iter().copied());
        let child = Child::start(&mut command);
        let line = child.wait_for_line(LONG, |line| line.starts_with("ready "));
        let words: Vec<_> = line.split(' ').collect();
        let (name, base) = (words.get(1)?.to_string(), words.get(2)?.parse().ok()?);
        Some(Self { child, name, base, asked: 0 })
    }

    pub fn ask(&mut self, command: &Value) -> Value {
        self.asked += 1;
        let start = format!("answer {} ", self.asked);
        self.child.send(&command.to_string());
        let line = self.child.wait_for_line(LONG, |line| line.starts_with(&start));
        serde_json::from_str(line.get(start.len()..).unwrap_or_default()).unwrap()
    }
}

pub fn engine(host: &str) -> Arc<Engine> {
    engine_at(host, "P2PHANDSHAKE")
}

pub fn engine_at(name: &str, metadata: &str) -> Arc<Engine> {
    Engine::new(EngineOptions {
        metadata: metadata.into(),
        local_name: name.into(),
        device: None,
        auto_discover: false,
        config: Config::default(),
    })
    .unwrap()
}

pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|index| (index.wrapping_mul(31).wrapping_add(index >> 8).wrapping_add(seed * 7) % 253) as u8)
        .collect()
}

pub fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

pub fn missing(release: &str) {
    skip(&format!("upstream's wheel {release} cannot be had here"));
}

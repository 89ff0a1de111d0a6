//! What the tests of the store share: a master as a child process, stores on it, values that can be told apart.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mooncake::config::Config;
use mooncake::store::{Failure, Store, StoreOptions};
use mooncake_test_support::{Child, artifacts, wait_until};

pub const LIMIT: Duration = Duration::from_secs(30);
pub const MIB: u64 = 1 << 20;

/// A master of ours as a child process; ended when dropped.
pub struct Master {
    pub child: Child,
    /// `host:port` of its RPC.
    pub address: String,
    /// `host:port` of its admin pages.
    pub admin: String,
}

impl Master {
    pub fn start(flags: &[&str]) -> Self {
        Self::start_on("127.0.0.1", 0, flags)
    }

    pub fn start_on(host: &str, port: u16, flags: &[&str]) -> Self {
        let mut command = Command::new(artifacts::program("mooncake_master"));
        command.arg(format!("--rpc_port={port}")).arg(format!("--rpc_address={host}"));
        command.args(["--port=0", "--metrics_port=0", "--metrics_host=127.0.0.1"]).args(flags);
        let child = Child::start(&mut command);
        let line = child.wait_for_line(LIMIT, |line| line.contains("Master service started"));
        let field = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.unwrap_or_else(|| panic!("no {name} in {line}")).trim_end_matches(',').to_owned()
        };
        Self { address: field("rpc="), admin: field("admin_and_metrics_http="), child }
    }

    pub fn port(&self) -> u16 {
        self.address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Sends a signal by name, such as `-STOP`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The body of an admin page.
    pub fn page(&self, path: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.admin).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    /// A number of the metrics page.
    pub fn metric(&self, name: &str) -> u64 {
        let page = self.page("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().unwrap() as u64
    }
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Options for a store of a master.
pub fn options(master: &str, segment_bytes: u64) -> StoreOptions {
    StoreOptions {
        local_hostname: "127.0.0.1".into(),
        global_segment_size_bytes: segment_bytes,
        master_server_address: master.into(),
        ..StoreOptions::default()
    }
}

/// A store of a master.
pub fn store(master: &Master, segment_bytes: u64) -> Arc<Store> {
    Store::setup(options(&master.address, segment_bytes)).unwrap()
}

/// Settings with some variables.
pub fn config(variables: &[(&str, &str)]) -> Config {
    let find =
        |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let (config, warnings) = Config::from_lookup(&find);
    assert!(warnings.is_empty(), "{warnings:?}");
    config
}

/// Bytes that no other seed has.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn span(bytes: &[u8]) -> (u64, u64) {
    (bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64)
}

/// Fails with the first place where the bytes differ, not with all of them.
#[track_caller]
pub fn same(got: &[u8], expected: &[u8], what: &str) {
    assert_eq!(got.len(), expected.len(), "length of {what}");
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    if let Some(at) = differs {
        panic!("{what}: byte {at} of {} is {} where {} is expected", got.len(), got[at], expected[at]);
    }
}

/// The number of a failure; 0 of a success.
pub fn code<T>(outcome: &Result<T, Failure>) -> i32 {
    outcome.as_ref().map_or_else(|failure| failure.code().0, |_| 0)
}

/// Waits, bounded, until something holds.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(wait_until(LIMIT, holds), "did not come: {what}");
}

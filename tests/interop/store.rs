//! Upstream's released master and store client as processes.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mooncake_test_support::{Child, artifacts, wait_until};
use serde_json::{Value, json};

use super::interop::{LONG, peers, python_of};

/// Upstream's released master; ended when dropped.
pub struct UpstreamMaster {
    pub child: Child,
    pub port: u16,
    release: &'static str,
}

impl UpstreamMaster {
    /// A master of this release; none if there is no wheel.
    pub fn start(release: &'static str, flags: &[&str]) -> Option<Self> {
        let mut tries = 0;
        loop {
            // It binds what it is told: a port that is free now may be taken before it comes to that.
            tries += 1;
            let mut master = Self::start_on(release, free_port(), flags)?;
            let port = master.port;
            let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            if wait_until(LONG, || listens() || !master.child.is_running()) && listens() {
                return Some(master);
            }
            assert!(tries < 5, "upstream's master does not start: {}", master.child.output());
        }
    }

    pub fn start_on(release: &'static str, port: u16, flags: &[&str]) -> Option<Self> {
        let directory = peers(release)?;
        let mut command = mooncake_test_support::peers::master(&directory, release);
        command.arg(format!("--rpc_port={port}")).arg(format!("--metrics_port={}", free_port())).args(flags);
        Some(Self { child: Child::start(&mut command), port, release })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it and starts another one on the same port.
    pub fn restart(self) -> Self {
        let (release, port) = (self.release, self.port);
        drop(self);
        Self::start_on(release, port, &[]).expect("it started before")
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Upstream's released store client; ended when dropped.
pub struct UpstreamStore {
    pub child: Child,
    asked: usize,
}

impl UpstreamStore {
    /// A client of this release that is set up at a master and lends `segment` bytes; none if there is no wheel.
    pub fn start(release: &str, master: &str, segment_bytes: u64) -> Option<Self> {
        let directory = peers(release)?;
        let mut command = python_of(&directory, release);
        command.arg(artifacts::workspace().join("tests/interop/store_client.py")).env("MC_STORE_MEMCPY", "1");
        let mut store = Self { child: Child::start(&mut command), asked: 0 };
        let setup = json!(["setup", "127.0.0.1", "P2PHANDSHAKE", segment_bytes, 64 << 20, "tcp", "", master]);
        assert_eq!(store.call(&setup), json!(0), "setup of {release}");
        Some(store)
    }

    pub fn call(&mut self, command: &Value) -> Value {
        self.child.send(&command.to_string());
        self.asked += 1;
        let answers = || {
            let output = self.child.standard_output();
            output
                .lines()
                .filter_map(|line| line.strip_prefix("answer "))
                .nth(self.asked - 1)
                .map(str::to_owned)
        };
        assert!(wait_until(LONG, || answers().is_some()), "no answer to {command}: {}", self.child.output());
        serde_json::from_str(&answers().unwrap_or_default()).unwrap()
    }

    pub fn put(&mut self, key: &str, value: &[u8]) {
        let value = json!({"base64": STANDARD.encode(value)});
        assert_eq!(self.call(&json!(["put", key, value])), json!(0), "{key}");
    }

    pub fn get(&mut self, key: &str) -> Vec<u8> {
        let answer = self.call(&json!(["get", key]));
        match answer["base64"].as_str() {
            Some(text) => STANDARD.decode(text).unwrap(),
            None => {
                let (count, fill) = (answer["bytes"].as_u64().unwrap(), answer["fill"].as_u64().unwrap());
                vec![fill as u8; count as usize]
            }
        }
    }
}

//! Upstream's released master as a child process.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // each test file uses its part

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use mooncake_test_support::{peers, skip, wait_until};

/// The default lease of older releases is another, and upstream evicts some time after a put that found no space.
pub const STEADY: [&str; 2] = ["--default_kv_lease_ttl=10000", "--eviction_ratio=0"];

/// Upstream's master as a child process.
pub struct Upstream {
    child: Child,
    pub rpc: SocketAddr,
    pub admin: SocketAddr,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Upstream {
    /// A master of this release on ports of its own; none if there is no wheel.
    pub fn start(release: &str, flags: &[&str]) -> Option<Self> {
        let directory = wheel(release)?;
        // A port that is free now may be taken before the master has it: then another pair is tried.
        for _ in 0..5 {
            let held: Vec<TcpListener> =
                (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("port")).collect();
            let [rpc, admin]: [SocketAddr; 2] =
                std::array::from_fn(|index| held[index].local_addr().expect("address"));
            drop(held);
            let child = peers::master(&directory, release)
                .args([format!("--rpc_port={}", rpc.port()), format!("--metrics_port={}", admin.port())])
                .args(["--rpc_address=127.0.0.1"])
                .args(flags)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("upstream's master");
            let mut master = Self { child, rpc, admin };
            let mut ended = false;
            let up = wait_until(Duration::from_secs(20), || {
                ended = master.child.try_wait().expect("state").is_some();
                ended || (TcpStream::connect(rpc).is_ok() && TcpStream::connect(admin).is_ok())
            });
            if up && !ended {
                return Some(master);
            }
        }
        panic!("upstream's master {release} did not start");
    }
}

/// The directory of the peers, if this release is there; else the test is a counted skip.
pub fn wheel(release: &str) -> Option<std::path::PathBuf> {
    let directory = peers::directory(release);
    if directory.is_none() {
        skip(&format!("no usable wheel of upstream {release}; tests/interop/make_peers.sh makes one"));
    }
    directory
}

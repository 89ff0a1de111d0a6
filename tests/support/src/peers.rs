//! Upstream's released wheels, taken as real peers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::artifacts;

/// Every release that a test takes as a peer, newest first.
pub const RELEASES: [&str; 4] = ["0.3.13.post1", "0.3.11.post1", "0.3.10.post2", "0.3.8"];

/// How long what failed is not tried again: each test is a process of its own, and would fail as slowly.
const FAILED_FOR: Duration = Duration::from_secs(1800);

/// The directory of the peers, if there is one with this release; `make_peers.sh` makes it, at most once.
///
/// # Panics
/// If the lock of the attempt is poisoned.
#[must_use]
pub fn directory(release: &str) -> Option<PathBuf> {
    static TRIED: OnceLock<Mutex<bool>> = OnceLock::new();
    let directory = std::env::var_os("MOONCAKE_TRANSFER_PEERS").map_or_else(
        || {
            let profile = artifacts::profile_directory();
            profile.parent().expect("a profile lies in the target directory").join("peers")
        },
        PathBuf::from,
    );
    if usable(&directory, release) {
        return Some(directory);
    }
    let mut tried = TRIED.get_or_init(Mutex::default).lock().expect("no test panicked while it tried");
    let failed = directory.with_extension("failed");
    let recently = std::fs::metadata(&failed)
        .and_then(|data| data.modified())
        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FAILED_FOR));
    if !std::mem::replace(&mut *tried, true) && !recently {
        make(&directory);
        if !usable(&directory, release) {
            // Without the mark it is only tried more often.
            let _ = std::fs::write(&failed, "");
        }
    }
    usable(&directory, release).then_some(directory)
}

/// Python of a release, with the libraries that it needs.
#[must_use]
pub fn python(directory: &Path, release: &str) -> Command {
    let mut command = Command::new(directory.join(release).join("bin/python"));
    command.env("LD_LIBRARY_PATH", directory.join("lib"));
    command
}

/// The master of a release: the program itself, so that who kills the child has killed the master.
#[must_use]
pub fn master(directory: &Path, release: &str) -> Command {
    let mut command = Command::new(directory.join(release).join("bin/upstream_master"));
    command.env("LD_LIBRARY_PATH", directory.join("lib"));
    command
}

fn usable(directory: &Path, release: &str) -> bool {
    directory.join(release).join("bin/upstream_master").exists()
        && python(directory, release)
            .args(["-c", "import mooncake.engine"])
            .output()
            .is_ok_and(|output| output.status.success())
}

#[expect(clippy::print_stderr, reason = "why the peers cannot be had belongs to the test's output")]
fn make(directory: &Path) {
    // Another test process may be at it; the lock makes this one wait for it.
    let output = Command::new("timeout")
        .args(["400", "flock"])
        .arg(directory.with_extension("lock"))
        .arg("bash")
        .arg(artifacts::workspace().join("tests/interop/make_peers.sh"))
        .arg(directory)
        .args(RELEASES)
        .output();
    match output {
        Ok(output) => eprintln!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("make_peers.sh: {error}"),
    }
}

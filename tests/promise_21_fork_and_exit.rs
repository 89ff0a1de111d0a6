//! Promise 21: after fork the child's old handles give an error and a new engine works; at exit nothing crashes.
//!
//! Seen from C, with a transfer in flight on a software NPU. Tried by taking the mechanism out: without the comparisons
//! of process ids in `Shared::check_usable` and of forks in the handle table the fork test fails. The others were not
//! tried that way.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "../ffi/tests/c/build.rs"]
#[allow(dead_code, reason = "written for the tests of the C boundary; not all of it is used here")]
mod build;
mod promise;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use build::Program;
use mooncake_test_support::{Child, artifacts};
use promise::{LIMIT, PAGE, Peer, software_npu};

/// How long the transfer would take.
const DELAY: Duration = Duration::from_millis(1500);

/// Runs one way to leave; how the process ended, how long that took, and what it said.
fn leave(way: &str) -> (ExitStatus, Duration, String) {
    let npu = software_npu(2);
    let mut target = Peer::start(&npu, Some(1));
    let remote = target.buffer(1, PAGE, 2);
    let program = Program::compile("promise_exit");
    let mut command = program.command();
    npu.apply(&mut command);
    command.env("MC_LOG_LEVEL", "WARNING").args(["0", &target.name(), &remote.to_string(), way]);
    let mut child = Child::start(&mut command);
    let _line = child.wait_for_line(LIMIT, |line| line == "connected");
    target.fault_of(child.id(), &format!("set transfer=delay:{}", DELAY.as_millis()));
    child.send("go");
    let start = Instant::now();
    let status = child.wait(LIMIT);
    let took = start.elapsed();
    // Whatever it did, the peer does not mind.
    assert!(target.holds(remote, PAGE, 2));
    target.quit();
    (status, took, child.output())
}

#[track_caller]
fn leaves(way: &str, code: i32) -> Duration {
    let (status, took, output) = leave(way);
    assert_eq!(status.signal(), None, "{way}: {status}\n{output}");
    assert_eq!(status.code(), Some(code), "{way}: {status}\n{output}");
    took
}

#[test]
fn exit_with_a_transfer_in_flight() {
    leaves("exit", 5);
}

#[test]
fn return_from_main_with_a_transfer_in_flight() {
    leaves("return", 5);
}

#[test]
fn destroy_with_a_transfer_in_flight() {
    leaves("destroy", 5);
}

#[test]
fn a_signal_with_graceful_shutdown() {
    let took = leaves("graceful", 128 + 15);
    assert!(took < Duration::from_secs(12), "{took:?}");
}

#[test]
fn signals_during_a_wait() {
    let took = leaves("signal-wait", 5);
    assert!(took + Duration::from_millis(50) >= DELAY, "a signal ended the wait: {took:?}");
}

#[test]
fn a_child_after_fork() {
    leaves("fork", 5);
}

#[test]
fn a_child_that_exits_at_once() {
    leaves("fork-exit", 5);
}

#[test]
fn a_library_that_is_closed_while_engines_live() {
    let program = Program::compile("promise_unload");
    let mut command = program.command();
    command.arg(artifacts::library());
    let mut child = Child::start(&mut command);
    let status = child.wait(LIMIT);
    assert_eq!(status.code(), Some(5), "{status}\n{}", child.output());
}

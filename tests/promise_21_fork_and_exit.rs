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
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use build::Program;
use mooncake_test_support::{Child, artifacts, skip};
use promise::{LIMIT, PAGE, Peer, software_npu};

/// How long the transfer would take.
const DELAY: Duration = Duration::from_millis(1500);

/// Under valgrind, or not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checked {
    No,
    /// No invalid access, no use of uninitialised bytes.
    Accesses,
    /// Nothing lost either.
    Leaks,
}

impl Checked {
    /// The program, or valgrind with the program in it; 99 is what it answers when it has found something.
    fn command(self, program: &Program) -> Command {
        if self == Self::No {
            return program.command();
        }
        let mut command = Command::new("valgrind");
        command.args(["-q", "--error-exitcode=99", "--fair-sched=yes"]);
        if self == Self::Leaks {
            command.args(["--leak-check=full", "--show-leak-kinds=definite"]);
            command.arg("--errors-for-leak-kinds=definite");
        }
        let suppressed = artifacts::workspace().join("tests/c/valgrind.supp");
        command.arg(format!("--suppressions={}", suppressed.display()));
        command.arg(program.command().get_program());
        command
    }

    /// Longest time for what takes a moment without.
    fn limit(self) -> Duration {
        if self == Self::No { LIMIT } else { 4 * LIMIT }
    }
}

/// Runs one way to leave; how the process ended, how long that took, and what it said.
fn leave(way: &str, checked: Checked) -> (ExitStatus, Duration, String) {
    // Valgrind has room for small devices only.
    let npu = software_npu(2).variable("CANN_SIM_HBM_SIZE", "64M");
    let mut target = Peer::start(&npu, Some(1));
    let remote = target.buffer(1, PAGE, 2);
    let program = Program::compile("promise_exit");
    let mut command = checked.command(&program);
    npu.apply(&mut command);
    command.env("MC_LOG_LEVEL", "WARNING").args(["0", &target.name(), &remote.to_string(), way]);
    let mut child = Child::start(&mut command);
    let _line = child.wait_for_line(checked.limit(), |line| line == "connected");
    target.fault_of(child.id(), &format!("set transfer=delay:{}", DELAY.as_millis()));
    child.send("go");
    let start = Instant::now();
    let status = child.wait(checked.limit());
    let took = start.elapsed();
    // Whatever it did, the peer does not mind.
    assert!(target.holds(remote, PAGE, 2));
    target.quit();
    (status, took, child.output())
}

#[track_caller]
fn leaves(way: &str, code: i32) -> Duration {
    let (status, took, output) = leave(way, Checked::No);
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

/// One way under valgrind.
#[track_caller]
fn valgrind_finds_nothing(way: &str, code: i32, checked: Checked) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("valgrind is not installed");
    }
    let (status, _, output) = leave(way, checked);
    assert_eq!(status.code(), Some(code), "{way}: {status}\n{output}");
}

#[test]
fn valgrind_finds_nothing_at_destroy() {
    valgrind_finds_nothing("destroy", 5, Checked::Leaks);
}

#[test]
fn valgrind_finds_nothing_at_exit() {
    valgrind_finds_nothing("exit", 5, Checked::Leaks);
}

#[test]
fn valgrind_finds_nothing_at_a_signal() {
    valgrind_finds_nothing("graceful", 128 + 15, Checked::Leaks);
}

/// A child has what its parent's threads had, and not the threads: that is lost to it, and to valgrind.
#[test]
fn valgrind_finds_nothing_after_fork() {
    valgrind_finds_nothing("fork", 5, Checked::Accesses);
}

#[test]
fn valgrind_finds_nothing_in_a_library_that_is_closed() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("valgrind is not installed");
    }
    let program = Program::compile("promise_unload");
    let mut child = Child::start(Checked::Leaks.command(&program).arg(artifacts::library()));
    let status = child.wait(Checked::Leaks.limit());
    assert_eq!(status.code(), Some(5), "{status}\n{}", child.output());
}

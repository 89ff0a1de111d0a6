//! C probes are clean under valgrind: no invalid access, no use of uninitialised bytes, nothing definitely lost.

mod support;

use std::io::Write as _;
use std::process::Command;

/// Runs one case under valgrind, or counts a skip where valgrind is not installed.
#[expect(clippy::unwrap_used, clippy::print_stderr, reason = "a helper of tests")]
fn clean(source: &str, case: &str) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: valgrind is not installed");
        if let Some(path) = std::env::var_os("MOONCAKE_TRANSFER_SKIP_LOG") {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(path);
            writeln!(log.unwrap(), "cann-sim valgrind {source} {case}: valgrind is not installed").unwrap();
        }
        return;
    }
    let plain = support::command(source, case);
    let mut command = Command::new("valgrind");
    command.args(["-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite"]);
    command.args(["--errors-for-leak-kinds=definite", "--fair-sched=yes"]);
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("CANN_SIM_HBM_SIZE", "64M");
    support::expect_ok(command);
}

#[test]
fn runtime_probe() {
    clean("runtime.c", "events");
}

#[test]
fn memory_probe() {
    clean("memory.c", "batch_copies");
}

#[test]
fn communicator_probe() {
    clean("communicator.c", "calls_are_checked_in_order");
}

#[test]
fn two_processes_probe() {
    clean("one_sided.c", "near");
}

#[test]
fn sharing_probe() {
    clean("sharing.c", "mapping");
}

#[test]
fn further_probe() {
    clean("further.c", "device_as_a_whole");
}

//! The interface's answers without an NPU; the scenarios are those of `tests/c/contract.c`.

use std::process::Command;
use std::time::Duration;

use mooncake_test_support::{Child, skip};

use crate::build::{Program, succeed};

/// Longest time for a scenario.
const LIMIT: Duration = Duration::from_secs(100);

/// The program in an environment without CANN, without settings of the caller's shell.
fn command(program: &Program) -> Command {
    let mut command = program.command();
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["ASCEND_", "CANN_SIM_", "HCCL_", "MC_", "MOONCAKE_"].iter().any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command.env("MC_LOG_LEVEL", "WARNING");
    command
}

fn run(scenario: &str, settings: &[(&str, &str)]) -> String {
    let program = Program::compile("contract");
    let mut child = Child::start(command(&program).arg(scenario).envs(settings.iter().copied()));
    let status = child.wait(LIMIT);
    assert!(status.success(), "{scenario}: {status}\n{}", child.output());
    child.output()
}

macro_rules! scenarios {
    ($($(#[$meta:meta])* $name:ident;)*) => {
        $($(#[$meta])*
        #[test]
        fn $name() {
            assert!(run(stringify!($name), &[]).contains(concat!(stringify!($name), ": passed")));
        })*
    };
}

scenarios! {
    names_and_transports;
    segments;
    registration;
    transfers;
    notifications;
    handles;
    after_fork;
    last_error_per_thread;
    threads;
    graceful_exit;
}

#[test]
fn log_sink() {
    let output = run("log_sink", &[]);
    // After the sink is taken away, the lines go to standard error in their one form.
    let line =
        output.lines().find(|line| line.contains("mooncake")).unwrap_or_else(|| panic!("no log in {output}"));
    let words: Vec<&str> = line.split(' ').collect();
    assert!(["E", "W", "I", "D", "T"].contains(&words[0]), "{line}");
    assert!(words[1].ends_with('Z') && words[1].len() == "2026-11-22T12:00:00.000000Z".len(), "{line}");
}

#[test]
fn log_level_is_obeyed() {
    let output = run("threads", &[("MC_LOG_LEVEL", "ERROR")]);
    assert_eq!(output, "threads: passed");
}

#[test]
fn silent_peer() {
    run(
        "silent_peer",
        &[("MOONCAKE_TRANSFER_HANDSHAKE_REPLY_MS", "700"), ("MC_HANDSHAKE_CONNECT_TIMEOUT", "1")],
    );
}

#[test]
fn a_signal_closes_the_engine_and_ends_the_process_with_its_number() {
    let program = Program::compile("contract");
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut child = Child::start(command(&program).arg("graceful"));
        let _ready = child.wait_for_line(LIMIT, |line| line == "ready");
        succeed(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()));
        assert_eq!(child.wait(LIMIT).code(), Some(code), "{}", child.output());
    }
}

#[test]
fn valgrind_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        skip("valgrind is not installed");
        return;
    }
    let program = Program::compile("contract");
    for scenario in ["handles", "notifications", "registration", "transfers"] {
        let mut checked = Command::new("valgrind");
        checked.args(["-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
        checked.arg(program.command().get_program()).arg(scenario).env("MC_LOG_LEVEL", "ERROR");
        succeed(&mut checked);
    }
}

#[test]
fn without_cann_everything_but_the_npu_works() {
    // contract.c never loads CANN: the same scenario with a path that holds none.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    run("transfers", &[("MOONCAKE_TRANSFER_CANN_PATH", path), ("ASCEND_HOME_PATH", path)]);
}

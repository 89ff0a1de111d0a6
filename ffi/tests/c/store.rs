//! The store from C, with a master; the scenarios are those of `tests/c/store.c`.

use std::process::Command;
use std::time::Duration;

use mooncake_test_support::{Child, artifacts, skip};

use crate::build::{Program, succeed};

/// Longest time for a scenario.
const LIMIT: Duration = Duration::from_secs(100);

/// A command in an environment without settings of the caller's shell.
fn clean(mut command: Command) -> Command {
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

/// A master on a port of its own choice, and that port.
fn master() -> (Child, String) {
    let mut command = clean(Command::new(artifacts::program("mooncake_master")));
    command.args(["--port=0", "--rpc_port=0", "--rpc_address=127.0.0.1"]);
    command.args(["--metrics_port=0", "--metrics_host=127.0.0.1"]);
    let child = Child::start(&mut command);
    let line = child.wait_for_line(LIMIT, |line| line.contains("Master service started"));
    let address = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("rpc="))
        .unwrap_or_else(|| panic!("no address in {line}"))
        .trim_end_matches(',')
        .to_owned();
    (child, address)
}

fn run(scenario: &str) {
    let program = Program::compile("store");
    let (_master, address) = master();
    let mut child = Child::start(clean(program.command()).arg(scenario).arg(address));
    let status = child.wait(LIMIT);
    assert!(status.success(), "{scenario}: {status}\n{}", child.output());
    assert!(child.output().contains(&format!("{scenario}: passed")));
}

macro_rules! scenarios {
    ($($name:ident;)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*
    };
}

scenarios! {
    arguments;
    codes;
    values;
    many_buffers;
    shared_engine;
    after_fork;
    threads;
}

#[test]
fn valgrind_finds_nothing_in_the_store() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        skip("valgrind is not installed");
        return;
    }
    let program = Program::compile("store");
    let (_master, address) = master();
    for scenario in ["arguments", "values", "many_buffers"] {
        let mut checked = Command::new("valgrind");
        checked.args(["-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
        checked.arg(program.command().get_program()).arg(scenario).arg(&address).env("MC_LOG_LEVEL", "ERROR");
        succeed(&mut checked);
    }
}

//! Servers, containers and network cards, by environment or from one file.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the test's failure")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

cases! { "topology.c":
    /// Facts 2.5: HCCS within a server, RoCE between servers.
    servers_are_apart,
    /// Facts 2.5: HCCL_INTRA_ROCE_ENABLE on one side only ends in a timeout.
    different_link_choices,
    /// Facts 2.5: HCCS within a super pod, even across servers.
    super_pods ("CANN_SIM_SOC" = "Ascend910_9392"),
    /// Facts 1.6, device ids, and 3: the rank table has physical ids.
    containers_with_an_npu_each,
}

/// Runs a case with an `hccn.conf` of this text, or with one that is not there.
fn with_hccn_conf(case: &str, text: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hccn.conf");
    if let Some(text) = text {
        std::fs::write(&path, text).unwrap();
    }
    let mut command = support::command("topology.c", case);
    command.env("CANN_SIM_HCCN_CONF", &path);
    support::expect_ok(command);
}

/// Facts 3, source of `device_ip`.
#[test]
fn cards_with_addresses() {
    let text = "address_0=29.1.0.12\nnetmask_0=255.255.0.0\naddress_1=29.1.0.22\nnetmask_1=255.255.0.0\n";
    with_hccn_conf("cards_with_addresses", Some(text));
}

/// Facts 3, source of `device_ip`: a card that the file does not name.
#[test]
fn cards_without_addresses() {
    with_hccn_conf("cards_without_addresses", Some("address_0=29.1.0.12\n"));
}

/// Facts 3, source of `device_ip`: the file is missing.
#[test]
fn no_card_has_an_address() {
    with_hccn_conf("no_card_has_an_address", None);
}

const TOPOLOGY: &str = r#"
hbm_size = "1G"
super_pod_id = 3

[[server]]
name = "left"

[[server.container]]
name = "a"
physical_ids = [4, 5]
hbm_size = "2G"
environment = { ASCEND_RT_VISIBLE_DEVICES = "1" }

[[server.container]]
name = "b"
boot_id = "11111111-0000-4000-8000-00000000000b"

[[server]]
name = "right"
device_count = 4
"#;

/// A case run by the command, in a place of the file.
fn placed(directory: &Path, place: &str, case: &str) -> Command {
    let file = directory.join("topology.toml");
    std::fs::write(&file, TOPOLOGY).unwrap();
    let plain = support::command("topology.c", case);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cann-sim-control"));
    command.args(["run", "--place", place, "--config"]).arg(file).arg("--");
    command.arg(plain.get_program()).args(plain.get_args());
    command.env_remove("ASCEND_RT_VISIBLE_DEVICES");
    command.env("CANN_SIM_NAMESPACE", format!("{}-{case}", std::process::id()));
    command
}

/// Facts 1.6, device ids; 7.1, topology knobs.
#[test]
fn a_file_gives_every_process_its_place() {
    let directory = tempfile::tempdir().unwrap();
    support::expect_ok(placed(directory.path(), "left/a", "place_left_a"));
    support::expect_ok(placed(directory.path(), "right", "place_right"));
    let mut elsewhere = placed(directory.path(), "middle", "place_right");
    let output = elsewhere.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("no server is named middle"), "{text}");
}

/// Counts a test that cannot run here.
#[expect(clippy::print_stderr, reason = "a skip is told to whoever runs the tests")]
fn skip(name: &str, reason: &str) {
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("MOONCAKE_TRANSFER_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(log, "cann-sim {name}: {reason}").unwrap();
    }
}

/// Facts 7.1, topology knobs: what a container shows of its host.
#[test]
fn a_container_has_a_boot_id_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = placed(directory.path(), "left/b", "boot_id_of_left_b");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && text.contains("right to mount") {
        skip("a container has a boot id of its own", "no right to mount");
        return;
    }
    assert!(output.status.success(), "{text}");
}

/// Facts 1.6: the release decides the libraries' symbols, from a file too.
#[test]
fn a_file_chooses_the_release() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("topology.toml");
    std::fs::write(&file, "release = 8.3\n").unwrap();
    let mut command = support::command("libraries.c", "release_8_3");
    command.env("CANN_SIM_CONFIG", &file);
    support::expect_ok(command);
}

/// Facts 1.6, device ids: the memory of an NPU is one account, by whatever id a container knows it.
#[test]
fn containers_that_share_an_npu_share_its_memory() {
    let namespace = format!("{}-shared-npu", std::process::id());
    let run = |case: &str, variables: &[(&str, &str)]| {
        let mut command = support::command("topology.c", case);
        command.env("CANN_SIM_NAMESPACE", &namespace).envs(variables.iter().copied());
        command
    };
    let mut holder = run("holder", &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    support::expect_ok(run("sees_the_memory_of_others", &[("CANN_SIM_PHYSICAL_IDS", "4,5")]));
    support::expect_ok(run("sees_no_memory_of_others", &[("CANN_SIM_SERVER_INDEX", "1")]));
    let mut input = holder.stdin.take().unwrap();
    input.flush().unwrap();
    drop(input);
    assert!(holder.wait().unwrap().success());
    support::expect_ok(run("sees_no_memory_of_others", &[]));
}

//! The benchmark as a user or a script runs it: two processes on two software NPUs.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mooncake_test_support::{Child, SoftwareNpu, artifacts};

const START: Duration = Duration::from_secs(60);
const RUN: Duration = Duration::from_secs(120);

fn bench(npu: &SoftwareNpu, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_transfer_engine_bench"));
    npu.apply(&mut command);
    command.args(["--local_server_name=127.0.0.1", "--library"]).arg(artifacts::library()).args(flags);
    command
}

/// Starts a target with these flags; the process and the name it says it listens on.
fn target(npu: &SoftwareNpu, flags: &[&str]) -> (Child, String) {
    let mut command = bench(npu, flags);
    let child = Child::start(command.arg("--mode=target"));
    let line = child.wait_for_line(START, |line| line.contains("listening on "));
    let name = line.rsplit(' ').next().unwrap().to_owned();
    (child, name)
}

fn initiator(npu: &SoftwareNpu, flags: &[&str], segment: &str) -> Child {
    let mut command = bench(npu, flags);
    Child::start(command.args(["--mode", "initiator", "--segment_id", segment]))
}

/// The numbers of the closing line.
fn closing(output: &str) -> (u64, u64) {
    let line = output.lines().find_map(|line| line.strip_prefix("verified ")).expect("a closing line");
    let (bytes, rest) = line.split_once(" bytes, ").unwrap();
    (bytes.parse().unwrap(), rest.strip_suffix(" mismatches").unwrap().parse().unwrap())
}

#[test]
fn iterations_print_upstreams_lines_and_verify_every_byte() {
    for operation in ["read", "write"] {
        let npu = SoftwareNpu::new().devices(2);
        let flags = ["--block_iteration=3", "--block_size=4096", "--batch_size=8", "--operation", operation];
        let (mut target, name) = target(&npu, &[&flags[..], &["--device_logicid=0"]].concat());
        assert!(name.starts_with("127.0.0.1:"), "{name}");
        let mut initiator = initiator(&npu, &[&flags[..], &["--device_logicid=1"]].concat(), &name);
        let status = initiator.wait(RUN);
        let output = initiator.output();
        assert!(status.success(), "{output}\ntarget:\n{}", target.output());
        for (block, total) in [(4, 32), (8, 64), (16, 128)] {
            let shape = format!("us, block size {block}KB, total size {total}KB , throughput ");
            let line =
                output.lines().find(|line| line.contains(&shape)).unwrap_or_else(|| panic!("{output}"));
            assert!(line.starts_with("Test completed: duration "), "{line}");
            assert!(line.ends_with(" GB/s"), "{line}");
        }
        // A warm-up round and five more of each block size.
        assert_eq!(closing(&output), (6 * 8 * (4096 + 8192 + 16384), 0));
        assert!(target.is_running(), "a target serves until it is told to end");
        target.kill();
    }
}

#[test]
fn threads_for_some_seconds_print_upstreams_line_and_json() {
    let npu = SoftwareNpu::new().devices(2);
    let flags = ["-threads=3", "-block_size=4096", "-batch_size", "16", "-buffer_size=1048576"];
    let (_target, name) = target(&npu, &[&flags[..], &["-gpu_id=0"]].concat());
    let more = ["-gpu_id=1", "-duration=1", "-operation=write", "--report_unit=MiB", "--json"];
    let mut initiator = initiator(&npu, &[&flags[..], &more[..]].concat(), &name);
    let status = initiator.wait(RUN);
    let output = initiator.output();
    assert!(status.success(), "{output}");
    let line = output.lines().find(|line| line.starts_with("Test completed: ")).expect("upstream's line");
    let (batches, throughput) = line
        .strip_prefix("Test completed: duration 1.")
        .and_then(|rest| rest.split_once(", batch count "))
        .and_then(|(_, rest)| rest.split_once(", throughput "))
        .unwrap_or_else(|| panic!("{line}"));
    assert!(batches.parse::<u64>().unwrap() >= 3, "each thread runs a batch at least: {line}");
    assert!(throughput.ends_with(" MiB/s"), "{line}");
    for worker in 0..3 {
        assert!(output.contains(&format!("Worker {worker} stopped!")), "{output}");
    }
    assert_eq!(closing(&output), (3 * 16 * 4096, 0));
    // With --json, standard output is the JSON and nothing else.
    let json = initiator.standard_output();
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["verified_bytes"], 3 * 16 * 4096);
    assert_eq!(report["mismatched_bytes"], 0);
    assert_eq!(report["cells"][0]["operation"], "write");
    assert_eq!(report["cells"][0]["block_bytes"], 4096);
}

/// Runs against a target that says nothing of its memory but its descriptor, as upstream's.
fn read_back(form: &[&str], bytes: u64) {
    let flags = ["--block_size=4096", "--batch_size=8", "--threads=2", "--buffer_size=65536", "--duration=0"];
    for operation in ["read", "write"] {
        let npu = SoftwareNpu::new().devices(2);
        let common = [&flags[..], form, &["--operation", operation]].concat();
        let (_target, name) = target(&npu, &[&common[..], &["--gpu_id=0", "--silent"]].concat());
        let mut initiator = initiator(&npu, &[&common[..], &["--gpu_id=1"]].concat(), &name);
        let status = initiator.wait(RUN);
        let output = initiator.output();
        assert!(status.success(), "{output}");
        assert!(output.contains("verified by reading back"), "{output}");
        assert_eq!(closing(&output), (bytes, 0), "{operation}");
    }
}

#[test]
fn iterations_against_another_program_are_verified_by_reading_back() {
    read_back(&["--block_iteration=2"], 6 * 8 * (4096 + 8192));
}

#[test]
fn threads_against_another_program_are_verified_by_reading_back() {
    read_back(&[], 2 * 8 * 4096);
}

#[test]
fn host_memory_goes_by_tcp_without_any_cann() {
    // A directory without libraries, so that a CANN of the machine is not found either.
    let empty = artifacts::profile_directory().join("no-cann");
    std::fs::create_dir_all(&empty).unwrap();
    let npu = SoftwareNpu::new().variable("MOONCAKE_TRANSFER_CANN_PATH", &empty.to_string_lossy());
    let flags = ["--protocol=tcp", "--block_size=65536", "--batch_size=8", "--threads=2", "--duration=0"];
    for operation in ["read", "write"] {
        let common = [&flags[..], &["--buffer_size=1048576", "--operation", operation]].concat();
        let (_target, name) = target(&npu, &common);
        let mut initiator = initiator(&npu, &common, &name);
        let status = initiator.wait(RUN);
        let output = initiator.output();
        assert!(status.success(), "{output}");
        assert_eq!(closing(&output), (2 * 8 * 65536, 0), "{output}");
    }
}

#[test]
fn a_target_ends_in_order_at_a_signal() {
    let npu = SoftwareNpu::new().devices(1);
    let (mut target, _name) = target(&npu, &["--buffer_size=1048576", "--threads=1", "--batch_size=1"]);
    let status = Command::new("kill").arg(target.id().to_string()).status().unwrap();
    assert!(status.success());
    assert!(target.wait(START).success(), "{}", target.output());
}

#[test]
fn blocks_in_the_wrong_place_fail_the_run() {
    let directory = artifacts::profile_directory().join("misplaced-test");
    std::fs::create_dir_all(&directory).unwrap();
    let library: PathBuf = directory.join(format!("libmisplaced-{}.so", std::process::id()));
    let sources = artifacts::workspace();
    let status = Command::new("gcc")
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&library)
        .arg("-I")
        .arg(sources.join("include"))
        .arg(sources.join("bench/tests/misplaced.c"))
        .arg("-ldl")
        .status()
        .expect("gcc runs");
    assert!(status.success());
    for operation in ["read", "write"] {
        let npu = SoftwareNpu::new().devices(2);
        let flags = ["--block_iteration=1", "--block_size=4096", "--batch_size=8", "--operation", operation];
        let (_target, name) = target(&npu, &[&flags[..], &["--device_logicid=0"]].concat());
        let mut command = bench(&npu, &flags);
        command.args(["--device_logicid=1", "--segment_id", &name, "--library"]).arg(&library);
        let mut initiator = Child::start(command.env("REAL_LIBRARY", artifacts::library()));
        let status = initiator.wait(RUN);
        let output = initiator.output();
        assert_eq!(status.code(), Some(1), "{output}");
        let (verified, mismatched) = closing(&output);
        assert_eq!(verified, 6 * 8 * 4096, "{output}");
        // Two blocks of eight, but for the bytes that are the same by chance.
        let wrong = 6 * 2 * 4096;
        assert!((wrong * 9 / 10..=wrong).contains(&mismatched), "{output}");
        assert!(output.contains("a block differs"), "{output}");
    }
    std::fs::remove_file(&library).unwrap();
}

#[test]
fn a_target_that_is_not_there_is_an_error_with_a_reason() {
    let npu = SoftwareNpu::new().devices(1);
    let mut initiator =
        initiator(&npu, &["--threads=1", "--batch_size=1", "--buffer_size=65536"], "127.0.0.1:1");
    let status = initiator.wait(RUN);
    let output = initiator.output();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("cannot open segment 127.0.0.1:1: "), "{output}");
}

/// One block size on a cost profile: every way side by side, every byte right, and a record with its picture.
/// Ten times slower than hardware: at its own speed the time that this machine needs itself is a part of what is seen.
/// Measures a2-roce at a slow-down of 10 and records it under a prefix; every byte has to be right. What it printed.
fn profile(flags: &[&str], prefix: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_transfer_engine_bench"));
    command
        .args(["--profile", "a2-roce", "--slowdown", "10", "--library"])
        .arg(artifacts::library())
        .args(flags)
        .arg("--record")
        .arg(prefix);
    let mut child = Child::start(&mut command);
    let status = child.wait(RUN);
    let output = child.output();
    assert!(status.success(), "{output}");
    assert!(output.lines().any(|line| line == "every byte is right"), "{output}");
    output
}

#[test]
fn a_profile_shows_every_way_and_records_it() {
    let folder = std::env::temp_dir().join(format!("bench-profile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let prefix = folder.join("record");
    profile(&["--block_size", "131072"], &prefix);
    let record = std::fs::read_to_string(prefix.with_extension("csv")).unwrap();
    for way in ["write", "read"] {
        let start = format!("a2-roce,device,10,{way},131072,256,");
        let line = record.lines().find_map(|line| line.strip_prefix(&start));
        let rates: Vec<f64> = line.unwrap().split(',').map(|word| word.parse().unwrap()).collect();
        let [bare, direct, staged, chosen, ..] = rates[..] else { panic!("{record}") };
        // A port of 25 GB/s, and 23 us for a block: nothing that is charged goes faster.
        assert!(bare < 6.5 && direct < 6.5 && staged > 0.0 && chosen > 0.0, "{record}");
    }
    let picture = std::fs::read_to_string(prefix.with_extension("svg")).unwrap();
    assert_eq!(picture.matches("<circle").count(), 8, "{picture}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Each value of --aggregate measures its own way beside the bare loop and no other, says so in the table and in the
/// record, and moves every byte right; by itself the engine stages nothing that it should not.
#[test]
fn aggregate_names_one_way_and_measures_that_way_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (value, way) in [("0", "direct"), ("1", "staged"), ("auto", "auto")] {
        let prefix = folder.path().join(value);
        let flags = ["--aggregate", value, "--block_size", "65536", "--batch_bytes", "4194304"];
        let output = profile(&flags, &prefix);
        // A column for each way, and a row for each operation with a rate in each column.
        let words = |start: &str| -> Vec<String> {
            let line = output.lines().find(|line| line.starts_with(start));
            let line = line.unwrap_or_else(|| panic!("no line {start:?} in {output}"));
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(words("operation")[3..6], ["bare", way, "direct/bare"], "{output}");
        let record = std::fs::read_to_string(prefix.with_extension("csv")).unwrap();
        let head =
            format!("\nprofile,launch,slowdown,operation,block_bytes,blocks,bare,{way},direct_of_bare,");
        assert!(record.contains(&head), "{record}");
        for operation in ["write ", "read "] {
            let row = words(operation);
            assert_eq!(row[1..4], ["64", "KiB", "64"], "{output}");
            let rates: Vec<f64> = row[4..6].iter().map(|word| word.parse().unwrap()).collect();
            // 23 us for each block are 2.85 GB/s: the vendor's calls alone cannot go faster, and all is charged.
            assert!(rates.iter().all(|rate| *rate > 0.0) && rates[0] < 3.2, "{output}");
            let row = format!("\na2-roce,device,10,{},65536,64,", operation.trim());
            assert!(record.contains(&row), "{record}");
        }
        let picture = std::fs::read_to_string(prefix.with_extension("svg")).unwrap();
        assert_eq!(picture.matches("<circle").count(), 4, "{picture}");
    }
}

#[test]
fn an_unknown_way_to_aggregate_is_named_with_those_there_are() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_transfer_engine_bench"));
    let mut child = Child::start(command.args(["--profile", "a2-roce", "--aggregate", "2"]));
    assert!(!child.wait(RUN).success());
    let output = child.output();
    assert!(output.contains("'2'") && output.contains("0, 1, auto"), "{output}");
}

#[test]
fn an_unknown_profile_is_named_with_those_there_are() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_transfer_engine_bench"));
    let mut child = Child::start(command.args(["--profile", "a9-hccs"]));
    assert!(!child.wait(RUN).success());
    assert!(child.output().contains("a9-hccs") && child.output().contains("a3-roce"), "{}", child.output());
}

//! The calibration bench on a few cells: it measures what the data says, and fails when a number of it is wrong.

#![expect(clippy::unwrap_used, reason = "a helper of tests: a failure here is the test's failure")]

use std::process::{Command, Output};

use mooncake_test_support::artifacts;

/// Two cells of a profile, in runs of an eighth of the published size.
fn calibrate(profile: &str, change: &mut dyn FnMut(&mut Command)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_npu_calibration"));
    command
        .args(["--profile", profile, "--block-bytes", "65536", "--block-bytes", "1048576"])
        .args(["--run-bytes", "16777216", "--rounds", "1", "--slowdown", "100", "--software-npu"])
        .arg(artifacts::software_npu())
        .env_remove("CANN_SIM_PROFILE_FILE");
    change(&mut command);
    command.output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_profile_meets_what_was_published() {
    let output = calibrate("a2-roce", &mut |_| {});
    let (result, errors) = texts(&output);
    assert!(output.status.success(), "{result}{errors}");
    assert_eq!(result.lines().count(), 5, "{result}{errors}");
    assert!(result.contains("a2-roce,device,get,1048576,23.7,"), "{result}");
}

#[test]
fn a_wrong_number_is_found() {
    let data = std::fs::read_to_string(artifacts::workspace().join("cann-sim/cost/profiles.toml")).unwrap();
    let broken = data.replace("put_launch_ns = { value = 23_000,", "put_launch_ns = { value = 30_000,");
    assert_ne!(data, broken);
    let path = artifacts::profile_directory().join(format!("broken-profiles-{}.toml", std::process::id()));
    std::fs::write(&path, broken).unwrap();
    let output = calibrate("a2-roce", &mut |command| {
        command.env("CANN_SIM_PROFILE_FILE", &path);
    });
    std::fs::remove_file(&path).unwrap();
    let (result, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{result}{errors}");
    assert!(errors.contains("a2-roce,device,put,65536"), "{result}{errors}");
    assert!(!errors.contains("a2-roce,device,get,65536"), "{result}{errors}");
}

#[test]
fn an_unknown_profile_is_named() {
    let output = calibrate("a4-hccs", &mut |_| {});
    let (result, errors) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{result}{errors}");
    assert!(errors.contains("a4-hccs"), "{errors}");
}

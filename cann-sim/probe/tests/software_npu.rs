//! On the software NPU nothing differs; where something does, the probe says so.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::process::{Command, Output};

use mooncake_test_support::{SoftwareNpu, artifacts};

/// The probe on software NPUs of its own; RoCE is given made-up addresses.
fn probe(npu: SoftwareNpu, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cann-probe"));
    npu.apply(&mut command);
    command
        .env_remove("LD_LIBRARY_PATH")
        .arg("--library")
        .arg(artifacts::software_npu())
        .args(["--addresses", "29.1.0.12,29.1.0.22"])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every case comes to its end and finds what it expects.
fn expect_all(npu: SoftwareNpu) {
    let output = probe(npu, &[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(" 0 differ, 0 broke off, 0 undecided"), "{text}");
}

#[test]
fn nothing_differs_on_a2() {
    expect_all(SoftwareNpu::new());
}

#[test]
fn nothing_differs_on_a3() {
    expect_all(SoftwareNpu::new().soc("Ascend910_9392").variable("CANN_SIM_RELEASE", "9.1"));
}

/// What an older release lacks is undecided, not wrong.
#[test]
fn nothing_differs_in_older_releases() {
    for release in ["8.1", "8.2", "8.3"] {
        let output = probe(SoftwareNpu::new().variable("CANN_SIM_RELEASE", release), &[]);
        let text = text(&output);
        assert!(output.status.success() && text.contains(" 0 differ, 0 broke off"), "{release}: {text}");
        assert!(!text.contains("cases: 0 as expected"), "{release}: {text}");
    }
}

#[test]
fn a_difference_is_told_and_fails() {
    let npu = SoftwareNpu::new().variable("CANN_SIM_FAULTS", "aclrtFree=fail:107000");
    let output = probe(npu, &["--markdown", "--only", "allocation"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let row = "| allocation | facts/cann.md 1.6 | aclrtFree | 0 success | **107000 parameter invalid** |";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("chip: `Ascend910B3`"), "{text}");
}

/// A case that does not come to its end is ended, and the others run.
#[test]
fn a_hang_is_told_and_fails() {
    let npu = SoftwareNpu::new().variable("CANN_SIM_FAULTS", "aclrtStreamQuery=delay:60000");
    let arguments = ["--only", "streams_are_asynchronous", "--only", "allocation", "--case-timeout-s", "5"];
    let output = probe(npu, &arguments);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("BROKE OFF streams_are_asynchronous_and_in_order"), "{text}");
    assert!(text.contains("ok        allocation"), "{text}");
}

#[test]
fn what_the_machine_lacks_is_undecided() {
    let output = probe(SoftwareNpu::new().devices(1), &["--only", "bytes_over", "--only", "allocation"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("undecided bytes_over_hccs") && text.contains("the case needs 2"), "{text}");
    assert!(text.contains("3 cases: 1 as expected"), "{text}");
}

#[test]
fn no_cann_is_an_error_of_its_own() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cann-probe"))
        .env_remove("LD_LIBRARY_PATH")
        .arg("--library")
        .arg(empty.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("CANN was not found"), "{}", text(&output));
}

/// One case at least for each uncertainty of the fact sheet's chapter 8.
#[test]
fn every_uncertainty_has_a_case() {
    let output = Command::new(env!("CARGO_BIN_EXE_cann-probe")).arg("--list").output().unwrap();
    let list = text(&output);
    let words: BTreeSet<&str> =
        list.split(|character: char| !(character.is_ascii_digit() || character == '.')).collect();
    for number in 1..=14 {
        assert!(words.contains(format!("8.{number}").as_str()), "8.{number} has no case:\n{list}");
    }
}

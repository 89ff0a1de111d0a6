//! CANN that is missing, or lacks what we need: a code and a record that name it, and nothing worse.

use std::process::Command;
use std::time::Duration;

use mooncake_test_support::{Child, SoftwareNpu};
use tempfile::tempdir;

use crate::build::Program;

const LIMIT: Duration = Duration::from_secs(60);

/// What `install.c` says about installing the transport.
fn install(apply: impl FnOnce(&mut Command)) -> String {
    let program = Program::compile("install");
    let mut command = program.command();
    apply(&mut command);
    command.env("MC_LOG_LEVEL", "ERROR");
    let mut child = Child::start(&mut command);
    let status = child.wait(LIMIT);
    assert!(status.success(), "{status}\n{}", child.output());
    child.output()
}

#[test]
fn no_cann_at_all() {
    let empty = tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    let answer = install(|command| {
        SoftwareNpu::new().apply(command);
        command.env("MOONCAKE_TRANSFER_CANN_PATH", path);
    });
    assert!(answer.starts_with("failed library-unavailable load"), "{answer}");
    assert!(answer.contains(path), "the paths tried are named: {answer}");
}

#[test]
fn with_cann_it_installs_once() {
    let answer = install(|command| SoftwareNpu::new().devices(2).apply(command));
    assert_eq!(answer, "installed");
}

#[test]
fn a_release_without_the_one_sided_calls_names_the_one_that_has_them() {
    let npu = SoftwareNpu::new().devices(2).variable("CANN_SIM_HIDE", "HcclBatchPut,HcclRegisterGlobalMem");
    let answer = install(|command| npu.apply(command));
    assert!(answer.starts_with("failed library-unavailable load"), "{answer}");
    assert!(answer.contains("HcclRegisterGlobalMem") || answer.contains("HcclBatchPut"), "{answer}");
    assert!(answer.contains("8.") || answer.contains("CANN"), "the release is named: {answer}");
}

#[test]
fn the_oldest_release_is_enough() {
    let npu = SoftwareNpu::new().devices(2).variable("CANN_SIM_RELEASE", "8.1");
    assert_eq!(install(|command| npu.apply(command)), "installed");
}

#[test]
fn an_older_release_without_them_names_the_one_that_has_them() {
    let npu = SoftwareNpu::new()
        .devices(2)
        .variable("CANN_SIM_RELEASE", "8.2")
        .variable("CANN_SIM_HIDE", "HcclRegisterMem");
    let answer = install(|command| npu.apply(command));
    assert!(answer.starts_with("failed library-unavailable load"), "{answer}");
    assert!(answer.contains("HcclRegisterMem"), "{answer}");
    assert!(answer.contains("8.1") || answer.contains("8.5"), "the release is named: {answer}");
}

#[test]
fn a_library_that_is_no_library_is_named() {
    let directory = tempdir().unwrap();
    for name in ["libascendcl.so", "libacl_rt.so", "libhccl.so", "libhcomm.so"] {
        std::fs::write(directory.path().join(name), "this is no library").unwrap();
    }
    let answer = install(|command| {
        SoftwareNpu::new().apply(command);
        command.env("MOONCAKE_TRANSFER_CANN_PATH", directory.path());
    });
    assert!(answer.starts_with("failed library-unavailable load"), "{answer}");
    assert!(answer.contains("libascendcl.so"), "{answer}");
}

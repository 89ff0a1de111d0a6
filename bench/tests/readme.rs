//! The C program in the README is one: it compiles without a warning and does what it says.

use std::process::Command;
use std::time::Duration;

use mooncake_test_support::{Child, SoftwareNpu, artifacts};

#[test]
fn the_readmes_program_compiles_and_reads_its_block() {
    let readme = std::fs::read_to_string(artifacts::workspace().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```c\n").expect("a C program");
    let (program, _) = rest.split_once("```").unwrap();
    let directory = artifacts::profile_directory().join(format!("readme-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (source, binary) = (directory.join("read.c"), directory.join("read"));
    std::fs::write(&source, program).unwrap();
    let library = artifacts::library();
    let compiled = Command::new("gcc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(artifacts::workspace().join("include"))
        .arg(&source)
        .arg("-o")
        .arg(&binary)
        .arg(&library)
        .status()
        .expect("gcc runs");
    assert!(compiled.success());
    let mut command = Command::new(&binary);
    SoftwareNpu::new().apply(&mut command);
    let mut child = Child::start(command.env("LD_LIBRARY_PATH", library.parent().unwrap()));
    let status = child.wait(Duration::from_secs(60));
    assert!(status.success(), "{}", child.output());
    assert!(child.output().contains("read, the bytes are right"), "{}", child.output());
    std::fs::remove_dir_all(&directory).unwrap();
}

//! `make install`, and what a user does with it: the example is built with pkg-config's flags and run.

use std::path::{Path, PathBuf};
use std::process::Command;

use mooncake_test_support::{SoftwareNpu, artifacts, skip};
use tempfile::TempDir;

use crate::build::succeed;

/// Installs what is built, under a staging directory; returns it with the installed root.
fn install() -> (TempDir, PathBuf) {
    let staging = TempDir::new().unwrap();
    let built = artifacts::profile_directory();
    succeed(
        Command::new("make")
            .arg("-C")
            .arg(artifacts::workspace())
            .arg("install-files")
            .arg(format!("RELEASE_DIR={}", built.display()))
            .arg("PREFIX=/opt/mooncake")
            .arg(format!("DESTDIR={}", staging.path().display()))
            .env("CARGO_TARGET_DIR", built.parent().unwrap()),
    );
    let root = staging.path().join("opt/mooncake");
    (staging, root)
}

/// What pkg-config says, as words for the compiler's command line.
fn flags(root: &Path, arguments: &[&str]) -> Vec<String> {
    let text = succeed(
        Command::new("pkg-config")
            .args(arguments)
            .arg("mooncake-transfer")
            .env("PKG_CONFIG_PATH", root.join("lib/pkgconfig")),
    );
    text.split_whitespace().map(str::to_owned).collect()
}

fn has_pkg_config() -> bool {
    let found = Command::new("pkg-config").arg("--version").output().is_ok();
    if !found {
        skip("pkg-config is not installed");
    }
    found
}

/// Runs the example on two software NPUs.
fn run(program: &Path, root: &Path) {
    let mut command = Command::new(program);
    SoftwareNpu::new().devices(2).apply(&mut command);
    let simulator = root.join("lib/cann-sim");
    command.env("MOONCAKE_TRANSFER_CANN_PATH", &simulator);
    command.env("LD_LIBRARY_PATH", format!("{}:{}", root.join("lib").display(), simulator.display()));
    assert_eq!(succeed(&mut command).trim(), "131072 bytes moved from NPU 1 to NPU 0");
}

#[test]
fn the_example_builds_with_pkg_config_and_runs() {
    if !has_pkg_config() {
        return;
    }
    let (staging, root) = install();
    assert_eq!(flags(&root, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    let program = staging.path().join("transfer");
    succeed(
        Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .arg(artifacts::workspace().join("examples/c/transfer.c"))
            .args(flags(&root, &["--cflags", "--libs"])),
    );
    run(&program, &root);
}

#[test]
fn upstreams_library_name_links_and_runs() {
    let (staging, root) = install();
    let example = artifacts::workspace().join("examples/c/transfer.c");
    let compile = |program: &Path, how: &[&str]| {
        succeed(
            Command::new("cc")
                .arg("-o")
                .arg(program)
                .arg("-I")
                .arg(root.join("include"))
                .arg(&example)
                .arg("-L")
                .arg(root.join("lib"))
                .args(how),
        );
    };
    let shared = staging.path().join("shared");
    compile(&shared, &["-ltransfer_engine"]);
    run(&shared, &root);
    let needed = succeed(Command::new("readelf").args(["-d", "-W"]).arg(&shared));
    assert!(needed.contains("[libmooncake_transfer.so]"), "{needed}");
    let fixed = staging.path().join("fixed");
    compile(
        &fixed,
        &["-Wl,-Bstatic", "-ltransfer_engine", "-Wl,-Bdynamic", "-lgcc_s", "-lpthread", "-ldl", "-lm"],
    );
    run(&fixed, &root);
}

#[test]
fn the_installed_tree_is_what_it_should_be() {
    let (_staging, root) = install();
    for file in [
        "bin/transfer_engine_bench",
        "include/mooncake_transfer.h",
        "include/transfer_engine_c.h",
        "lib/cann-sim/libascendcl.so",
        "lib/cann-sim/libcann_sim.so",
        "lib/cann-sim/libhcomm.so",
        "lib/libmooncake_transfer.a",
        "lib/libmooncake_transfer.so",
        "lib/libtransfer_engine.a",
        "lib/libtransfer_engine.so",
        "lib/pkgconfig/mooncake-transfer.pc",
    ] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    assert_eq!(
        root.join("lib/libtransfer_engine.so").read_link().unwrap(),
        Path::new("libmooncake_transfer.so")
    );
}

//! C programs on the software NPU under AddressSanitizer, its leak check and the undefined behaviour sanitizer: what
//! the library reads and writes through the program's pointers stays inside them.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

#[expect(dead_code, reason = "these programs are compiled with flags of their own")]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Compiles a C file with the sanitizers; `None` where the compiler has none, which is a counted skip.
fn sanitized(source: &Path, name: &str) -> Option<PathBuf> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = place.join(format!("sanitized-{name}-{}", std::process::id()));
    let build = |source: &Path| {
        Command::new(&compiler)
            .args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .arg(&path)
            .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"])
            .arg(source)
            .arg("-I")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c"))
            .arg(format!("-L{}", support::libraries().display()))
            .args(["-lascendcl", "-lacl_rt", "-lhccl", "-lhcomm", "-ldl"])
            .output()
            .unwrap()
    };
    let output = build(source);
    if output.status.success() {
        return Some(path);
    }
    let empty = place.join(format!("sanitized-empty-{}.c", std::process::id()));
    std::fs::write(&empty, "int main(void) { return 0; }\n").unwrap();
    let has_sanitizers = build(&empty).status.success();
    std::fs::remove_file(empty).unwrap();
    assert!(!has_sanitizers, "{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("skipped: the compiler has no sanitizers");
    if let Some(log) = std::env::var_os("MOONCAKE_TRANSFER_SKIP_LOG") {
        use std::io::Write as _;
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        writeln!(log, "cann-sim sanitizer {name}: the compiler has no sanitizers").unwrap();
    }
    None
}

fn run(program: &Path, case: &str) -> Output {
    Command::new(program)
        .arg(case)
        .env("LD_LIBRARY_PATH", support::libraries())
        .env("CANN_SIM_NAMESPACE", format!("sanitizer-{}-{case}", std::process::id()))
        .env_remove("ASAN_OPTIONS")
        .output()
        .unwrap()
}

/// Runs cases of a file; each must come to its end without a report.
fn clean(source: &str, cases: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source);
    let Some(program) = sanitized(&path, source) else { return };
    for case in cases {
        let output = run(&program, case);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.lines().last() == Some("ok"),
            "{source} {case}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    std::fs::remove_file(program).unwrap();
}

#[test]
fn runtime() {
    clean(
        "runtime.c",
        &[
            "context_is_thread_local",
            "explicit_contexts",
            "streams_are_fifo_and_asynchronous",
            "abort_drops_the_queue_and_tells_waiters",
            "events",
            "stop_on_failure",
            "ten_thousand_streams_and_events",
        ],
    );
}

#[test]
fn memory() {
    clean(
        "memory.c",
        &[
            "allocation_rules",
            "attributes",
            "synchronous_copies",
            "wild_host_addresses_answer_an_error",
            "asynchronous_copies",
            "batch_copies",
        ],
    );
}

#[test]
fn communicators() {
    clean(
        "communicator.c",
        &[
            "registration",
            "initialisation",
            "calls_are_checked_in_order",
            "an_error_leaves_the_descriptors_before_it",
            "a_thousand_communicators",
        ],
    );
}

#[test]
fn two_processes() {
    clean("one_sided.c", &["near", "far"]);
}

#[test]
fn sharing_and_services() {
    clean("sharing.c", &["keys", "mapping"]);
    clean("service.c", &["callbacks", "copies_of_rows"]);
}

/// A program that is wrong is reported: the sanitizer sees what the library writes for it.
#[test]
fn a_copy_past_the_programs_buffer_is_reported() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("wrong.c");
    let text = r#"
        #include "check.h"
        int main(void) {
            OK(aclrtSetDevice(0));
            char *buffer = malloc(32);
            OK(aclrtMemcpy(buffer, 64, device_memory(64), 64, D2H));
            puts("ok");
            free(buffer);
            return 0;
        }
    "#;
    std::fs::write(&source, text).unwrap();
    let Some(program) = sanitized(&source, "wrong") else { return };
    let output = run(&program, "wrong");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("heap-buffer-overflow"), "{text}");
    std::fs::remove_file(program).unwrap();
}

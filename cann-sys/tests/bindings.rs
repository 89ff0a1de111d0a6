//! `src/bindings.rs` is what bindgen makes of `include/cann.h`, and the header is valid C and C++.
//!
//! After a change of the header: `CANN_SYS_WRITE_BINDINGS=1 cargo test -p cann-sys --test bindings`. The crate
//! must compile for that, so what uses a new name is written after the bindings have it.

#![allow(clippy::unwrap_used, reason = "a test program: a failure is a panic")]

use mooncake_test_support::skip;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

fn crate_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn generate() -> String {
    let header = crate_file("include/cann.h");
    bindgen::Builder::default()
        .header(header.to_string_lossy())
        .clang_arg("-DCANN_FUNCTION_TYPES")
        .allowlist_file(".*/include/cann\\.h")
        .rust_target(bindgen::RustTarget::stable(88, 0).ok().unwrap())
        .rust_edition(bindgen::RustEdition::Edition2024)
        .use_core()
        .ctypes_prefix("core::ffi")
        .prepend_enum_name(false)
        .derive_default(true)
        // All zeroes is no value of these, or not without unsafe code to make it.
        .no_default("CommMem|HcclOneSideOpDesc|HcclMemDescs?|HcclCommConfig|aclrtMemFabricHandle")
        .layout_tests(false) // src/layout.rs asserts them against the vendor instead of our own header
        .disable_header_comment()
        .formatter(bindgen::Formatter::Prettyplease)
        .raw_line("// Made by bindgen from include/cann.h; tests/bindings.rs makes it again and compares.")
        .raw_line("")
        .generate()
        .unwrap()
        .to_string()
}

#[test]
fn committed_bindings_are_what_bindgen_makes() {
    // The only call that is allowed to fail: it panics where there is no libclang.
    if let Err(reason) = std::panic::catch_unwind(bindgen::clang_version) {
        let reason = reason.downcast_ref::<String>().cloned().unwrap_or_default();
        skip(&format!("no libclang: {reason}"));
        return;
    }
    let made = generate();
    let path = crate_file("src/bindings.rs");
    if std::env::var_os("CANN_SYS_WRITE_BINDINGS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let first_difference =
        made.lines().zip(committed.lines()).position(|(left, right)| left != right).map(|index| index + 1);
    assert!(
        made == committed,
        "src/bindings.rs differs from what bindgen makes, first in line {first_difference:?} ({} lines made, {} \
         committed)",
        made.lines().count(),
        committed.lines().count()
    );
}

#[test]
fn header_compiles_as_c99_and_cpp17_in_both_forms() {
    let directory = tempfile::tempdir().unwrap();
    let header = crate_file("include");
    for (compiler_variable, fallback, standard, suffix) in
        [("CC", "cc", "-std=c99", "c"), ("CXX", "c++", "-std=c++17", "cpp")]
    {
        let source = directory.path().join(format!("header.{suffix}"));
        std::fs::write(&source, "#include \"cann.h\"\nint header_is_valid;\n").unwrap();
        for definition in ["-DCANN_PROTOTYPES", "-DCANN_FUNCTION_TYPES"] {
            let compiler = std::env::var_os(compiler_variable).unwrap_or_else(|| OsString::from(fallback));
            let output = Command::new(&compiler)
                .args([
                    standard,
                    "-Wall",
                    "-Wextra",
                    "-Wno-unused-const-variable",
                    "-Werror",
                    "-fsyntax-only",
                ])
                .arg(definition)
                .arg("-I")
                .arg(&header)
                .arg(&source)
                .output();
            let output = match output {
                Ok(output) => output,
                Err(error) => {
                    skip(&format!("{compiler:?}: {error}"));
                    return;
                }
            };
            assert!(
                output.status.success(),
                "{standard} {definition}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

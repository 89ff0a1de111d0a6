//! Compiles a C program against the vendor's names and runs its cases on the software NPU.

#![expect(clippy::unwrap_used, reason = "a helper of tests: a failure here is the test's failure")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The directory of the libraries under the vendor's names, beside the directory this test runs from.
pub fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let place = profile.join("cann-sim");
    assert!(place.join("libascendcl.so").exists(), "{} has no stub libraries", place.display());
    place
}

/// Compiles `tests/c/<source>` once per test process and answers the program.
pub fn program(source: &str) -> PathBuf {
    static COMPILING: Mutex<Vec<(String, PathBuf)>> = Mutex::new(Vec::new());
    let mut compiled = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, path)) = compiled.iter().find(|(name, _)| name == source) {
        return path.clone();
    }
    let libraries = libraries();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cann-sim-{source}.test"));
    let fresh = path.with_extension(std::process::id().to_string());
    let (variable, usual, language) =
        if source.ends_with(".cpp") { ("CXX", "c++", "-std=gnu++17") } else { ("CC", "cc", "-std=gnu11") };
    let compiler = std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
    let output = Command::new(compiler)
        .args([language, "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(&fresh)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source))
        .arg(format!("-L{}", libraries.display()))
        // A libcann_sim.so of an earlier build may lie in the way of the linker; the loader takes the right one.
        .args(["-lascendcl", "-lacl_rt", "-lhccl", "-lhcomm", "-ldl", "-Wl,--allow-shlib-undefined"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&fresh, &path).unwrap(); // atomic: another test process may be running the old one
    compiled.push((source.to_owned(), path.clone()));
    path
}

/// A command that runs a case of a program on software NPUs of its own.
pub fn command(source: &str, case: &str) -> Command {
    let mut command = Command::new(program(source));
    command.arg(case).env("LD_LIBRARY_PATH", libraries());
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    command.env("CANN_SIM_NAMESPACE", format!("{}-{number}-{source}-{case}", std::process::id()));
    for name in [
        "ASCEND_RT_VISIBLE_DEVICES",
        "HCCL_INTRA_ROCE_ENABLE",
        "HCCL_CONNECT_TIMEOUT",
        "HCCL_EXEC_TIMEOUT",
        "HCCL_NPU_SOCKET_PORT_RANGE",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a command; the case must say that it came to its end.
pub fn expect_ok(mut command: Command) {
    let output: Output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.lines().last() == Some("ok"),
        "{:?}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// One test per case of a C program; the text says which section of the facts it shows.
#[macro_export]
macro_rules! cases {
    ($source:literal: $($(#[doc = $section:literal])* $case:ident $(($($name:literal = $value:literal),*))?,)*) => {
        $(
            $(#[doc = $section])*
            #[test]
            fn $case() {
                #[allow(unused_mut, reason = "not every case sets variables")]
                let mut command = $crate::support::command($source, stringify!($case));
                $($(command.env($name, $value);)*)?
                $crate::support::expect_ok(command);
            }
        )*
    };
}

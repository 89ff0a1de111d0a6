//! Compiling C programs against the library of this build.

use std::path::PathBuf;
use std::process::Command;

use mooncake_test_support::artifacts;
use tempfile::TempDir;

/// Runs a command that has to succeed and returns its standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file of `tests/c`.
pub fn source(name: &str) -> PathBuf {
    artifacts::workspace().join("tests/c").join(name)
}

/// The directory of the public headers.
pub fn include() -> PathBuf {
    artifacts::workspace().join("include")
}

/// A C program of `tests/c`, linked against the library of this build; it is gone when this is dropped.
pub struct Program {
    directory: TempDir,
}

impl Program {
    /// Compiles `tests/c/<name>.c`.
    pub fn compile(name: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let library = artifacts::library();
        let folder = library.parent().unwrap();
        succeed(
            Command::new("cc")
                .args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-g"])
                .arg("-I")
                .arg(include())
                .arg(source(&format!("{name}.c")))
                .arg("-o")
                .arg(directory.path().join("program"))
                .arg("-L")
                .arg(folder)
                .arg(format!("-Wl,-rpath,{}", folder.display()))
                .args(["-lmooncake_transfer", "-lpthread", "-ldl"]),
        );
        Self { directory }
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        Command::new(self.directory.path().join("program"))
    }
}

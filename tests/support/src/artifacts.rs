//! Where the libraries and programs of this build are, found from the running test itself.
//!
//! A test binary lies in `<target>/<profile>/deps/`; what the workspace builds lies in `<target>/<profile>/`.
//! `make test` builds the whole workspace first, so that they are there and of the same sources.

use std::path::{Path, PathBuf};

/// The directory of the profile this test was built in, `<target>/<profile>`.
#[must_use]
pub fn profile_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("the running test has a path");
    let directory = executable.parent().expect("an executable lies in a directory");
    if directory.ends_with("deps") || directory.ends_with("examples") {
        directory.parent().expect("deps lies in the profile's directory").to_path_buf()
    } else {
        directory.to_path_buf()
    }
}

/// A library of this build by its file name, for example `libmooncake_transfer.so`.
#[must_use]
pub fn find_library(file_name: &str) -> Option<PathBuf> {
    let profile = profile_directory();
    [profile.join(file_name), profile.join("deps").join(file_name)].into_iter().find(|path| path.is_file())
}

/// The engine's library, `libmooncake_transfer.so`.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn library() -> PathBuf {
    find_library("libmooncake_transfer.so").unwrap_or_else(|| not_built("libmooncake_transfer.so"))
}

/// The directory of the software NPU: the libraries under the vendor's names.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn software_npu() -> PathBuf {
    let directory = profile_directory().join("cann-sim");
    if directory.is_dir() { directory } else { not_built("cann-sim") }
}

/// A program of this build by its name.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = profile_directory().join(name);
    if path.is_file() { path } else { not_built(name) }
}

/// The root of the workspace's sources.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("tests/support lies two levels below the root").to_path_buf()
}

fn not_built(what: &str) -> ! {
    panic!("{what} is not in {}: build the workspace first (make test does)", profile_directory().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_directory_holds_the_running_test() {
        let executable = std::env::current_exe().unwrap();
        assert!(executable.starts_with(profile_directory()));
        assert!(!profile_directory().ends_with("deps"));
    }

    #[test]
    fn the_workspace_is_the_directory_of_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn an_unknown_library_is_not_found() {
        assert_eq!(find_library("libno_such_library.so"), None);
    }
}

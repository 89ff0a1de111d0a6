//! The libraries under the vendor's names have the functions of the posed release, and no others (facts 1.1, 2.1).

mod support;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

cases! { "libraries.c":
    /// Facts 1.2 and 2.1: the older one-sided family only.
    until_8_2 ("CANN_SIM_RELEASE" = "8.2"),
    /// Facts 1.1: libascendcl and libhccl have it all.
    release_8_3 ("CANN_SIM_RELEASE" = "8.3"),
    /// Facts 1.1: libacl_rt and libhcomm; this is the default.
    release_8_5,
    /// Facts 1.2, version matrix.
    release_9_1 ("CANN_SIM_RELEASE" = "9.1"),
    /// DESIGN 7: a fault.
    hidden_by_name ("CANN_SIM_HIDE" = "HcclBatchPut,aclrtMemcpyBatch"),
}

/// The dynamic symbols that a library defines.
#[expect(clippy::unwrap_used, reason = "a helper of tests: a failure here is the test's failure")]
fn defined(library: &str) -> Vec<String> {
    let place = support::libraries();
    let path =
        [place.join(library), place.join("../deps").join(library)].into_iter().find(|path| path.exists());
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(path.unwrap()).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

#[test]
fn every_listed_function_is_implemented_and_nothing_else_is_exported() {
    let private = defined("libcann_sim.so");
    assert!(private.iter().all(|name| name.starts_with("cann_sim_")), "{private:?}");
    let symbols = include_str!("../symbols.txt");
    let mut names = Vec::new();
    for line in symbols.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let target = format!("cann_sim_{}", words.last().unwrap());
        assert!(private.contains(&target), "{line}: libcann_sim.so has no {target}");
        names.push(words[2].to_owned());
    }
    for library in ["libascendcl.so", "libacl_rt.so", "libhccl.so", "libhcomm.so", "libruntime.so"] {
        for name in defined(library) {
            assert!(names.contains(&name), "{library} exports {name}, which symbols.txt does not list");
        }
    }
}

#[test]
fn the_libraries_find_each_other_without_a_search_path() {
    let path = CString::new(support::libraries().join("libascendcl.so").as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a valid C string; the library's constructors only read the environment.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "libascendcl.so must find libcann_sim.so by itself");
}

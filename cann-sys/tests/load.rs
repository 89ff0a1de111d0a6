//! How CANN is found: the order of search, what is refused, what a part of CANN amounts to, and what the
//! errors tell. Every test loads stand-in libraries in a process of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test program: a failure is a panic")]

mod common;

use cann_sys::{
    AttemptFailure, Cann, Capability, Library, LoadOptions, MissingSymbols, Place, Release, Symbol, functions,
};
use common::{Machine, in_process_of_its_own};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Every function of a library.
fn all_of(library: Library) -> Vec<&'static str> {
    functions::symbols().filter(|symbol| symbol.library == library).map(|symbol| symbol.name).collect()
}

/// A library's functions that a release surely has.
fn of_release(library: Library, release: Release) -> Vec<&'static str> {
    let has = |symbol: &&Symbol| symbol.library == library && symbol.since.certain <= release;
    functions::symbols().filter(has).map(|symbol| symbol.name).collect()
}

/// The two libraries of a whole installation; its functions answer `value`.
fn installation(machine: &Machine, directory: &str, value: i32) {
    machine.library(&format!("{directory}/libascendcl.so")).functions(&all_of(Library::Acl), value).make();
    machine.library(&format!("{directory}/libhcomm.so")).functions(&all_of(Library::Hccl), value).make();
}

/// No place but those the test adds.
fn nowhere() -> LoadOptions {
    LoadOptions { cann_path: None, ..LoadOptions::only("") }
}

fn answer_of_acl(cann: &Cann) -> i32 {
    // SAFETY: a stand-in's function; it takes no notice of its arguments and answers a number.
    unsafe { cann.acl.aclrtSetDevice.unwrap()(0) }
}

fn answer_of_hccl(cann: &Cann) -> i32 {
    // SAFETY: as above.
    unsafe { cann.hccl.HcclCommDestroy.unwrap()(std::ptr::null_mut()) }
}

/// Loads a library as some other part of the process would.
fn open_by_path(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is a C string, and the stand-ins have no constructors.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY) };
    assert!(!handle.is_null(), "{}", path.display());
}

/// The files of that name which are mapped into this process.
fn mapped(file_name: &str) -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| PathBuf::from(&line[start..])))
        .filter(|path| path.file_name().is_some_and(|name| name == file_name))
        .collect();
    files.sort();
    files.dedup();
    files
}

fn canonical(path: PathBuf) -> PathBuf {
    std::fs::canonicalize(path).unwrap()
}

#[test]
fn without_cann_the_error_names_every_path() {
    in_process_of_its_own(
        "without_cann_the_error_names_every_path",
        |_| {},
        |machine| {
            let options = LoadOptions {
                cann_path: Some(machine.join("chosen")),
                ascend_home_path: Some(machine.join("home")),
                ascend_toolkit_home: Some(machine.join("toolkit")),
                loader_path: true,
                default_prefixes: vec![machine.join("prefix"), machine.join("cann-*")],
                driver_directories: vec![machine.join("driver")],
            };
            let error = Cann::load(&options).unwrap_err();
            assert_eq!(error.missing, [Library::Acl, Library::Hccl]);
            assert_eq!(error.libraries_found, []);
            let architecture = format!("{}-linux/lib64", std::env::consts::ARCH);
            let text = error.to_string();
            for file in ["libascendcl.so", "libacl_rt.so", "libhcomm.so", "libhccl.so"] {
                let mut expected = vec![PathBuf::from(file), machine.join("chosen").join(file)];
                for root in ["chosen", "home", "toolkit", "prefix", "cann-*"] {
                    expected.push(machine.join(root).join("lib64").join(file));
                    expected.push(machine.join(root).join(&architecture).join(file));
                }
                for path in expected {
                    assert!(error.attempts.iter().any(|attempt| attempt.path == path), "{}", path.display());
                    let directory = path.parent().unwrap().display().to_string();
                    let says = |line: &str| {
                        let tried = line.trim_start().strip_prefix("tried ").unwrap_or_default();
                        let place =
                            if directory.is_empty() { String::new() } else { format!("{directory}/ for ") };
                        tried.strip_prefix(&place).is_some_and(|files| files.contains(file))
                    };
                    assert!(text.lines().any(says), "{file} in {directory:?} is not in\n{text}");
                }
            }
            assert_eq!(error.attempts.len(), 4 * 12);
            assert!(error.attempts.iter().all(|attempt| match &attempt.failure {
                AttemptFailure::NotOpened(text) => text.contains("cannot open shared object file"),
                _ => false,
            }));
            assert_eq!(text.lines().count(), 1 + 12, "one line for a directory\n{text}");
            assert!(text.contains("no ACL runtime (libascendcl.so or libacl_rt.so)"), "{text}");
            assert!(text.contains("no HCCL (libhcomm.so or libhccl.so)"), "{text}");
        },
    );
}

#[test]
fn half_a_cann_is_an_error_that_says_which_half_is_there() {
    in_process_of_its_own(
        "half_a_cann_is_an_error_that_says_which_half_is_there",
        |machine| {
            machine.library("chosen/libascendcl.so").functions(&["aclInit"], 0).make();
        },
        |machine| {
            let error = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap_err();
            assert_eq!(error.missing, [Library::Hccl]);
            assert_eq!(error.libraries_found.len(), 1);
            assert_eq!(error.libraries_found[0].path, machine.join("chosen/libascendcl.so"));
            assert_eq!(error.libraries_found[0].place, Place::CannPath);
            let text = error.to_string();
            assert!(text.contains("found ACL runtime: "), "{text}");
            assert!(text.contains("libhccl.so"), "{text}");
        },
    );
}

/// Five installations; each test of the order sees only those from `first` on.
fn order(test: &str, first: i32, expected: Place) {
    in_process_of_its_own(
        test,
        |machine| {
            let directories = ["chosen", "home/lib64", "toolkit/lib64", "loader", "prefix-2.0/lib64"];
            for (value, directory) in (1..).zip(directories) {
                if value >= first {
                    installation(machine, directory, value);
                }
            }
            std::fs::create_dir(machine.path("prefix-10.0")).unwrap();
        },
        |machine| {
            let options = LoadOptions {
                cann_path: Some(machine.join("chosen")),
                ascend_home_path: Some(machine.join("home")),
                ascend_toolkit_home: Some(machine.join("toolkit")),
                loader_path: true,
                default_prefixes: vec![machine.join("prefix-*")],
                ..nowhere()
            };
            let cann = Cann::load(&options).unwrap();
            assert_eq!(answer_of_acl(&cann), first);
            assert_eq!(answer_of_hccl(&cann), first);
            assert_eq!(cann.provenance()[0].place, expected);
            assert_eq!(cann.provenance()[0].library, Library::Acl);
            assert_eq!(cann.provenance()[1].place, Place::Beside(Library::Acl));
            assert_eq!(cann.provenance()[1].library, Library::Hccl);
            let mapped = mapped("libascendcl.so");
            assert_eq!(mapped, [canonical(cann.provenance()[0].path.clone())]);
        },
    );
}

#[test]
fn the_explicit_path_comes_first() {
    order("the_explicit_path_comes_first", 1, Place::CannPath);
}

#[test]
fn then_ascend_home_path() {
    order("then_ascend_home_path", 2, Place::AscendHomePath);
}

#[test]
fn then_ascend_toolkit_home() {
    order("then_ascend_toolkit_home", 3, Place::AscendToolkitHome);
}

#[test]
fn then_the_linkers_own_search() {
    order("then_the_linkers_own_search", 4, Place::LoaderPath);
}

#[test]
fn then_the_default_places() {
    order("then_the_default_places", 5, Place::DefaultPrefix);
}

#[test]
fn what_the_process_has_loaded_is_used_and_a_second_copy_refused() {
    in_process_of_its_own(
        "what_the_process_has_loaded_is_used_and_a_second_copy_refused",
        |machine| {
            installation(machine, "framework", 1);
            installation(machine, "chosen", 2);
        },
        |machine| {
            open_by_path(&machine.join("framework/libascendcl.so"));
            let cann = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            assert_eq!(answer_of_acl(&cann), 1);
            // HCCL was not loaded, and comes from the installation of the runtime that is.
            assert_eq!(answer_of_hccl(&cann), 1);
            let places: Vec<_> = cann.provenance().iter().map(|found| found.place).collect();
            assert_eq!(places, [Place::AlreadyLoaded, Place::Beside(Library::Acl)]);
            assert_eq!(mapped("libascendcl.so"), [canonical(machine.join("framework/libascendcl.so"))]);
            assert_eq!(mapped("libhcomm.so"), [canonical(machine.join("framework/libhcomm.so"))]);
            let refused: Vec<_> = cann.attempts().iter().map(|attempt| &attempt.failure).collect();
            assert_eq!(
                refused,
                [&AttemptFailure::SecondCopy { loaded: machine.join("framework/libascendcl.so") }]
            );
            assert_eq!(cann.attempts()[0].path, machine.join("chosen/libascendcl.so"));
            assert!(cann.attempts()[0].to_string().contains("refused, the process has loaded"));
        },
    );
}

#[test]
fn a_loaded_library_without_soname_is_recognised_by_its_file_name() {
    in_process_of_its_own(
        "a_loaded_library_without_soname_is_recognised_by_its_file_name",
        |machine| {
            machine
                .library("framework/libascendcl.so")
                .without_soname()
                .functions(&all_of(Library::Acl), 1)
                .make();
            machine
                .library("framework/libhcomm.so")
                .without_soname()
                .functions(&all_of(Library::Hccl), 1)
                .make();
            installation(machine, "chosen", 2);
        },
        |machine| {
            open_by_path(&machine.join("framework/libascendcl.so"));
            open_by_path(&machine.join("framework/libhcomm.so"));
            let cann = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            assert_eq!((answer_of_acl(&cann), answer_of_hccl(&cann)), (1, 1));
            assert!(cann.provenance().iter().all(|found| found.place == Place::AlreadyLoaded));
            assert_eq!(mapped("libascendcl.so").len(), 1);
            assert_eq!(mapped("libhcomm.so").len(), 1);
            assert_eq!(cann.attempts().len(), 2, "{:?}", cann.attempts());
        },
    );
}

#[test]
fn the_loaded_copy_by_another_path_is_not_a_second_copy() {
    in_process_of_its_own(
        "the_loaded_copy_by_another_path_is_not_a_second_copy",
        |machine| {
            installation(machine, "real", 1);
            std::os::unix::fs::symlink(machine.path("real"), machine.path("chosen")).unwrap();
        },
        |machine| {
            open_by_path(&machine.join("real/libascendcl.so"));
            let cann = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            assert_eq!(answer_of_acl(&cann), 1);
            assert_eq!(cann.attempts(), []);
        },
    );
}

#[test]
fn a_file_that_is_no_library_is_told_and_the_search_goes_on() {
    in_process_of_its_own(
        "a_file_that_is_no_library_is_told_and_the_search_goes_on",
        |machine| {
            std::fs::create_dir_all(machine.path("chosen")).unwrap();
            std::fs::write(machine.path("chosen/libascendcl.so"), "no library\n".repeat(20)).unwrap();
            installation(machine, "home/lib64", 2);
        },
        |machine| {
            let options = LoadOptions {
                ascend_home_path: Some(machine.join("home")),
                ..LoadOptions::only(machine.join("chosen"))
            };
            let cann = Cann::load(&options).unwrap();
            assert_eq!(answer_of_acl(&cann), 2);
            let broken = machine.join("chosen/libascendcl.so");
            let attempt = cann.attempts().iter().find(|attempt| attempt.path == broken).unwrap();
            assert!(attempt.to_string().contains("invalid ELF header"), "{attempt}");
        },
    );
}

#[test]
fn a_whole_cann_has_every_capability() {
    in_process_of_its_own(
        "a_whole_cann_has_every_capability",
        |machine| {
            installation(machine, "chosen", 7);
            machine.library("chosen/libruntime.so").functions(&all_of(Library::Runtime), 7).make();
        },
        |machine| {
            let cann = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            for capability in Capability::ALL {
                assert!(cann.has(capability), "{capability:?}");
                cann.require(capability).unwrap();
            }
            cann.require_all().unwrap();
            assert_eq!(cann.capabilities().iter().count(), Capability::ALL.len());
            let report = cann.symbol_report();
            assert_eq!(report.len(), functions::symbols().count());
            for line in report {
                let file = match line.symbol.library {
                    Library::Acl => "chosen/libascendcl.so",
                    Library::Hccl => "chosen/libhcomm.so",
                    _ => "chosen/libruntime.so",
                };
                assert_eq!(line.found_in, Some(machine.join(file)), "{}", line.symbol.name);
            }
        },
    );
}

#[test]
fn a_release_without_optional_functions_loads_without_those_capabilities() {
    in_process_of_its_own(
        "a_release_without_optional_functions_loads_without_those_capabilities",
        |machine| {
            let acl = of_release(Library::Acl, Release::V8_1);
            machine.library("chosen/libascendcl.so").functions(&acl, 0).make();
            machine.library("chosen/libhccl.so").functions(&all_of(Library::Hccl), 0).make();
        },
        |machine| {
            let cann = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            cann.require_all().unwrap();
            assert!(cann.acl.aclrtMemcpyBatch.is_none());
            assert!(cann.acl.aclrtMemcpy.is_some());
            for absent in [
                Capability::MemcpyBatch,
                Capability::MemcpyBatchAsync,
                Capability::LaunchHostFunc,
                Capability::IpcMemory,
                Capability::DeviceIdTranslation,
                Capability::DeviceIdTranslationInner,
                Capability::AddressRange,
            ] {
                assert!(!cann.has(absent), "{absent:?}");
            }
            for present in [Capability::VirtualMemory, Capability::PeerAccess, Capability::OneSided] {
                assert!(cann.has(present), "{present:?}");
            }
            let error = cann.require(Capability::MemcpyBatchAsync).unwrap_err();
            assert_eq!(error.first_release(), Some(Release::V8_3));
            let error = cann.missing_symbol("aclrtMemcpyBatch");
            assert_eq!(error.first_release(), Some(Release::V8_2));
            assert!(error.to_string().contains("aclrtMemcpyBatch, first in CANN 8.2.RC1"), "{error}");
            let error = cann.missing_symbol("aclrtTeleport");
            assert!(error.to_string().contains("unknown to this crate: aclrtTeleport"), "{error}");
            let line = cann.symbol_report().into_iter().find(|line| line.symbol.name == "aclrtMemcpyBatch");
            assert_eq!(line.unwrap().found_in, None);
        },
    );
}

#[test]
fn one_sided_functions_that_are_missing_are_named_with_their_release() {
    in_process_of_its_own(
        "one_sided_functions_that_are_missing_are_named_with_their_release",
        |machine| {
            machine.library("chosen/libascendcl.so").functions(&all_of(Library::Acl), 0).make();
            let hccl = of_release(Library::Hccl, Release::V8_3);
            machine.library("chosen/lib64/libhccl.so").functions(&hccl, 0).make();
        },
        |machine| {
            let cann = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            cann.require(Capability::Runtime).unwrap();
            assert!(!cann.has(Capability::OneSided));
            let error: MissingSymbols = cann.require_all().unwrap_err();
            assert_eq!(error.capability, Some(Capability::OneSided));
            let names: Vec<_> = error.symbols.iter().map(|symbol| symbol.name).collect();
            assert_eq!(
                names,
                [
                    "HcclCommInitClusterInfoMemConfig",
                    "HcclBatchPut",
                    "HcclBatchGet",
                    "HcclRegisterGlobalMem",
                    "HcclDeregisterGlobalMem",
                    "HcclCommBindMem",
                    "HcclCommUnbindMem",
                    "HcclCommPrepare"
                ]
            );
            assert_eq!(error.first_release(), Some(Release::V8_5));
            let text = error.to_string();
            let library = machine.join("chosen/lib64/libhccl.so");
            for expected in [
                "this CANN has no one-sided HCCL",
                "HcclCommPrepare, first in CANN 8.5.0 (unverified: already CANN 8.3.RC1)",
                &format!("searched HCCL: {} (explicit CANN path)", library.display()),
                &format!(
                    "tried {}/ for libhcomm.so, libhccl.so (explicit CANN path): ",
                    machine.join("chosen").display()
                ),
            ] {
                assert!(text.contains(expected), "{expected} is not in\n{text}");
            }
        },
    );
}

#[test]
fn functions_are_found_in_whichever_library_of_their_group_has_them() {
    in_process_of_its_own(
        "functions_are_found_in_whichever_library_of_their_group_has_them",
        |machine| {
            let (left, right): (Vec<_>, Vec<_>) =
                all_of(Library::Hccl).into_iter().partition(|name| name.starts_with("HcclComm"));
            machine.library("chosen/libhcomm.so").functions(&left, 0).make();
            machine.library("chosen/libhccl.so").functions(&right, 0).make();
            let inner =
                machine.library("chosen/libruntime.so").functions(&all_of(Library::Runtime), 0).make();
            let acl = machine
                .library("chosen/libacl_rt.so")
                .functions(&all_of(Library::Acl), 0)
                .needs(&inner)
                .make();
            // As from 8.5 on: the old name is an empty shell around the new one.
            machine.library("chosen/libascendcl.so").needs(&acl).make();
        },
        |machine| {
            let cann = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            assert_eq!(cann.capabilities().iter().count(), Capability::ALL.len());
            let found_in = |name: &str| {
                let line = cann.symbol_report().into_iter().find(|line| line.symbol.name == name);
                line.unwrap().found_in.unwrap().file_name().unwrap().to_str().unwrap().to_owned()
            };
            assert_eq!(found_in("aclrtMalloc"), "libacl_rt.so");
            assert_eq!(found_in("HcclCommPrepare"), "libhcomm.so");
            assert_eq!(found_in("HcclBatchPut"), "libhccl.so");
            assert_eq!(found_in("rtGetDevicePhyIdByIndex"), "libruntime.so");
        },
    );
}

#[test]
fn what_a_library_needs_is_found_beside_it_and_with_the_driver() {
    in_process_of_its_own(
        "what_a_library_needs_is_found_beside_it_and_with_the_driver",
        |machine| {
            installation(machine, "chosen", 0);
            let driver = machine.library("driver/libascend_hal.so").functions(&["halInit"], 0).make();
            let inner =
                machine.library("chosen/libruntime.so").functions(&["rtInit"], 0).needs(&driver).make();
            machine.library("chosen/libascendcl.so").functions(&all_of(Library::Acl), 3).needs(&inner).make();
        },
        |machine| {
            // Nothing tells the linker where the two needed libraries are: neither a run path nor the
            // environment. The first load lacks the driver.
            let without = LoadOptions::only(machine.join("chosen"));
            let error = Cann::load(&without).unwrap_err();
            assert!(error.missing.contains(&Library::Acl));
            assert!(error.to_string().contains("libascend_hal.so: cannot open"), "{error}");
            let with = LoadOptions { driver_directories: vec![machine.join("driver")], ..without };
            let cann = Cann::load(&with).unwrap();
            assert_eq!(answer_of_acl(&cann), 3);
        },
    );
}

#[test]
fn functions_stay_valid_when_everybody_closes_the_libraries() {
    in_process_of_its_own(
        "functions_stay_valid_when_everybody_closes_the_libraries",
        |machine| installation(machine, "chosen", 5),
        |machine| {
            let path = machine.join("chosen/libascendcl.so");
            let name = CString::new(path.as_os_str().as_bytes()).unwrap();
            // SAFETY: the name is a C string, and the stand-ins have no constructors.
            let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY) };
            assert!(!handle.is_null());
            let cann = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            let (acl, hccl) = (cann.acl, cann.hccl);
            drop(cann);
            for _ in 0..8 {
                // SAFETY: more closes than opens: the linker counts, and NODELETE holds the library anyway.
                unsafe { libc::dlclose(handle) };
            }
            // SAFETY: functions of a stand-in, which is still mapped; this is what the test is about.
            let answers = unsafe {
                (acl.aclrtSetDevice.unwrap()(0), hccl.HcclCommDestroy.unwrap()(std::ptr::null_mut()))
            };
            assert_eq!(answers, (5, 5));
            assert_eq!(mapped("libascendcl.so").len(), 1);
        },
    );
}

#[test]
fn loading_twice_gives_the_same_libraries() {
    in_process_of_its_own(
        "loading_twice_gives_the_same_libraries",
        |machine| {
            installation(machine, "chosen", 1);
            installation(machine, "other", 2);
        },
        |machine| {
            let first = Cann::load(&LoadOptions::only(machine.join("chosen"))).unwrap();
            let second = Cann::load(&LoadOptions::only(machine.join("other"))).unwrap();
            assert_eq!((answer_of_acl(&first), answer_of_acl(&second)), (1, 1));
            assert_eq!((answer_of_hccl(&first), answer_of_hccl(&second)), (1, 1));
            assert_eq!(mapped("libascendcl.so").len(), 1);
            assert_eq!(second.attempts().len(), 2, "{:?}", second.attempts());
        },
    );
}

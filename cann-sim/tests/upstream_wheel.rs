//! Upstream's released NPU wheel, unmodified: what its libraries want of CANN is here.
//!
//! The wheel is fetched by pip and never committed. HIXL itself (`libllm_datadist.so` and `libmetadef.so`) is in no
//! package index; the test gives the loader libraries that have the names of its classes and nothing else, so that
//! everything that is CANN's must come from the software NPU. The calls that HIXL makes are replayed by
//! `hixl_sequences`.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the test's failure")]

#[allow(dead_code, reason = "these tests judge their commands themselves")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const WHEEL: &str = "mooncake-transfer-engine-npu==0.3.13.post1";

/// Libraries of HIXL that the wheel needs and that we do not pose as.
const HIXL_LIBRARIES: [&str; 2] = ["libllm_datadist.so", "libmetadef.so"];

/// Releases whose software NPU the wheel is meant to run on.
const RELEASES: [&str; 3] = ["8.5", "9.0", "9.2"];

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(text.lines().last().unwrap_or("failed without a word").to_owned())
}

#[expect(clippy::print_stderr, reason = "a skip is told to whoever runs the tests")]
fn skip(test: &str, reason: &str) {
    use std::io::Write as _;
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("MOONCAKE_TRANSFER_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(log, "cann-sim {test}: {reason}").unwrap();
    }
}

/// The folder with the wheel's libraries, unpacked once for all tests.
fn wheel() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(WHEEL.replace("==", "-"));
    let libraries = place.join("mooncake");
    let lock = std::fs::File::create(place.with_extension("lock")).unwrap();
    // Tests may run in a process each; one of them fetches. The lock goes with the file.
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&lock), libc::LOCK_EX) }, 0);
    if libraries.join("ascend_transport.so").exists() {
        return Ok(libraries);
    }
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let fetched = run(Command::new("python3")
        .args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.11"])
        .args(["--implementation", "cp", "--platform", "manylinux_2_35_x86_64", WHEEL, "-d"])
        .arg(scratch.path()));
    fetched.map_err(|error| format!("{WHEEL} cannot be had: {error}"))?;
    let program = "import glob,sys,zipfile\nzipfile.ZipFile(glob.glob(sys.argv[1]+'/*.whl')[0]).extractall(sys.argv[1])";
    run(Command::new("python3").args(["-c", program]).arg(scratch.path()))?;
    std::fs::remove_dir_all(&place).ok(); // what an interrupted run may have left
    std::fs::rename(scratch.keep(), &place).unwrap();
    Ok(libraries)
}

/// The shared objects of the wheel.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "so"))
        .collect();
    found.sort();
    found
}

/// The symbols an object leaves to others.
fn undefined(object: &Path) -> Result<BTreeSet<String>, String> {
    let output = run(Command::new("nm").args(["-D", "--undefined-only", "--format=posix"]).arg(object))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect())
}

/// Whether CANN is the one that has a symbol of this name.
fn is_canns(name: &str) -> bool {
    let after = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.chars().next());
    after("aclrt").or_else(|| after("acl")).or_else(|| after("Hccl")).or_else(|| after("rt")).is_some_and(
        |letter| letter.is_ascii_uppercase(), // not `access`, not `rtld_…`
    )
}

/// Whether HIXL is.
fn is_hixls(name: &str) -> bool {
    ["_ZN4adxl", "_ZN2ge", "_ZNK2ge"].iter().any(|prefix| name.starts_with(prefix))
}

/// Facts 7.2: every function of CANN that any library of the wheel names is in the software NPU, in each release
/// that the wheel is for. The list is the wheel's own.
#[test]
fn asks_for_nothing_that_is_missing() {
    let wanted = wheel().and_then(|folder| {
        let mut wanted = BTreeSet::new();
        for object in objects(&folder) {
            wanted.extend(undefined(&object)?.into_iter().filter(|name| is_canns(name)));
        }
        Ok(wanted)
    });
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(reason) => return skip("upstream's NPU wheel and our symbols", &reason),
    };
    assert!(wanted.len() >= 30 && wanted.contains("aclrtMemcpyBatch"), "{wanted:?}");
    for release in RELEASES {
        let mut command = support::command("symbols.c", "presence");
        command.env("CANN_SIM_RELEASE", release);
        command.args(wanted.iter().map(|symbol| format!("libascendcl.so:{symbol}")));
        let output = run(&mut command).unwrap();
        let answers = String::from_utf8(output.stdout).unwrap();
        let seen: BTreeMap<&str, &str> = wanted.iter().map(String::as_str).zip(answers.lines()).collect();
        assert_eq!(seen.len(), wanted.len());
        let mut missing: Vec<_> =
            seen.iter().filter(|(_, answer)| **answer != "1").map(|(name, _)| *name).collect();
        // Weak in the wheel: it asks before it calls. CANN has it from 9.0 on (facts 1.2).
        missing.retain(|name| !(*name == "aclrtReserveMemAddressNoUCMemory" && release == "8.5"));
        assert!(missing.is_empty(), "release {release}: {missing:?}");
    }
}

/// Facts 7.2 and 10: the wheel's Ascend transport loads with every symbol resolved at once. Its own engine, which it
/// refers back to, is replaced by names too, because that one wants a library for InfiniBand.
#[test]
fn its_transport_loads() {
    if std::env::consts::ARCH != "x86_64" {
        return skip("upstream's NPU wheel loads", "the wheel is x86-64");
    }
    let prepared = wheel().and_then(|folder| {
        let mut names = undefined(&folder.join("ascend_transport.so"))?;
        names.retain(|name| is_hixls(name) || name.contains("8mooncake"));
        Ok((folder, names))
    });
    let (folder, names) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => return skip("upstream's NPU wheel loads", &reason),
    };
    assert!(names.len() >= 10, "{names:?}");
    let scratch = tempfile::tempdir().unwrap();
    let text: String = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            format!("int hixl_{index}(void) __asm__(\"{name}\"); int hixl_{index}(void) {{ return 0; }}\n")
        })
        .collect();
    let source = scratch.path().join("hixl.c");
    std::fs::write(&source, text).unwrap();
    for library in HIXL_LIBRARIES {
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(scratch.path().join(library))
            .arg(&source)
            .status()
            .unwrap();
        assert!(built.success());
    }
    let program = "import ctypes,glob,os,sys\nfolder=os.path.dirname(sys.argv[1])\n\
                   for name in glob.glob(folder+'/libjsoncpp*'): ctypes.CDLL(name, mode=os.RTLD_NOW|os.RTLD_GLOBAL)\n\
                   ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW)\nprint(open('/proc/self/maps').read())";
    for release in RELEASES {
        let libraries = support::libraries();
        let mut command = Command::new("python3");
        command.args(["-c", program]).arg(folder.join("ascend_transport.so"));
        let mut path = libraries.clone().into_os_string();
        path.push(":");
        path.push(scratch.path());
        command.env("LD_LIBRARY_PATH", path).env("CANN_SIM_RELEASE", release);
        let output = run(&mut command).unwrap();
        let maps = String::from_utf8(output.stdout).unwrap();
        let ours = libraries.canonicalize().unwrap().join("libascendcl.so").display().to_string();
        assert!(maps.contains(&ours) && maps.contains("ascend_transport.so"), "release {release}: {maps}");
    }
}

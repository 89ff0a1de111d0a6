//! The shared library as a file: its name, what it needs, what it exports, how big it is.

use std::collections::BTreeSet;
use std::process::Command;

use mooncake_test_support::artifacts;
use tempfile::TempDir;

use crate::build::{include, succeed};

/// What it may need: the C library with its parts on old systems, the unwinder, the loader.
const ALLOWED: [&str; 7] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libpthread.so.0",
    "libdl.so.2",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

/// Stripped size limit.
const LIMIT_BYTES: u64 = 5 * 1024 * 1024;

/// The names that the headers declare as functions.
fn declared() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for header in ["transfer_engine_c.h", "store_c.h", "mooncake_transfer.h"] {
        // The compiler strips comments and macros; what is left of our own headers are types and prototypes.
        let text = succeed(Command::new("cc").args(["-E", "-P"]).arg(include().join(header)));
        for statement in text.split(';').map(str::trim) {
            if statement.starts_with("typedef") || !statement.ends_with(')') {
                continue;
            }
            let head = statement.split('(').next().unwrap();
            let name = head.rsplit([' ', '*', '\n']).next().unwrap();
            let ours = name.starts_with("mooncake_transfer_") || name.starts_with("mooncake_store_");
            let upstreams =
                include_str!("../../../include/transfer_engine_c.h").contains(&format!("{name}("));
            if ours || upstreams {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn exports_are_exactly_what_the_headers_declare() {
    let listing = succeed(
        Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(artifacts::library()),
    );
    let exported: BTreeSet<String> =
        listing.lines().filter_map(|line| line.split(' ').next()).map(|name| name.to_owned()).collect();
    assert_eq!(exported, declared());
    assert!(exported.len() >= 27 + 19);
}

#[test]
fn it_has_its_name_and_needs_only_the_c_library() {
    let dynamic = succeed(Command::new("readelf").args(["-d", "-W"]).arg(artifacts::library()));
    let bracketed = |line: &str| line.split(['[', ']']).nth(1).map(str::to_owned);
    let soname = dynamic.lines().find(|line| line.contains("(SONAME)")).and_then(bracketed);
    assert_eq!(soname.as_deref(), Some("libmooncake_transfer.so"));
    let needed: Vec<String> =
        dynamic.lines().filter(|line| line.contains("(NEEDED)")).filter_map(bracketed).collect();
    assert!(!needed.is_empty());
    for library in needed {
        assert!(ALLOWED.contains(&library.as_str()), "it needs {library}");
    }
    assert!(!dynamic.contains("TEXTREL"), "it has text relocations");
    assert!(dynamic.contains("NODELETE"), "dlclose would unmap code that threads run");
}

#[test]
fn stripped_it_is_small() {
    let directory = TempDir::new().unwrap();
    let stripped = directory.path().join("stripped.so");
    succeed(Command::new("strip").arg("-o").arg(&stripped).arg(artifacts::library()));
    let size_bytes = stripped.metadata().unwrap().len();
    assert!(size_bytes <= LIMIT_BYTES, "{size_bytes} bytes");
}

//! The table of bounds in the crate's documentation names constants that are there, and the list of metrics names that
//! are on the page.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::path::{Path, PathBuf};

use common::Master;
use mooncake_test_support::documented_bounds;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn every_bound_of_the_documentation_is_a_constant() {
    let rows = documented_bounds(&source());
    assert!(rows >= 20, "{rows} rows");
}

/// `a_{b,c}_d` is two names.
fn spelled_out(pattern: &str) -> Vec<String> {
    match pattern.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (middle, after))) => {
            middle.split(',').map(|part| format!("{before}{part}{after}")).collect()
        }
        None => vec![pattern.to_owned()],
    }
}

#[test]
fn every_metric_of_the_documentation_is_on_the_page() {
    let directory = tempfile::tempdir().expect("directory");
    let master = Master::start(&[&format!("--journal_dir={}", directory.path().display())]);
    let (_, page) = master.http("GET /metrics");
    let text = std::fs::read_to_string(source().join("lib.rs")).expect("lib.rs");
    let (_, list) = text.split_once("//! Metrics have upstream's names").expect("the list is there");
    let (list, _) = list.split_once("//! # Bounds").expect("the end of the list");
    let names: Vec<String> =
        list.split('`').filter(|word| word.starts_with("master_")).flat_map(spelled_out).collect();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("# HELP {name} ")), "{name}");
    }
}

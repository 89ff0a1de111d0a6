//! The table of bounds in the crate's documentation names constants that are there, and the list of metrics names that
//! are on the page.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::path::Path;

use common::Master;

fn documentation() -> (std::path::PathBuf, String) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = std::fs::read_to_string(source.join("lib.rs")).expect("lib.rs");
    (source, text)
}

#[test]
fn every_bound_of_the_documentation_is_a_constant() {
    let (source, text) = documentation();
    let (_, chapter) = text.split_once("//! # Bounds").expect("the chapter is there");
    let mut rows = 0;
    for row in chapter.lines().filter(|line| line.starts_with("//! |") && line.contains('`')) {
        let cells: Vec<&str> = row.split('`').collect();
        let (file, constant) = (cells[1], cells[3]);
        let text =
            std::fs::read_to_string(source.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("const {constant}:")), "{file} has no constant {constant}");
        rows += 1;
    }
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
    let (_, text) = documentation();
    let (_, list) = text.split_once("//! Metrics have upstream's names").expect("the list is there");
    let (list, _) = list.split_once("//! # Bounds").expect("the end of the list");
    let names: Vec<String> =
        list.split('`').filter(|word| word.starts_with("master_")).flat_map(spelled_out).collect();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("# HELP {name} ")), "{name}");
    }
}

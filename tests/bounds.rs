//! The table of bounds in the crate's documentation names constants that are there.

use std::path::Path;

#[test]
fn every_bound_of_the_documentation_is_a_constant() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let documentation = std::fs::read_to_string(source.join("lib.rs")).unwrap();
    let (_, chapter) = documentation.split_once("//! # Bounds").expect("the chapter is there");
    let mut rows = 0;
    for row in chapter.lines().filter(|line| line.starts_with("//! |") && line.contains('`')) {
        let cells: Vec<&str> = row.split('`').collect();
        let (file, constant) = (cells[1], cells[3]);
        let text =
            std::fs::read_to_string(source.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("const {constant}:")), "{file} has no constant {constant}");
        rows += 1;
    }
    assert!(rows > 20, "{rows} rows");
}

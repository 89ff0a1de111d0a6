//! The chapter on bounds of a crate's documentation, held against the code.

use std::path::Path;

/// Asserts that every row of the chapter `# Bounds` in `lib.rs` names a file below `source` and a constant that is in
/// it; gives the number of rows.
#[must_use]
pub fn documented_bounds(source: &Path) -> usize {
    let documentation = std::fs::read_to_string(source.join("lib.rs")).expect("lib.rs");
    let (_, chapter) = documentation.split_once("//! # Bounds").expect("the chapter is there");
    let mut rows = 0;
    for row in chapter.lines().filter(|line| line.starts_with("//! |") && line.contains('`')) {
        let mut cells = row.split('`').skip(1).step_by(2);
        let (Some(file), Some(constant)) = (cells.next(), cells.next()) else { panic!("no constant: {row}") };
        let text =
            std::fs::read_to_string(source.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("const {constant}:")), "{file} has no constant {constant}");
        rows += 1;
    }
    rows
}

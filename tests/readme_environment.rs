//! The README's table of environment variables is the library's own.

use mooncake::config::markdown;

const BEGIN: &str = "<!-- made by `make readme` from src/config/table.rs -->\n";
const END: &str = "<!-- end of what `make readme` made -->\n";

#[test]
fn the_table_of_the_readme_is_the_one_that_is_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (_, rest) = readme.split_once(BEGIN).expect("the README has the section");
    let (section, _) = rest.split_once(END).expect("the section has an end");
    assert!(section == markdown(), "the README has another table; `make readme` writes it anew");
}

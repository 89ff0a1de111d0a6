//! The table of bounds in the crate's documentation names constants that are there.

use std::path::Path;

use mooncake_test_support::documented_bounds;

#[test]
fn every_bound_of_the_documentation_is_a_constant() {
    let rows = documented_bounds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(rows > 20, "{rows} rows");
}

//! The seeds of the fuzz targets, replayed: what was found once, or is the shape of a good message, stays decided.
//! Coverage-guided runs are `make fuzz`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

#[path = "../fuzz/decoders.rs"]
mod decoders;

use std::path::Path;

/// Every target has seeds, every seed a target, and each passes; so do its prefixes and its neighbours by one bit.
#[test]
fn every_seed_passes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut folders = 0;
    for (name, decoder) in decoders::ALL {
        assert!(root.join("fuzz_targets").join(name).with_extension("rs").exists(), "no target {name}");
        let seeds: Vec<_> = std::fs::read_dir(root.join("seeds").join(name)).unwrap().collect();
        assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
        for seed in seeds {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            decoder(&bytes);
            for end in 0..bytes.len().min(512) {
                decoder(bytes.get(..end).unwrap());
            }
            for bit in 0..(8 * bytes.len()).min(4096) {
                let mut changed = bytes.clone();
                *changed.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
                decoder(&changed);
            }
        }
        folders += 1;
    }
    assert_eq!(std::fs::read_dir(root.join("seeds")).unwrap().count(), folders, "seeds that nobody replays");
}

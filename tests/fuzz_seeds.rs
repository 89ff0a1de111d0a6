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

/// The first byte of a seed says how the rest is cut: one that lacks it is no good message but noise.
#[test]
fn seeds_of_the_control_connection_are_frames_or_messages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/control_frame");
    let mut messages = 0;
    for seed in std::fs::read_dir(folder).unwrap() {
        let path = seed.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let body = bytes.get(1..).unwrap();
        if body.starts_with(&mooncake::control::frame::MAGIC) {
            continue;
        }
        let message = serde_json::from_slice::<mooncake::control::Message>(body);
        assert!(message.is_ok(), "{}: {message:?}", path.display());
        messages += 1;
    }
    assert!(messages >= 8, "{messages}");
}

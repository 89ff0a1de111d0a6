//! Promise 12: a master restart keeps the warm cache, and never serves overwritten bytes.
//!
//! The journal at every record and every byte is in `master/tests/journal_replay.rs` and `killed_master.rs`; here the
//! bytes are real: stores write, the master is killed in the middle, and every value is compared. Tried by taking
//! mechanisms out of the master: without the flush before an answer, and without the record of a dropped object, what
//! was put is gone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use mooncake::store::{ReplicateConfig, Store};
use store::{MIB, Master, eventually, pattern};

const PLAIN: fn() -> ReplicateConfig = ReplicateConfig::default;

/// What a key may hold.
#[derive(Default)]
struct Known {
    /// Seeds of the values that were put, the last one last.
    seeds: Vec<u64>,
    /// Whether the last of them is there for sure: every answer came.
    sure: bool,
}

/// Puts and removes until the master is gone; if it does not go, not for ever.
fn load(store: &Store, thread: u64, known: &mut BTreeMap<String, Known>, next: &mut u64) {
    for _ in 0..50_000 {
        *next += 1;
        let key = format!("{thread}-{}", *next % 40);
        let seed = thread << 32 | *next;
        if let Some(there) = known.get_mut(&key) {
            there.sure = false;
            match store.remove(key.as_bytes(), true).map_err(|failure| failure.code().0) {
                // A key that is not there is as good as removed.
                Ok(()) | Err(-704) => drop(known.remove(&key)),
                // A put that was cut short stands there for a while.
                Err(-703) => continue,
                Err(_) => return,
            }
        }
        let there = known.entry(key.clone()).or_default();
        there.seeds.push(seed);
        if store.put(key.as_bytes(), &pattern(seed, length_of(seed)), &PLAIN()).is_err() {
            return;
        }
        there.sure = true;
    }
}

fn length_of(seed: u64) -> usize {
    1000 + (seed % 7) as usize * 9000
}

#[test]
fn killed_in_the_middle_of_a_load_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let flags = [
        format!("--journal_dir={}", directory.path().display()),
        "--eviction_ratio=0".into(),
        "--eviction_high_watermark_ratio=1".into(),
        "--client_ttl=60".into(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut master = Master::start(&flags);
    let port = master.port();
    let stores: Vec<Arc<Store>> = (0..2).map(|_| store::store(&master, 32 * MIB)).collect();
    let mut known: Vec<BTreeMap<String, Known>> = (0..2).map(|_| BTreeMap::new()).collect();
    let mut next = vec![0_u64; 2];
    for round in 0..4 {
        let seen = master.metric("master_batch_put_end_requests_total");
        std::thread::scope(|scope| {
            for (thread, ((store, known), next)) in stores.iter().zip(&mut known).zip(&mut next).enumerate() {
                scope.spawn(move || load(store, thread as u64, known, next));
            }
            // It is killed in the middle: enough was put, and more is under way.
            eventually("some puts", || {
                master.metric("master_batch_put_end_requests_total") > seen + 60 + round * 13
            });
            master.child.kill();
        });
        master = Master::start_on("127.0.0.1", port, &flags);
        eventually("both segments are back", || {
            master.page("/get_all_segments").lines().count() == 2
                && master.metric("master_active_clients") == 2
        });
        for (thread, known) in known.iter().enumerate() {
            for (key, known) in known {
                // Read by the other store. What is there has the bytes of one put of this key.
                match stores[thread ^ 1].get(key.as_bytes()) {
                    Ok(value) => {
                        let whole = known.seeds.iter().any(|seed| pattern(*seed, length_of(*seed)) == value);
                        assert!(whole, "round {round}: {key} has bytes that nobody put there");
                    }
                    Err(failure) => {
                        let code = failure.code().0;
                        let unsure = !known.sure && [-704, -703].contains(&code);
                        assert!(unsure, "round {round}: {key} was put and is gone: {failure}");
                    }
                }
            }
        }
    }
    assert!(known.iter().flat_map(BTreeMap::values).filter(|known| known.sure).count() > 20);
}

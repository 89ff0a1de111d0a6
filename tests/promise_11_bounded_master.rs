//! Promise 11: the master's memory is bounded by a number you set; a put on a full pool evicts first.
//!
//! Tried by taking mechanisms out of the master: without `State::admit` the metadata passes its budget; without the
//! eviction in `State::start` the puts on a full pool fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod store;

use mooncake::store::ReplicateConfig;
use store::{MIB, Master, pattern, same};

const PLAIN: fn() -> ReplicateConfig = ReplicateConfig::default;

#[test]
fn metadata_stays_under_its_budget() {
    let budget = 1_u64 << 20;
    let master = Master::start(&["--metadata_budget=1m", "--default_kv_lease_ttl=1"]);
    let store = store::store(&master, 64 * MIB);
    let resident_kib = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", master.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().split(' ').next().unwrap().parse().unwrap()
    };
    let mut before = 0;
    // A hundred times what the budget has room for. What connections take is there when it was filled twice; each thread
    // that serves may keep freed memory of its own.
    for start in (0..400_000_u64).step_by(500) {
        if start == 8000 {
            before = resident_kib();
        }
        let names: Vec<_> = (start..start + 500).map(|index| format!("key-{index:040}")).collect();
        let keys: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let values: Vec<&[u8]> = keys.clone();
        let put = store.batch_put(&keys, &values, &PLAIN());
        assert!(put.iter().all(Result::is_ok), "{:?}", put.iter().find(|one| one.is_err()));
        assert!(master.metric("master_metadata_bytes") <= budget);
    }
    let objects = master.metric("master_key_count");
    assert!((1000..10_000).contains(&objects), "{objects}");
    assert_eq!(master.metric("master_metadata_budget_bytes"), budget);
    let each = master.metric("master_metadata_bytes_per_object");
    assert!((100..400).contains(&each), "{each} bytes an object, its key apart");
    let grown = resident_kib().saturating_sub(before);
    // Without the budget it would be 110 MiB.
    assert!(grown < 40 << 10, "{grown} KiB more for a budget of one MiB");
    // The newest are there, with their own bytes.
    let newest = format!("key-{:040}", 399_999);
    same(&store.get(newest.as_bytes()).unwrap(), newest.as_bytes(), "the newest");
}

#[test]
fn a_put_on_a_full_pool_evicts_first() {
    // Nothing is evicted ahead of time: each put has to see to its own room.
    let master = Master::start(&["--default_kv_lease_ttl=1", "--eviction_high_watermark_ratio=1"]);
    let store = store::store(&master, 16 * MIB);
    for index in 0..200_u64 {
        let (key, value) = (format!("k{index}"), pattern(index, MIB as usize));
        store.put(key.as_bytes(), &value, &PLAIN()).unwrap();
    }
    assert!(master.metric("master_evictions_in_put_total") > 50);
    assert_eq!(master.metric("master_put_start_alloc_failures_total"), 0);
    same(&store.get(b"k199").unwrap(), &pattern(199, MIB as usize), "the last");
}

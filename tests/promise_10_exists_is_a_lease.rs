//! Promise 10: `exists` true grants a lease: within it no eviction takes the object.
//!
//! The rules of eviction are in `master/tests/eviction_order.rs`; here two stores with a master between them. Tried by
//! taking the mechanism out: without the lease in `State::exists` of the master the first test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod store;

use mooncake::store::{ReplicateConfig, Store};
use store::{MIB, Master, pattern, same};

const PLAIN: fn() -> ReplicateConfig = ReplicateConfig::default;

/// Puts so much that everything that may go has gone.
fn flood(writer: &Store, tag: &str) {
    for index in 0..48_u64 {
        let key = format!("{tag}{index}");
        writer.put(key.as_bytes(), &pattern(index, MIB as usize), &PLAIN()).unwrap();
    }
}

#[test]
fn what_was_seen_outlives_any_flood_by_another() {
    let master = Master::start(&["--default_kv_lease_ttl=120000"]);
    let (seer, writer) = (store::store(&master, 0), store::store(&master, 16 * MIB));
    let value = pattern(7, MIB as usize);
    for key in [b"seen".as_slice(), b"in a batch", b"listed", b"unseen"] {
        writer.put(key, &value, &PLAIN()).unwrap();
    }
    assert!(seer.is_exist(b"seen").unwrap());
    let both = seer.batch_is_exist(&[b"none", b"in a batch"]);
    assert_eq!(both.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [false, true]);
    assert_eq!(seer.get_size(b"listed").unwrap(), MIB);
    flood(&writer, "k");
    for key in [b"seen".as_slice(), b"in a batch", b"listed"] {
        same(&seer.get(key).unwrap(), &value, "what was seen");
    }
    // The flood was one: what nobody saw is gone.
    assert!(!seer.is_exist(b"unseen").unwrap());
    assert!(master.metric("master_evicted_key_count") > 30);
    // Nor does a removal take it, unless it is forced.
    assert_eq!(store::code(&writer.remove(b"seen", false)), -706);
    writer.remove(b"seen", true).unwrap();
}

#[test]
fn a_lease_ends() {
    let master = Master::start(&["--default_kv_lease_ttl=1"]);
    let writer = store::store(&master, 16 * MIB);
    writer.put(b"seen", &pattern(7, MIB as usize), &PLAIN()).unwrap();
    assert!(writer.is_exist(b"seen").unwrap());
    flood(&writer, "k");
    assert!(!writer.is_exist(b"seen").unwrap());
}

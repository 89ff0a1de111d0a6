//! A million keys through one client, which does not grow by them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod store;

use mooncake::store::ReplicateConfig;
use store::{MIB, Master, pattern, same, span};

const ROUNDS: u64 = 100;
const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 48;

/// Anonymous memory of this process, in bytes.
fn own_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_million_keys_leave_a_client_as_it_was() {
    let master = Master::start(&[]);
    let store = store::store(&master, 256 * MIB);
    let values = pattern(1, VALUE_BYTES * KEYS as usize);
    let mut targets = vec![0_u8; values.len()];
    let pieces: Vec<_> = values.chunks(VALUE_BYTES).map(span).collect();
    let places: Vec<_> = targets.chunks(VALUE_BYTES).map(span).collect();
    let mut after_warm_up = (0, 0);
    for round in 0..ROUNDS {
        let names: Vec<_> = (0..KEYS).map(|index| format!("{round}/{index}")).collect();
        let keys: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let written = store.batch_put_from(&keys, &pieces, &ReplicateConfig::default());
        assert!(written.iter().all(Result::is_ok));
        let read = store.batch_get_into(&keys, &places);
        assert!(read.iter().all(|read| matches!(read, Ok(bytes) if *bytes == VALUE_BYTES as u64)));
        same(std::hint::black_box(&targets), &values, "the values of a round");
        targets.fill(0);
        assert!(store.batch_is_exist(&keys).iter().all(|found| matches!(found, Ok(true))));
        assert_eq!(store.remove_all(true).unwrap(), KEYS as i64);
        if round == ROUNDS / 10 {
            after_warm_up = (own_bytes(), threads());
        }
    }
    let now = (own_bytes(), threads());
    assert!(now.0 < after_warm_up.0 + 8 * MIB, "{after_warm_up:?} became {now:?}");
    assert!(now.1 <= after_warm_up.1 + 4, "{after_warm_up:?} became {now:?}");
}

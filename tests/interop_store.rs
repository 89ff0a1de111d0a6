//! Our store client at upstream's released masters, and beside upstream's released clients in one pool.
//!
//! The wheels are made by `tests/interop/make_peers.sh`; where they cannot be had, each test is a counted skip.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does"
)]

mod interop;
#[path = "interop/store.rs"]
mod peers;
mod store;

use interop::{NEWEST, STORE_RELEASES, missing};
use mooncake::store::{Health, ReplicateConfig, Store};
use peers::{UpstreamMaster, UpstreamStore};
use serde_json::json;
use store::{MIB, Master, code, eventually, options, pattern, same, span};

const PLAIN: fn() -> ReplicateConfig = ReplicateConfig::default;

#[test]
fn our_client_at_upstreams_masters() {
    for release in STORE_RELEASES {
        let Some(master) = UpstreamMaster::start(release, &[]) else {
            missing(release);
            continue;
        };
        let owner = Store::setup(options(&master.address(), 128 * MIB)).unwrap();
        let reader = Store::setup(options(&master.address(), 0)).unwrap();
        assert_eq!(owner.health(), Health::Healthy);
        let values: Vec<_> = (0..200).map(|index| pattern(index, 5000 + index as usize)).collect();
        let names: Vec<_> = (0..200).map(|index| format!("m@8@{index}/é")).collect();
        let keys: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let cut: Vec<Vec<_>> = values.iter().map(|value| value.chunks(100).map(span).collect()).collect();
        let pieces: Vec<&[(u64, u64)]> = cut.iter().map(Vec::as_slice).collect();
        let written = reader.batch_put_from_multi_buffers(&keys, &pieces, &PLAIN());
        assert!(written.iter().all(Result::is_ok), "{release}: {written:?}");
        for (key, value) in keys.iter().zip(&values) {
            same(&owner.get(key).unwrap(), value, release);
        }
        for (value, read) in values.iter().zip(reader.batch_get(&keys)) {
            same(&read.unwrap(), value, release);
        }
        assert_eq!(
            owner.batch_is_exist(&[b"none", keys[0]]).iter().filter(|r| matches!(r, Ok(true))).count(),
            1
        );
        assert_eq!(code(&owner.get(b"none")), -704, "{release}");
        assert_eq!(code(&owner.remove(keys[0], false)), -706, "{release}");
        owner.remove(keys[0], true).unwrap();
        owner.upsert(b"u", &values[1], &PLAIN()).unwrap();
        owner.upsert(b"u", &values[2], &PLAIN()).unwrap();
        same(&owner.get(b"u").unwrap(), &values[2], release);
        assert_eq!(owner.get_size(keys[3]).unwrap(), 5003);
        let same_node = ReplicateConfig { prefer_alloc_in_same_node: true, with_hard_pin: true, ..PLAIN() };
        let pinned = owner.batch_put_from_multi_buffers(&[b"p"], &[&[span(&values[5])]], &same_node);
        assert!(pinned[0].is_ok(), "{release}: {pinned:?}");
        assert_eq!(owner.replicas_by_regex("^m@8@1\\d/").unwrap().len(), 10, "{release}");
        assert_eq!(owner.remove_by_regex("^m@8@1\\d/", true).unwrap(), 10, "{release}");
        assert_eq!(owner.remove_all(true).unwrap(), 191, "{release}");
        owner.close();
        assert_eq!(code(&reader.put(b"k", b"value", &PLAIN())), -200, "{release}");
    }
}

#[test]
fn both_clients_in_one_pool_of_either_master() {
    for release in STORE_RELEASES {
        for ours in [true, false] {
            // Each holds its kind of master alive.
            let (mut own, mut other) = (None, None);
            let address = if ours {
                own.insert(Master::start(&[])).address.clone()
            } else {
                let Some(master) = UpstreamMaster::start(release, &[]) else {
                    missing(release);
                    continue;
                };
                other.insert(master).address()
            };
            let Some(mut upstream) = UpstreamStore::start(release, &address, 64 * MIB) else {
                missing(release);
                continue;
            };
            let store = Store::setup(options(&address, 64 * MIB)).unwrap();
            for round in 0..12_u64 {
                // Some lie in our segment, some in theirs, some in both.
                let value = pattern(round, 200_000 + round as usize);
                let key = format!("k{round}");
                if round % 2 == 0 {
                    upstream.put(&key, &value);
                } else {
                    let config = ReplicateConfig { replica_num: 1 + round % 3, ..PLAIN() };
                    store.put(key.as_bytes(), &value, &config).unwrap();
                }
                let what = format!("{release} ours={ours} {key}");
                if release != NEWEST && round % 2 == 0 {
                    // Releases before 0.3.13 call a write over TCP done when it is sent, not when it has arrived.
                    eventually(&what, || store.get(key.as_bytes()).unwrap() == value);
                }
                same(&store.get(key.as_bytes()).unwrap(), &value, &what);
                same(&upstream.get(&key), &value, &what);
                // Both leave the first value where it is.
                store.put(key.as_bytes(), b"other", &PLAIN()).unwrap();
                upstream.put(&key, b"other");
                assert_eq!(store.get_size(key.as_bytes()).unwrap(), value.len() as u64);
            }
            let size = upstream.call(&json!(["batch_is_exist", ["k0", "none", "k11"]]));
            assert_eq!(size, json!([1, 0, 1]));
            store.close();
            assert_eq!(upstream.call(&json!(["close"])), json!(0));
            drop((own, other));
        }
    }
}

#[test]
fn upstreams_master_restarts_and_our_segment_comes_back() {
    for release in STORE_RELEASES {
        let Some(master) = UpstreamMaster::start(release, &[]) else {
            missing(release);
            continue;
        };
        let store = Store::setup(options(&master.address(), 64 * MIB)).unwrap();
        store.put(b"k", &pattern(1, 1000), &PLAIN()).unwrap();
        let _master = master.restart();
        let value = pattern(2, 2000);
        eventually("a put succeeds again", || store.put(b"new", &value, &PLAIN()).is_ok());
        same(&store.get(b"new").unwrap(), &value, release);
    }
}

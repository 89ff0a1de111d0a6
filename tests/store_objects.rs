//! Put and get in all their forms, byte-checked, against a master of ours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod store;

use std::time::{Duration, Instant};

use mooncake::store::{Health, Range, ReplicateConfig, Store};
use store::{MIB, Master, code, options, pattern, same, span};

const PLAIN: fn() -> ReplicateConfig = ReplicateConfig::default;

#[test]
fn one_value_there_and_back() {
    let master = Master::start(&[]);
    let store = store::store(&master, 64 * MIB);
    let value = pattern(1, 100_003);
    store.put(b"k", &value, &PLAIN()).unwrap();
    same(&store.get(b"k").unwrap(), &value, "value");
    assert_eq!(store.get_size(b"k").unwrap(), 100_003);
    assert!(store.is_exist(b"k").unwrap());
    assert!(!store.is_exist(b"none").unwrap());
    assert_eq!(code(&store.get(b"none")), -704);
    assert_eq!(code(&store.get_size(b"none")), -704);
    // The first value stays, whatever the second one's size.
    store.put(b"k", &pattern(2, 10), &PLAIN()).unwrap();
    same(&store.get(b"k").unwrap(), &value, "value");
    // An upsert replaces it.
    store.upsert(b"k", &pattern(3, 777), &PLAIN()).unwrap();
    same(&store.get(b"k").unwrap(), &pattern(3, 777), "value");
    assert_eq!(code(&store.remove(b"k", false)), -706);
    store.remove(b"k", true).unwrap();
    assert_eq!(code(&store.remove(b"k", true)), -704);
    assert_eq!(store.health(), Health::Healthy);
}

#[test]
fn keys_are_bytes_and_empty_ones_are_refused() {
    let master = Master::start(&[]);
    let store = store::store(&master, 64 * MIB);
    let long = vec![b'x'; 8192];
    let keys: [&[u8]; 4] = [b"a\0b", "schl\u{fc}ssel@1/\u{4e2d}".as_bytes(), &[0xff, 0xfe], &long];
    for (index, key) in keys.iter().enumerate() {
        let value = pattern(index as u64, 100 + index);
        store.put(key, &value, &PLAIN()).unwrap();
        same(&store.get(key).unwrap(), &value, "value");
    }
    assert_eq!(code(&store.put(b"", b"value", &PLAIN())), -600);
    assert_eq!(code(&store.put(b"k", b"", &PLAIN())), -600);
    assert_eq!(code(&store.put_from(b"", 4096, 1, &PLAIN())), -600);
    // Nothing to store is no failure where upstream has it so, and stores nothing.
    store.put_from(b"none", 0, 0, &PLAIN()).unwrap();
    store.put_parts(b"none", &[b"", b""], &PLAIN()).unwrap();
    assert!(!store.is_exist(b"none").unwrap());
}

#[test]
fn parts_become_one_value() {
    let master = Master::start(&[]);
    let store = store::store(&master, 64 * MIB);
    store.put_parts(b"k", &[b"head ", b"", b"and tail"], &PLAIN()).unwrap();
    assert_eq!(store.get(b"k").unwrap(), b"head and tail");
}

#[test]
fn a_batch_answers_per_key() {
    let master = Master::start(&[]);
    let store = store::store(&master, 256 * MIB);
    let values: Vec<_> = (0..300).map(|index| pattern(index, 1000 + index as usize)).collect();
    let names: Vec<_> = (0..300).map(|index| format!("b{index}")).collect();
    let keys: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let spans: Vec<_> = values.iter().map(|value| span(value)).collect();
    assert!(store.batch_put_from(&keys, &spans, &PLAIN()).iter().all(Result::is_ok));
    let mut wanted = keys.clone();
    wanted.insert(7, b"missing");
    let exist = store.batch_is_exist(&wanted);
    assert_eq!(exist.iter().filter(|found| matches!(found, Ok(true))).count(), 300);
    assert!(matches!(exist[7], Ok(false)));
    let mut targets: Vec<Vec<u8>> = values.iter().map(|value| vec![0; value.len()]).collect();
    targets.insert(7, vec![0; 8]);
    // One that is too small and one that is larger than its value.
    targets[0].pop();
    targets[1].push(99);
    let spans: Vec<_> = targets.iter().map(|target| span(target)).collect();
    let results = store.batch_get_into(&wanted, &spans);
    assert_eq!(code(&results[7]), -704);
    assert_eq!(code(&results[0]), -600);
    assert_eq!(*results[1].as_ref().unwrap(), 1001);
    assert_eq!(targets[1][1001], 99, "nothing is written beyond the value");
    same(&targets[1][..1001], &values[1], "key 1");
    for index in (2..7).chain(8..301) {
        let value = &values[if index < 7 { index } else { index - 1 }];
        assert_eq!(*results[index].as_ref().unwrap(), value.len() as u64);
        same(&targets[index], value, "a key");
    }
    // A wrong number of buffers is an answer for every key, not a failure of the process.
    let short = store.batch_put_from(&keys[..3], &spans[..2], &PLAIN());
    assert_eq!(short.iter().map(code).collect::<Vec<_>>(), [-600; 3]);
    assert_eq!(store.batch_get_into(&keys[..3], &spans[..2]).iter().map(code).collect::<Vec<_>>(), [-600; 3]);
    assert!(store.batch_put_from(&[], &[], &PLAIN()).is_empty());
    assert!(store.batch_get_into(&[], &[]).is_empty());
    assert!(store.batch_is_exist(&[]).is_empty());
}

#[test]
fn many_buffers_are_one_value_and_may_be_cut_anew() {
    let master = Master::start(&[]);
    let store = store::store(&master, 256 * MIB);
    let values: Vec<_> = (0..20).map(|index| pattern(index, 56 * 3000)).collect();
    let names: Vec<_> = (0..20).map(|index| format!("model@8@{index}@ff/0")).collect();
    let keys: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let cut = |value: &[u8], size: usize| value.chunks(size).map(span).collect::<Vec<_>>();
    let pieces: Vec<_> = values.iter().map(|value| cut(value, 3000)).collect();
    let pieces: Vec<&[(u64, u64)]> = pieces.iter().map(Vec::as_slice).collect();
    let same_node = ReplicateConfig { prefer_alloc_in_same_node: true, ..PLAIN() };
    assert!(store.batch_put_from_multi_buffers(&keys, &pieces, &same_node).iter().all(Result::is_ok));
    let targets: Vec<_> = values.iter().map(|value| vec![0_u8; value.len()]).collect();
    let pieces: Vec<_> = targets.iter().map(|target| cut(target, 7001)).collect();
    let pieces: Vec<&[(u64, u64)]> = pieces.iter().map(Vec::as_slice).collect();
    for (index, result) in store.batch_get_into_multi_buffers(&keys, &pieces).into_iter().enumerate() {
        assert_eq!(result.unwrap(), 56 * 3000);
        same(&targets[index], &values[index], "a key");
    }
    // The sum has to be the object's size.
    let (small, large) = (vec![0_u8; 10], vec![0_u8; 56 * 3000 + 1]);
    let results = store.batch_get_into_multi_buffers(&keys[..2], &[&[span(&small)], &[span(&large)]]);
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [-600, -800]);
    // A piece without bytes, and a key without pieces.
    let empty: &[(u64, u64)] = &[];
    let results =
        store.batch_put_from_multi_buffers(&[b"p", b"q"], &[&[span(&small), (4096, 0)], empty], &PLAIN());
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [-600, -600]);
    assert!(!store.is_exist(b"p").unwrap() && !store.is_exist(b"q").unwrap());
    // Only this form knows the preference.
    assert_eq!(code(&store.put(b"p", b"x", &same_node)), -600);
    let two = ReplicateConfig { replica_num: 2, ..same_node };
    assert_eq!(code(&store.batch_put_from_multi_buffers(&[b"p"], &[&[span(&small)]], &two)[0]), -600);
}

#[test]
fn ranges_of_objects() {
    let master = Master::start(&[]);
    let store = store::store(&master, 64 * MIB);
    let value = pattern(1, 10_000);
    store.put(b"k", &value, &PLAIN()).unwrap();
    let target = vec![0_u8; 300];
    let (address, _) = span(&target);
    let part =
        |at: u64, offset_bytes, length_bytes| Range { address: address + at, offset_bytes, length_bytes };
    let good = [part(0, 9_900, 100), part(100, 0, 200)];
    let bad = [part(0, 9_901, 100)];
    let results = store.batch_get_into_ranges(&[b"k", b"none", b"k"], &[&good, &good, &bad]);
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [0, -704, -600]);
    assert_eq!(*results[0].as_ref().unwrap(), 300);
    assert_eq!((&target[..100], &target[100..]), (&value[9_900..], &value[..200]));
}

#[test]
fn a_key_twice_in_one_batch_keeps_the_first() {
    let master = Master::start(&[]);
    let store = store::store(&master, 64 * MIB);
    let (first, second) = (pattern(1, 500), pattern(2, 500));
    let results = store.batch_put_from(&[b"k", b"k"], &[span(&first), span(&second)], &PLAIN());
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    same(&store.get(b"k").unwrap(), &first, "value");
}

#[test]
fn two_stores_share_a_pool() {
    let master = Master::start(&[]);
    let owner = store::store(&master, 64 * MIB);
    let reader = store::store(&master, 0);
    let value = pattern(5, 3 * MIB as usize + 1);
    reader.put(b"from the one without memory", &value, &PLAIN()).unwrap();
    owner.put(b"own", &value, &PLAIN()).unwrap();
    for key in [&b"from the one without memory"[..], b"own"] {
        same(&owner.get(key).unwrap(), &value, "owner");
        same(&reader.get(key).unwrap(), &value, "reader");
    }
    owner.close();
    assert_eq!(code(&reader.get(b"own")), -704, "what lay there is gone");
    assert_eq!(code(&reader.put(b"own", &value, &PLAIN())), -200, "and nobody lends memory any more");
}

#[test]
fn replicas_lie_on_different_segments() {
    let master = Master::start(&[]);
    let first = store::store(&master, 64 * MIB);
    let second = store::store(&master, 64 * MIB);
    let value = pattern(1, 123_456);
    let two = ReplicateConfig { replica_num: 2, ..PLAIN() };
    first.put(b"k", &value, &two).unwrap();
    assert_eq!(first.replicas(b"k").unwrap().len(), 2);
    first.close();
    same(&second.get(b"k").unwrap(), &value, "the other copy");
    let preferred = store::store(&master, 64 * MIB);
    let here = ReplicateConfig { preferred_segment: preferred.hostname().into(), ..PLAIN() };
    preferred.put(b"here", &value, &here).unwrap();
    let replicas = preferred.replicas(b"here").unwrap();
    let mooncake::store::Placement::Memory(buffer) = &replicas[0].placement else { panic!("{replicas:?}") };
    assert_eq!(&*buffer.endpoint, preferred.engine().name());
}

#[test]
fn removal_by_pattern_and_of_all() {
    let master = Master::start(&["--default_kv_lease_ttl=1"]);
    let store = store::store(&master, 64 * MIB);
    for index in 0..20 {
        store.put(format!("r{index}").as_bytes(), b"value", &PLAIN()).unwrap();
    }
    let found = store.replicas_by_regex("^r1\\d$").unwrap();
    assert_eq!(found.len(), 10);
    assert_eq!(store.remove_by_regex("^r1\\d$", true).unwrap(), 10);
    assert_eq!(code(&store.remove_by_regex("(", true)), -600);
    let results = store.batch_remove(&[b"r1", b"none"], true);
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [0, -704]);
    assert_eq!(store.remove_all(true).unwrap(), 9);
}

#[test]
fn thirty_gigabytes_that_are_no_multiple_of_a_page() {
    let master = Master::start(&[]);
    let store = store::store(&master, 30_000_000_000);
    assert_eq!(master.metric("master_total_capacity_bytes"), 30_000_000_000);
    let value = pattern(3, 1000);
    store.put(b"k", &value, &PLAIN()).unwrap();
    same(&store.get(b"k").unwrap(), &value, "value");
}

#[test]
fn close_is_quick_and_final() {
    let master = Master::start(&[]);
    let store = store::store(&master, 1024 * MIB);
    store.put(b"k", b"value", &PLAIN()).unwrap();
    let start = Instant::now();
    store.close();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    store.close();
    assert_eq!(master.page("/get_all_segments"), "", "the segment was taken back");
    assert_eq!(code(&store.put(b"k", b"value", &PLAIN())), -600);
    assert_eq!(code(&store.get(b"k")), -600);
    assert_eq!(code(&store.is_exist(b"k")), -600);
    assert_eq!(code(&store.register_buffer(4096, 4096)), -600);
    assert_eq!(store.health(), Health::Closed);
    let again = store::store(&master, 64 * MIB);
    assert_eq!(code(&again.get(b"k")), -704, "a new store is a new one");
    again.put(b"k", b"value", &PLAIN()).unwrap();
}

#[test]
fn arguments_of_setup_are_checked() {
    let master = Master::start(&[]);
    let refuse = |change: fn(&mut mooncake::store::StoreOptions)| {
        let mut options = options(&master.address, 0);
        change(&mut options);
        let failure = Store::setup(options).err().expect("it is refused");
        assert_eq!(failure.code().0, -600, "{failure}");
        failure.to_string()
    };
    assert!(refuse(|options| options.protocol = "rdma".into()).contains("rdma"));
    assert!(refuse(|options| options.global_segment_size_bytes = 1000).contains("1000"));
    assert!(refuse(|options| options.local_hostname = "a b".into()).contains("a b"));
    assert!(refuse(|options| options.master_server_address = "etcd://h:1".into()).contains("etcd"));
}

#[test]
fn without_a_local_buffer_only_named_memory_moves() {
    let master = Master::start(&[]);
    let mut options = options(&master.address, 64 * MIB);
    options.local_buffer_size_bytes = 0;
    let store = Store::setup(options).unwrap();
    assert_eq!(code(&store.put(b"k", b"value", &PLAIN())), -600);
    assert!(!store.is_exist(b"k").unwrap());
    let value = pattern(1, 5000);
    let (address, length) = span(&value);
    store.put_from(b"k", address, length, &PLAIN()).unwrap();
    assert_eq!(code(&store.get(b"k")), -600);
    let target = vec![0_u8; 5000];
    let (address, length) = span(&target);
    assert_eq!(store.get_into(b"k", address, length).unwrap(), 5000);
    same(&target, &value, "value");
}

#[test]
fn eight_threads_at_once() {
    let master = Master::start(&[]);
    let store = store::store(&master, 1024 * MIB);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..50_u64 {
                    let key = format!("{thread}/{round}");
                    let value = pattern(thread * 1000 + round, 40_000 + round as usize);
                    store.put(key.as_bytes(), &value, &PLAIN()).unwrap();
                    same(&store.get(key.as_bytes()).unwrap(), &value, &key);
                    store.remove(key.as_bytes(), true).unwrap();
                }
            });
        }
    });
    assert_eq!(master.metric("master_key_count"), 0);
}

#[test]
fn ipv6_works_like_ipv4() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return mooncake_test_support::skip("this host has no IPv6");
    }
    let master = Master::start_on("::1", 0, &[]);
    let make = |segment| {
        let mut options = options(&master.address, segment);
        options.local_hostname = "::1".into();
        Store::setup(options).unwrap()
    };
    let (owner, reader) = (make(64 * MIB), make(0));
    assert!(owner.hostname().starts_with("[::1]:"));
    let value = pattern(9, 70_000);
    reader.put(b"k", &value, &PLAIN()).unwrap();
    same(&owner.get(b"k").unwrap(), &value, "owner");
    same(&reader.get(b"k").unwrap(), &value, "reader");
}

#[test]
fn memory_that_is_to_be_had_at_once_has_to_be_there() {
    let master = Master::start(&[]);
    let mut all = options(&master.address, 64 * MIB);
    all.config = store::config(&[("MOONCAKE_TRANSFER_STORE_PREFAULT", "1")]);
    let store = Store::setup(all.clone()).unwrap();
    store.put(b"k", b"value", &PLAIN()).unwrap();
    assert_eq!(store.get(b"k").unwrap(), b"value");
    all.global_segment_size_bytes = 1 << 45;
    let failure = Store::setup(all).err().expect("no host has as much");
    assert!(failure.to_string().contains("at once"), "{failure}");
    // Without the wish it is a warning: nothing is taken before it is used.
    let store = store::store(&master, 1 << 40);
    store.put(b"k2", b"value", &PLAIN()).unwrap();
}

#[test]
fn a_metadata_service_in_place_of_peer_to_peer() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let flag = format!("--http_metadata_server_port={port}");
    let master = Master::start(&[
        "--enable_http_metadata_server=true",
        "--http_metadata_server_host=127.0.0.1",
        &flag,
    ]);
    let make = |segment| {
        let mut options = options(&master.address, segment);
        options.metadata_server = format!("http://127.0.0.1:{port}/metadata");
        Store::setup(options).unwrap()
    };
    let (owner, reader) = (make(64 * MIB), make(0));
    let value = pattern(9, 70_000);
    reader.put(b"k", &value, &PLAIN()).unwrap();
    same(&owner.get(b"k").unwrap(), &value, "owner");
    same(&reader.get(b"k").unwrap(), &value, "reader");
    let mooncake::store::Placement::Memory(buffer) = reader.replicas(b"k").unwrap().remove(0).placement
    else {
        panic!("it lies in memory")
    };
    assert_eq!(&*buffer.endpoint, owner.hostname(), "with a service the name is where peers look it up");
}

//! What a pool survives: its owners, readers and master killed, frozen and full. Every success is byte-checked.
//!
//! Tried by taking mechanisms out of `store`: without the renewal of leases the long read fails; without the look at
//! the lease after a read, the read whose lease ran out succeeds; without the next replica the dead owner's key is not
//! read; without mounting again neither a frozen owner nor a restarted master gets the segment back. Without giving
//! space back, `store_devices` finds it taken after a refused copy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;
mod store;

use std::time::{Duration, Instant};

use mooncake::store::{ReplicateConfig, Store};
use mooncake_test_support::wait_until;
use promise::{Peer, software_npu};
use store::{LIMIT, MIB, Master, code, config, eventually, options, pattern, same, signal, span};

const PLAIN: fn() -> ReplicateConfig = ReplicateConfig::default;

/// Another process with a store that lends so many bytes.
fn owner(master: &Master, segment: u64, variables: &[(&str, &str)]) -> Peer {
    let mut peer = Peer::start_with(&software_npu(1), None, variables);
    peer.must(&format!("store setup 127.0.0.1 {segment} tcp own {}", master.address));
    peer
}

#[test]
fn an_owner_is_killed() {
    let master = Master::start(&["--client_ttl=2"]);
    let mut first = owner(&master, 64 * MIB, &[]);
    let reader = store::store(&master, 0);
    let values: Vec<_> = (0..8).map(|index| pattern(index, 100_000)).collect();
    for (index, value) in values.iter().enumerate() {
        reader.put(format!("k{index}").as_bytes(), value, &PLAIN()).unwrap();
    }
    let mut target = vec![0_u8; 100_000];
    let (address, length) = span(&target);
    assert_eq!(reader.get_into(b"k0", address, length).unwrap(), length);
    same(&target, &values[0], "before");
    let second = owner(&master, 64 * MIB, &[]);
    let two = ReplicateConfig { replica_num: 2, ..PLAIN() };
    reader.put(b"twice", &values[3], &two).unwrap();
    assert_eq!(reader.replicas(b"twice").unwrap().len(), 2);
    first.child.kill();
    // A reader is told, soon, and never gets wrong bytes.
    let start = Instant::now();
    let outcome = reader.get_into(b"k1", address, length);
    assert!([-800, -704].contains(&code(&outcome)), "{outcome:?}");
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    // What has another copy is read from it.
    target.fill(0);
    assert_eq!(reader.get_into(b"twice", address, length).unwrap(), length);
    same(&target, &values[3], "the other copy");
    // A put that is sent to the dead owner goes to the one that lives.
    for (index, value) in values.iter().enumerate() {
        let key = format!("new{index}");
        eventually(&key, || reader.put(key.as_bytes(), value, &PLAIN()).is_ok());
        same(&reader.get(key.as_bytes()).unwrap(), value, &key);
    }
    eventually("the master forgets it", || code(&reader.get_size(b"k1")) == -704);
    drop(second);
}

#[test]
fn a_reader_is_killed_while_it_reads() {
    let master = Master::start(&[]);
    let store = store::store(&master, 512 * MIB);
    let value = pattern(1, 64 * MIB as usize);
    store.put(b"k/0", &value, &PLAIN()).unwrap();
    for _ in 0..3 {
        let mut reader = owner(&master, 0, &[]);
        let place: u64 = reader.must(&format!("host {}", 64 * MIB)).parse().unwrap();
        let pending = reader.begin(&format!("store get k 1 {place} {} 64", 64 * MIB));
        // Anywhere in its life, also before and after the read.
        let _ended = wait_until(Duration::from_millis(3), || reader.has_finished(pending));
        reader.child.kill();
    }
    same(&store.get(b"k/0").unwrap(), &value, "value");
    store.put(b"other", &value, &PLAIN()).unwrap();
    same(&store.get(b"other").unwrap(), &value, "other");
    let start = Instant::now();
    store.close();
    assert!(start.elapsed() < Duration::from_secs(5), "a dead reader holds nothing back");
}

fn restart(journal: Option<&std::path::Path>) -> (Master, std::sync::Arc<Store>, Vec<Vec<u8>>) {
    let flags: Vec<String> =
        journal.iter().map(|directory| format!("--journal_dir={}", directory.display())).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let master = Master::start(&flags);
    let port = master.port();
    let store = store::store(&master, 64 * MIB);
    let values: Vec<_> = (0..20).map(|index| pattern(index, 50_000 + index as usize)).collect();
    for (index, value) in values.iter().enumerate() {
        store.put(format!("k{index}").as_bytes(), value, &PLAIN()).unwrap();
    }
    // kill -9: no handler runs.
    drop(master);
    let start = Instant::now();
    assert_eq!(code(&store.get(b"k0")), -900, "nobody is there");
    assert_eq!(store.health().code(), 2);
    assert!(start.elapsed() < LIMIT);
    let master = Master::start_on("127.0.0.1", port, &flags);
    eventually("the segment is back", || !master.page("/get_all_segments").is_empty());
    (master, store, values)
}

#[test]
fn the_master_is_killed_and_the_cache_stays_warm() {
    let directory = tempfile::tempdir().unwrap();
    let (_master, store, values) = restart(Some(directory.path()));
    for (index, value) in values.iter().enumerate() {
        let key = format!("k{index}");
        same(&store.get(key.as_bytes()).unwrap(), value, &key);
    }
    // What comes now does not touch what was there.
    store.put(b"new", &values[0], &PLAIN()).unwrap();
    same(&store.get(b"new").unwrap(), &values[0], "new");
    same(&store.get(b"k7").unwrap(), &values[7], "k7");
}

#[test]
fn without_a_journal_the_pool_comes_back_empty() {
    let (_master, store, values) = restart(None);
    assert!(!store.is_exist(b"k0").unwrap());
    store.put(b"k0", &values[1], &PLAIN()).unwrap();
    same(&store.get(b"k0").unwrap(), &values[1], "the new value");
}

#[test]
fn a_frozen_owner_is_given_up_and_comes_back() {
    let master = Master::start(&["--client_ttl=2"]);
    let mut peer = owner(&master, 64 * MIB, &[]);
    let reader = store::store(&master, 0);
    reader.put(b"k", &pattern(1, 10_000), &PLAIN()).unwrap();
    signal(peer.id(), "-STOP");
    eventually("its segment is taken out", || master.page("/get_all_segments").is_empty());
    assert_eq!(code(&reader.get(b"k")), -704);
    assert_eq!(code(&reader.put(b"k2", &pattern(2, 10), &PLAIN())), -200);
    signal(peer.id(), "-CONT");
    eventually("it comes back", || !master.page("/get_all_segments").is_empty());
    let value = pattern(3, 10_000);
    reader.put(b"k3", &value, &PLAIN()).unwrap();
    same(&reader.get(b"k3").unwrap(), &value, "k3");
    assert_eq!(peer.must("store health"), "0");
}

#[test]
fn a_full_pool_evicts_first_and_refuses_only_what_cannot_be() {
    let master = Master::start(&["--default_kv_lease_ttl=100"]);
    let store = store::store(&master, 16 * MIB);
    // Four times what fits: each put succeeds, since others go. While the older ones are leased, that may be the
    // newest; a read gives its bytes or says that it is gone.
    let mut read = 0;
    for index in 0..64_u64 {
        let value = pattern(index, MIB as usize);
        let key = format!("k{index}");
        assert!(
            wait_until(LIMIT, || store.put(key.as_bytes(), &value, &PLAIN()).is_ok()),
            "{key} is not taken"
        );
        match store.get(key.as_bytes()) {
            Ok(got) => {
                same(&got, &value, &key);
                read += 1;
            }
            Err(failure) => assert!([-704, -707].contains(&failure.code().0), "{failure}"),
        }
    }
    assert!(read > 16, "{read} were read");
    // More than the pool is.
    assert_eq!(code(&store.put(b"large", &pattern(1, 17 * MIB as usize), &PLAIN())), -200);
    // Only pinned objects: nothing can go.
    store.remove_all(true).unwrap();
    let pinned = ReplicateConfig { with_hard_pin: true, ..PLAIN() };
    for index in 0..16_u64 {
        store.put(format!("p{index}").as_bytes(), &pattern(index, MIB as usize), &pinned).unwrap();
    }
    let results = store.batch_put_from(
        &[b"one more", b"p3"],
        &[span(&pattern(1, MIB as usize)), span(&pattern(2, 10))],
        &PLAIN(),
    );
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [-200, 0], "the other key is not spoiled");
    for index in 0..16_u64 {
        let (key, value) = (format!("p{index}"), pattern(index, MIB as usize));
        // On a busy machine a read may take longer than its short lease.
        eventually(&key, || store.get(key.as_bytes()).is_ok_and(|got| got == value));
    }
}

#[test]
fn a_key_that_was_seen_outlives_pressure_for_its_lease() {
    let master = Master::start(&["--default_kv_lease_ttl=60000"]);
    let store = store::store(&master, 16 * MIB);
    let value = pattern(1, MIB as usize);
    store.put(b"seen", &value, &PLAIN()).unwrap();
    assert!(store.is_exist(b"seen").unwrap());
    for index in 0..64_u64 {
        let key = format!("k{index}");
        store.put(key.as_bytes(), &pattern(index, MIB as usize), &PLAIN()).unwrap();
    }
    same(&store.get(b"seen").unwrap(), &value, "what was seen");
}

#[test]
fn the_heartbeat_is_not_starved_by_data() {
    let master = Master::start(&["--client_ttl=3"]);
    let store = store::store(&master, 512 * MIB);
    let value = pattern(1, 8 * MIB as usize);
    let end = Instant::now() + Duration::from_secs(7);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (store, value) = (&store, &value);
            scope.spawn(move || {
                let mut round = 0_u64;
                while Instant::now() < end {
                    let key = format!("{thread}/{round}");
                    store.put(key.as_bytes(), value, &PLAIN()).unwrap();
                    same(&store.get(key.as_bytes()).unwrap(), value, &key);
                    store.remove(key.as_bytes(), true).unwrap();
                    round += 1;
                }
            });
        }
    });
    assert_eq!(master.metric("master_active_clients"), 1);
}

#[test]
fn the_heartbeat_is_not_starved_by_a_registration() {
    let master = Master::start(&["--client_ttl=3"]);
    let npu = software_npu(1);
    let mut peer = Peer::start(&npu, Some(0));
    peer.must(&format!("store setup 127.0.0.1 {} ascend own {}", 64 * MIB, master.address));
    let buffer: u64 = peer.must(&format!("alloc 0 {}", 4 * MIB)).parse().unwrap();
    let reader = store::store(&master, 0);
    reader.put(b"k", &pattern(1, 10_000), &PLAIN()).unwrap();
    // The vendor takes its time, twice what the master grants.
    peer.fault("set HcclRegisterGlobalMem=delay:6000");
    let pending = peer.begin(&format!("store register {buffer} {}", 4 * MIB));
    peer.finish(pending).expect("the registration succeeds in the end");
    assert!(peer.count("HcclRegisterGlobalMem") > 0, "the delay was met");
    same(&reader.get(b"k").unwrap(), &pattern(1, 10_000), "the segment was never given up");
}

/// A reader by TCP of an owner that can be frozen.
fn slow_read(lease: &str) -> (Master, Peer, std::sync::Arc<Store>, Vec<u8>) {
    let master = Master::start(&["--client_ttl=60", &format!("--default_kv_lease_ttl={lease}")]);
    let peer = owner(&master, 256 * MIB, &[]);
    let mut options = options(&master.address, 0);
    options.config = config(&[("MOONCAKE_TRANSFER_SAME_HOST", "0"), ("MC_RPC_TIMEOUT_MS", "1000")]);
    let store = Store::setup(options).unwrap();
    let value = pattern(1, 32 * MIB as usize);
    store.put(b"k", &value, &PLAIN()).unwrap();
    (master, peer, store, value)
}

#[test]
fn a_lease_is_taken_again_while_a_long_read_runs() {
    let (master, peer, store, value) = slow_read("2000");
    signal(peer.id(), "-STOP");
    let looked_up = master.metric("master_batch_get_replica_list_requests_total");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| store.get(b"k"));
        // The lease goes by twice before the owner goes on.
        let begun = Instant::now();
        eventually("the lease is taken again and again", || {
            begun.elapsed() > Duration::from_secs(5)
                && master.metric("master_batch_get_replica_list_requests_total") >= looked_up + 4
        });
        signal(peer.id(), "-CONT");
        same(&reading.join().unwrap().unwrap(), &value, "the long read");
    });
}

#[test]
fn a_read_whose_lease_ran_out_is_no_success() {
    let (master, peer, store, _value) = slow_read("1500");
    signal(peer.id(), "-STOP");
    let looked_up = master.metric("master_batch_get_replica_list_requests_total");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| store.get(b"k"));
        eventually("the read has begun", || {
            master.metric("master_batch_get_replica_list_requests_total") > looked_up
        });
        master.signal("-STOP");
        // Nobody renews the lease now; it ends.
        let over = Instant::now() + Duration::from_millis(3500);
        assert!(wait_until(LIMIT, || Instant::now() > over));
        signal(peer.id(), "-CONT");
        // It is read again, for which the master has to be asked, who does not answer.
        let outcome = code(&reading.join().unwrap());
        assert!([-707, -901].contains(&outcome), "{outcome}");
    });
    master.signal("-CONT");
}

/// Memory of files that this process has mapped and touched, in bytes.
fn shared_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn memory_of_an_owner_that_died_is_not_kept_by_its_readers() {
    let master = Master::start(&["--client_ttl=2"]);
    let mut peer = owner(&master, 256 * MIB, &[]);
    let reader = store::store(&master, 0);
    let value = pattern(1, 64 * MIB as usize);
    reader.put(b"k", &value, &PLAIN()).unwrap();
    same(&reader.get(b"k").unwrap(), &value, "value");
    if shared_bytes() < 64 * MIB {
        return mooncake_test_support::skip("memory of other processes is not mapped here");
    }
    peer.child.kill();
    eventually("the reader lets go of it", || shared_bytes() < MIB);
    eventually("the key is gone", || code(&reader.get(b"k")) == -704);
}

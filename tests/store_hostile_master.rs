//! A master that is not there, does not answer, or answers wrongly: an error in time, never a hang, never a success.
//!
//! Tried by taking out the look at a frame's sequence number: then the answer to another call is a success.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

#[path = "store/fake_master.rs"]
mod fake_master;
mod store;

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fake_master::{FakeMaster, LIES, Lie};
use mooncake::store::{ReplicateConfig, Store};
use store::{MIB, Master, code, config, options, pattern, same, span};

/// Longest time that any call of these tests may take; their limits are a tenth of it.
const BOUND: Duration = Duration::from_secs(20);

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    assert!(took < BOUND, "{what} took {took:?}");
    result
}

#[test]
fn a_corrupted_reply_is_an_error() {
    for lie in LIES {
        let master = FakeMaster::start(lie);
        let mut options = options(&master.address, 16 * MIB);
        options.config = config(&[("MC_RPC_TIMEOUT_MS", "700"), ("MC_HANDSHAKE_CONNECT_TIMEOUT", "2")]);
        let store = Store::setup(options).unwrap();
        let what = format!("{lie:?}");
        let failed = |number: i32| [-900, -901, -800, -600].contains(&number);
        let got = timed(&what, || code(&store.get(b"key")));
        assert!(failed(got), "get, {what}: {got}");
        let size = timed(&what, || code(&store.get_size(b"key")));
        // A place that nobody has is known only once it is looked at.
        assert!(failed(size) || lie == Lie::Nowhere, "size, {what}: {size}");
        let written = timed(&what, || code(&store.put(b"key", b"12345", &ReplicateConfig::default())));
        assert!(failed(written), "put, {what}: {written}");
        let exist = timed(&what, || code(&store.is_exist(b"key")));
        assert!(failed(exist) || lie == Lie::Nowhere, "exist, {what}: {exist}");
        let text = store.get(b"key").unwrap_err().to_string();
        assert!(text.len() > 30 && text.contains("failed"), "{what}: {text}");
        let connections = master.connections.load(Ordering::Relaxed);
        assert!(connections < 40, "{what}: {connections} connections");
        timed(&what, || store.close());
    }
}

#[test]
fn a_read_that_outlasts_its_lease_is_done_again_a_few_times() {
    for (over, expected, finds) in [(0, 5, 1), (1, 5, 2), (2, 5, 3), (3, -707, 3)] {
        let master = FakeMaster::start(Lie::LeaseIsOver(over));
        let store = Store::setup(options(&master.address, 16 * MIB)).unwrap();
        let mut target = [0xa5_u8; 5];
        let got = store.get_into(b"key", span(&target).0, 5);
        target = std::hint::black_box(target);
        assert_eq!(
            got.as_ref()
                .map_or_else(|failure| failure.code().0.into(), |bytes| i64::try_from(*bytes).unwrap()),
            expected
        );
        assert_eq!(master.finds.load(Ordering::Relaxed), finds, "after {over} leases that were over");
        assert!(got.is_err() || target == [0; 5], "the segment's bytes, which nobody wrote");
        store.close();
    }
}

#[test]
fn a_put_whose_owner_leaves_the_pool_goes_elsewhere_a_few_times() {
    for (leaves, expected) in [(0, 0), (1, 0), (3, 0), (usize::MAX, -704)] {
        let master = FakeMaster::start(Lie::OwnerLeaves(leaves));
        let store = Store::setup(options(&master.address, 16 * MIB)).unwrap();
        assert_eq!(code(&store.put(b"key", b"12345", &ReplicateConfig::default())), expected);
        let ends = master.ends.load(Ordering::Relaxed);
        assert!(ends == leaves.saturating_add(1) || (expected != 0 && (4..64).contains(&ends)), "{ends}");
        store.close();
    }
}

#[test]
fn a_put_that_may_have_ended_before_does_not_bring_back_a_key_that_was_removed() {
    let master = FakeMaster::start(Lie::EndIsLost);
    let store = Store::setup(options(&master.address, 16 * MIB)).unwrap();
    assert_eq!(code(&store.put(b"key", b"12345", &ReplicateConfig::default())), -704);
    assert_eq!(master.ends.load(Ordering::Relaxed), 2, "the one without an answer, and its repetition");
    assert_eq!(code(&store.put(b"key", b"12345", &ReplicateConfig::default())), 0);
    store.close();
}

#[test]
fn a_master_that_is_not_there_is_an_error_in_time() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut options = options(&format!("127.0.0.1:{port}"), 0);
    options.config = config(&[("MOONCAKE_TRANSFER_STORE_SETUP_TIMEOUT_MS", "1500")]);
    let failure = timed("setup", || Store::setup(options)).err().expect("nobody is there");
    assert_eq!(failure.code().0, -600);
    assert!(failure.to_string().contains(&port.to_string()), "{failure}");
}

#[test]
fn a_master_that_does_not_answer_is_an_error_in_time() {
    // The kernel accepts for it; nobody reads.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options(&listener.local_addr().unwrap().to_string(), 0);
    options.config =
        config(&[("MOONCAKE_TRANSFER_STORE_SETUP_TIMEOUT_MS", "1500"), ("MC_RPC_TIMEOUT_MS", "500")]);
    let failure = timed("setup", || Store::setup(options)).err().expect("nobody answers");
    assert_eq!(failure.code().0, -600);
}

#[test]
fn something_else_at_the_address_is_an_error_at_once() {
    let web = std::thread::spawn({
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        move || {
            use std::io::Write;
            let mut options = options(&address, 0);
            options.config = config(&[("MOONCAKE_TRANSFER_STORE_SETUP_TIMEOUT_MS", "15000")]);
            let setup = std::thread::spawn(move || Store::setup(options).err());
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            setup.join().unwrap()
        }
    });
    let failure = timed("setup", || web.join().unwrap()).expect("it is no master");
    assert!(failure.to_string().contains("no master"), "{failure}");
}

#[test]
fn a_frozen_master_costs_its_time_limit_and_no_more() {
    let master = Master::start(&[]);
    let mut options = options(&master.address, 64 * MIB);
    options.config = config(&[("MC_RPC_TIMEOUT_MS", "600")]);
    let store = Store::setup(options).unwrap();
    let value = pattern(1, 5000);
    store.put(b"k", &value, &ReplicateConfig::default()).unwrap();
    master.signal("-STOP");
    assert_eq!(timed("get", || code(&store.get(b"k"))), -901);
    assert_eq!(timed("exist", || code(&store.is_exist(b"k"))), -901);
    assert_eq!(timed("health", || store.health()).code(), 2);
    master.signal("-CONT");
    store::eventually("it answers again", || store.health().code() == 0);
    same(&store.get(b"k").unwrap(), &value, "value");
    master.signal("-STOP");
    timed("close", || store.close());
    master.signal("-CONT");
}

#[test]
fn the_next_master_of_the_list_is_tried() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (first, second) = (Master::start(&[]), Master::start(&[]));
    let list = format!("{gone}, {};{}", first.address, second.address);
    let store = Store::setup(options(&list, 64 * MIB)).unwrap();
    let value = pattern(1, 5000);
    store.put(b"k", &value, &ReplicateConfig::default()).unwrap();
    drop(first);
    // The segment comes to the second one by the heartbeat.
    store::eventually("a put at the second", || {
        store.put(b"k2", &value, &ReplicateConfig::default()).is_ok()
    });
    same(&store.get(b"k2").unwrap(), &value, "value");
    assert!(second.page("/get_all_keys").contains("k2"));
}

#[test]
fn a_master_that_comes_later_is_waited_for() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let setup = std::thread::spawn(move || {
        let mut options = options(&address, 64 * MIB);
        options.config = config(&[("MOONCAKE_TRANSFER_STORE_SETUP_TIMEOUT_MS", "20000")]);
        Store::setup(options)
    });
    let _master = Master::start_on("127.0.0.1", port, &[]);
    let store = timed("setup", || setup.join().unwrap()).unwrap();
    let value = pattern(1, 10);
    let (address, length) = span(&value);
    store.put_from(b"k", address, length, &ReplicateConfig::default()).unwrap();
}

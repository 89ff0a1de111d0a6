//! Promises 1 and 2 at the level of the store: a call that has returned writes no memory any more, and memory that a
//! call uses is not let go. The owner is frozen in the middle, and reached by sockets, so that the call has to wait.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;
mod store;

use std::sync::Arc;

use mooncake::error::Code;
use mooncake::store::{ReplicateConfig, Store};
use promise::{Peer, software_npu};
use store::{MIB, Master, code, config, eventually, options, pattern, same, signal, span};

const VALUE_BYTES: usize = 32 * MIB as usize;

/// A value in the memory of another process, and a reader that has only sockets to it.
fn apart() -> (Master, Peer, Arc<Store>, Vec<u8>) {
    let master = Master::start(&["--client_ttl=60", "--default_kv_lease_ttl=60000"]);
    let mut peer = Peer::start(&software_npu(1), None);
    peer.must(&format!("store setup 127.0.0.1 {} tcp own {}", 256 * MIB, master.address));
    let mut options = options(&master.address, 0);
    options.config = config(&[("MOONCAKE_TRANSFER_SAME_HOST", "0"), ("MC_TRANSFER_TIMEOUT", "5")]);
    let store = Store::setup(options).unwrap();
    let value = pattern(1, VALUE_BYTES);
    store.put(b"k", &value, &ReplicateConfig::default()).unwrap();
    (master, peer, store, value)
}

#[test]
fn a_get_that_has_given_up_writes_nothing_any_more() {
    let (_master, peer, store, value) = apart();
    let target = vec![0xee_u8; VALUE_BYTES];
    let (address, length) = span(&target);
    signal(peer.id(), "-STOP");
    let failure = store.get_into(b"k", address, length).unwrap_err();
    assert_eq!(failure.code().0, -800, "{failure}");
    let quiet = failure.cause().is_some_and(|cause| cause.code() != Code::StillRunning);
    assert!(quiet, "{failure}");
    let left = std::hint::black_box(target.clone());
    signal(peer.id(), "-CONT");
    // The owner serves again: what was on its way to the first call would have come before.
    let mut other = vec![0_u8; VALUE_BYTES];
    let (place, _) = span(&other);
    eventually("another get", || store.get_into(b"k", place, length).is_ok());
    same(&other, &value, "the second get");
    same(std::hint::black_box(&target), &left, "the memory of the first get");
    other.clear();
}

#[test]
fn memory_in_flight_is_not_let_go() {
    let (_master, peer, store, value) = apart();
    let target = vec![0_u8; VALUE_BYTES];
    let (address, length) = span(&target);
    store.register_buffer(address, length).unwrap();
    assert_eq!(code(&store.register_buffer(address, length)), -600, "it is known already");
    // A job is handed to TCP after the memory of both its ends was pinned.
    let jobs = || {
        let text = store.engine().metrics_text();
        let line = text.lines().find(|line| line.starts_with("mooncake_transfer_tcp_jobs_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let before = jobs();
    signal(peer.id(), "-STOP");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| store.get_into(b"k", address, length));
        eventually("the transfer is on its way", || jobs() > before);
        let refused = store.unregister_buffer(address).err();
        let cause = refused.and_then(|failure| failure.cause().map(mooncake::error::Error::code));
        assert_eq!(cause, Some(Code::Busy));
        signal(peer.id(), "-CONT");
        assert_eq!(reading.join().unwrap().unwrap(), length);
    });
    same(&target, &value, "the value");
    store.unregister_buffer(address).unwrap();
    assert_eq!(code(&store.unregister_buffer(address)), -600, "it is not known any more");
}

//! Promise 15: a waiting call uses no CPU.
//!
//! Tried by taking the mechanism out: with the park in `Batch::wait` replaced by a poll with `yield_now`, the wait
//! uses two seconds of processor time instead of a few milliseconds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use promise::{PAGE, Peer, moving, software_npu};

/// Processor time that the whole process may use while one call waits for two seconds, in microseconds: the limit
/// covers the waiter, the channel that watches the device, and the software NPU itself.
const LIMIT_US: u64 = 50_000;

#[test]
fn a_wait_of_two_seconds() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    let words = moving("read", near, &name, far, PAGE, 4096, 0);
    a.must(&format!("transfer {words}"));
    a.fault("set transfer=delay:2000@1");
    let earlier = a.count("HcclBatchGet");
    let batch = a.must(&format!("submit {words}"));
    a.wait_for_calls("HcclBatchGet", earlier);
    let answer = a.must(&format!("wait {batch} 20000"));
    let (elapsed_us, used_us) = answer.split_once(' ').unwrap();
    let (elapsed_us, used_us): (u64, u64) = (elapsed_us.parse().unwrap(), used_us.parse().unwrap());
    assert!(elapsed_us > 1_500_000, "it did not have to wait: {elapsed_us} us");
    assert!(used_us < LIMIT_US, "{used_us} us of processor time in {elapsed_us} us of waiting");
    assert!(a.holds(near, PAGE, 2));
    a.quit();
    b.quit();
}

#[test]
fn a_wait_for_a_peer_that_does_not_answer() {
    let npu = software_npu(2).variable("ASCEND_CONNECT_TIMEOUT", "2000");
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    a.must(&format!("open {name}"));
    b.signal("STOP");
    let batch = a.must(&format!("submit {}", moving("read", near, &name, far, PAGE, 4096, 0)));
    let before: u64 = a.must("processor").parse().unwrap();
    let failure = a.must_fail(&format!("wait {batch} 20000"));
    let used = a.must("processor").parse::<u64>().unwrap() - before;
    assert_eq!(failure.text("peer"), name, "{failure:?}");
    assert!(used < LIMIT_US, "{used} us of processor time while connecting");
    b.signal("CONT");
    a.quit();
    b.quit();
}

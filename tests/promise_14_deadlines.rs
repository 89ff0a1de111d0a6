//! Promise 14: no constant timeout, one unit everywhere, no call without a deadline.
//!
//! Every public call meets a peer that is frozen, and returns. Where the caller or a variable sets the limit, the call
//! takes as long as it says: two limits, two durations. Tried by taking the mechanism out: with a constant in the place
//! of the timeout in `Engine::wait`, `Shared::time_limit` or `metadata_deadline`, or of `handshake_reply_timeout`, the
//! case of that call fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use std::time::{Duration, Instant};

use promise::{PAGE, Peer, moving, software_npu};

/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(1500);

/// A command that fails, and how long it took.
fn failing(peer: &mut Peer, command: &str) -> (promise::Failure, Duration) {
    let start = Instant::now();
    let failure = peer.must_fail(command);
    (failure, start.elapsed())
}

#[track_caller]
fn about(command: &str, took: Duration, limit_ms: u64) {
    let limit = Duration::from_millis(limit_ms);
    assert!(
        took + Duration::from_millis(20) >= limit,
        "{command}: {took:?} is shorter than its limit {limit:?}"
    );
    assert!(took < limit + SLACK, "{command}: {took:?} for a limit of {limit:?}");
}

#[test]
fn the_limit_of_a_transfer_and_of_a_wait_is_the_callers() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    a.must(&format!("transfer {}", moving("read", near, &name, far, 4096, 4096, 0)));
    a.fault("set transfer=delay:30000");
    for limit_ms in [100, 900] {
        let command = format!("transfer {}", moving("read", near, &name, far, 4096, 4096, limit_ms));
        let (failure, took) = failing(&mut a, &command);
        assert_eq!(failure.code(), "timeout", "{failure:?}");
        about(&command, took, limit_ms);
    }
    // Submitted with a limit: the task is over about then, although nobody waits.
    let batch = a.must(&format!("submit {}", moving("read", near, &name, far, 4096, 4096, 1200)));
    for limit_ms in [50, 400] {
        let (failure, took) = failing(&mut a, &format!("wait {batch} {limit_ms}"));
        assert_eq!(failure.code(), "timeout", "{failure:?}");
        about("wait", took, limit_ms);
    }
    let (failure, took) = failing(&mut a, &format!("wait {batch} 30000"));
    assert_eq!(failure.code(), "timeout", "{failure:?}");
    assert!(
        took < Duration::from_millis(1200) + SLACK,
        "the submission's limit does not end its task: {took:?}"
    );
    a.must(&format!("free {batch}"));
    a.fault("clear");
    a.quit();
    b.quit();
}

#[test]
fn the_limit_of_talking_to_a_peer_is_a_variable() {
    for limit_ms in [300, 1500] {
        let text = limit_ms.to_string();
        let npu = software_npu(2)
            .variable("MOONCAKE_TRANSFER_HANDSHAKE_REPLY_MS", &text)
            .variable("MC_HANDSHAKE_CONNECT_TIMEOUT", "2")
            .variable("ASCEND_CONNECT_TIMEOUT", &text);
        let (mut a, b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
        let name = b.name();
        a.buffer(0, PAGE, 1);
        b.signal("STOP");
        for command in [format!("open {name}"), format!("probe {name}")] {
            let (failure, took) = failing(&mut a, &command);
            assert_eq!(failure.code(), "timeout", "{command}: {failure:?}");
            about(&command, took, limit_ms);
        }
        b.signal("CONT");
    }
}

#[test]
fn nothing_waits_for_a_frozen_peer_for_ever() {
    let npu = software_npu(2)
        .variable("MOONCAKE_TRANSFER_HANDSHAKE_REPLY_MS", "400")
        .variable("MC_HANDSHAKE_CONNECT_TIMEOUT", "1")
        .variable("ASCEND_CONNECT_TIMEOUT", "500")
        .variable("MOONCAKE_TRANSFER_DRAIN_GRACE_MS", "300");
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    let segment = a.must(&format!("open {name}"));
    a.must(&format!("transfer {}", moving("read", near, &name, far, 4096, 4096, 0)));
    b.signal("STOP");
    let fresh = a.must(&format!("alloc 0 {PAGE}"));
    let words = moving("read", near, &name, far, PAGE, 65536, 0);
    for command in [
        // A note and a range that the cached descriptor does not have both need the peer.
        format!("note {segment} text"),
        format!("transfer {}", moving("read", near, &name, far + 64 * PAGE, 4096, 4096, 0)),
        format!("transfer {words}"),
        format!("register {fresh} {PAGE} npu:0"),
        format!("unregister {fresh}"),
        format!("unregister {near}"),
        "close".to_owned(),
    ] {
        let start = Instant::now();
        // Success and failure are both fine; what is not is to wait for the frozen one.
        let outcome = a.ask(&command);
        assert!(
            start.elapsed() < Duration::from_secs(5) + SLACK,
            "{command} took {:?}: {outcome:?}",
            start.elapsed()
        );
    }
    a.quit();
    b.signal("CONT");
}

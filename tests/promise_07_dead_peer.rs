//! Promise 7: a dead peer delays only transfers to that peer, for at most one connect timeout.
//!
//! Judged by order, not by a clock: while the transfer to the peer that does not answer is still waiting, whole rounds
//! of transfers to the seven others end. Tried by taking the mechanism out: with `Shared::dispatch_slowly` called on
//! the caller's thread instead of the peer's the first test fails; with
//! `PeerState::begin` never failing fast the five transfers to the frozen peer take five connect timeouts; with the lock
//! around the making of a communicator held through `prepare`, in `Session::connect`, the third test fails. For the
//! second no single mechanism is the last one: with `Ascend::peer_lost` never called it passes, since the vendor's own
//! failure comes as soon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

#[path = "promise/eight.rs"]
mod eight;
mod promise;

use std::time::{Duration, Instant};

use eight::Eight;
use promise::{PAGE, Peer, software_npu};

const CONNECT: Duration = Duration::from_secs(3);

/// On NPUs of their own.
fn eight() -> Eight {
    let npu = software_npu(9).variable("ASCEND_CONNECT_TIMEOUT", &CONNECT.as_millis().to_string());
    let start = |device, seed| {
        let mut peer = Peer::start(&npu, Some(device));
        let address = peer.buffer(device, PAGE, seed);
        (peer, address)
    };
    Eight::new(start(0, 1), (1..9).map(|device| start(device, 2)).collect(), PAGE, 65536)
}

#[test]
fn a_peer_that_does_not_answer_delays_nobody_else() {
    let mut eight = eight();
    let name = eight.others[0].0.name();
    eight.a.must(&format!("open {name}"));
    // Frozen before it was ever connected: the kernel takes the connection, and nobody answers.
    eight.others[0].0.signal("STOP");
    let words = eight.words(0);
    let start = Instant::now();
    // Submitted on the thread that everything else is started from, too: accepting waits for no peer.
    let frozen: Vec<String> = (0..5).map(|_| eight.a.must(&format!("submit {words}"))).collect();
    // The first round makes the channels to all others.
    for _ in 0..10 {
        eight.round();
    }
    let state = eight.a.must(&format!("status {} 0", frozen[0]));
    assert_eq!(state, "Waiting 0", "ten rounds with the others took longer than the frozen peer");
    for batch in frozen {
        let failure = eight.a.must_fail(&format!("wait {batch} 30000"));
        assert!(matches!(failure.code(), "timeout" | "socket"), "{failure:?}");
        assert_eq!(failure.text("peer"), name, "{failure:?}");
        assert!(!failure.text("advice").is_empty(), "{failure:?}");
    }
    // One connect timeout for all five: those behind the first fail fast. A busy machine gets some room.
    assert!(start.elapsed() < 3 * CONNECT, "{:?}", start.elapsed());
    eight.others[0].0.signal("CONT");
    eight.others[0].0.child.kill();
    eight.end();
}

#[test]
fn a_killed_peer_fails_fast_and_costs_the_others_nothing() {
    let mut eight = eight();
    let words = eight.words(0);
    eight.a.must(&format!("transfer {words}"));
    eight.round();
    eight.others[0].0.child.kill();
    let start = Instant::now();
    let mut failures = 0;
    for _ in 0..10 {
        let pending = eight.a.begin(&format!("& transfer {words}"));
        eight.round();
        let failure = eight.a.finish(pending).expect_err("the peer is dead");
        assert_eq!(failure.text("peer"), eight.others[0].0.name(), "{failure:?}");
        failures += 1;
    }
    assert_eq!(failures, 10);
    // Ten uses of a dead peer together cost less than one connect timeout would.
    assert!(start.elapsed() < 2 * CONNECT, "{:?}", start.elapsed());
    eight.end();
}

#[test]
fn a_vendor_call_that_hangs_stalls_one_channel() {
    let mut eight = eight();
    // The first prepare hangs, whichever peer it belongs to; the prepares of the others go on beside it.
    eight.a.fault("set HcclCommPrepare=delay:2500@1");
    let words = eight.words(0);
    let hung = eight.a.begin(&format!("& transfer {words}"));
    eight.a.wait_for_calls("HcclCommPrepare", 0);
    for _ in 0..5 {
        eight.round();
    }
    assert!(!eight.a.has_finished(hung), "five rounds with the others waited for the hanging call");
    // It was late, not dead.
    eight.a.finish(hung).unwrap_or_else(|failure| panic!("{failure:?}"));
    eight.end();
}

//! Promise 2: memory in flight cannot be unregistered, and after `unregister` no peer of ours touches the range.
//!
//! Tried by taking the mechanism out: without the pins of a job (`Job::pins` left empty) the first test fails; with
//! `Shared::withdraw_at_peers` doing nothing the second and the third fail, the third because the peer goes on
//! writing; without the withdrawal in `Shared::withdraw_remote` the peer goes on, too. The end of an engine is the
//! withdrawal of all that it has: without `Shared::part_from_process` the tests of its end find a peer with bytes that
//! were written after the end.
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

const DELAY_MS: u64 = 1500;

/// The withdrawal is answered after half of it.
const SHORT: [(&str, &str); 1] = [("MC_HANDSHAKE_CONNECT_TIMEOUT", "1")];

#[test]
fn our_own_transfer_makes_it_busy() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    a.must(&format!("transfer {}", moving("write", near, &name, far, 4096, 4096, 0)));
    let earlier = a.count("HcclBatchPut");
    a.fault(&format!("set transfer=delay:{DELAY_MS}"));
    let batch = a.must(&format!("submit {}", moving("write", near, &name, far, PAGE, 65536, 0)));
    a.wait_for_calls("HcclBatchPut", earlier);
    let failure = a.must_fail(&format!("unregister {near}"));
    assert_eq!((failure.code(), failure.stage()), ("busy", "register"), "{failure:?}");
    assert!(!failure.text("advice").is_empty(), "{failure:?}");
    a.must(&format!("wait {batch} 20000"));
    assert!(b.holds(far, PAGE, 1), "the transfer did not end well");
    // Over for the waiter means free at once.
    a.must(&format!("unregister {near}"));
    a.quit();
    b.quit();
}

#[test]
fn a_peers_transfer_makes_it_busy() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start_with(&npu, Some(0), &SHORT), Peer::start_with(&npu, Some(1), &SHORT));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    for (direction, call) in [("write", "HcclBatchPut"), ("read", "HcclBatchGet")] {
        a.must(&format!("transfer {}", moving(direction, near, &name, far, 4096, 4096, 0)));
        let earlier = a.count(call);
        a.fault(&format!("set transfer=delay:{DELAY_MS}"));
        let batch = a.must(&format!("submit {}", moving(direction, near, &name, far, PAGE, PAGE, 0)));
        a.wait_for_calls(call, earlier);
        let start = Instant::now();
        let failure = b.must_fail(&format!("unregister {far}"));
        assert_eq!(failure.code(), "busy", "{failure:?}");
        assert_eq!(failure.text("peer"), a.name(), "who is it busy with? {failure:?}");
        assert!(start.elapsed() < Duration::from_millis(DELAY_MS), "busy was told too late to be of use");
        a.fault("clear");
        a.must(&format!("wait {batch} 20000"));
        // It stayed registered: the transfer arrived, and the next one does.
        a.must(&format!("transfer {}", moving("read", near, &name, far, PAGE, PAGE, 0)));
        assert!(a.holds(near, PAGE, 1));
    }
    b.must(&format!("unregister {far}"));
    a.quit();
    b.quit();
}

#[test]
fn after_it_no_peer_touches_the_range() {
    let npu = software_npu(3);
    let mut b = Peer::start_with(&npu, Some(2), &SHORT);
    let far = b.buffer(2, 2 * PAGE, 2);
    let kept = far + PAGE;
    // Two neighbours: one goes, the other stays in use all the time.
    b.must(&format!("unregister {far}"));
    b.must(&format!("register {far} {PAGE} npu:2"));
    b.must(&format!("register {kept} {PAGE} npu:2"));
    let name = b.name();
    let mut writers = [Peer::start_with(&npu, Some(0), &SHORT), Peer::start_with(&npu, Some(1), &SHORT)];
    let mut near = Vec::new();
    for (device, writer) in (0..).zip(&mut writers) {
        let address = writer.buffer(device, PAGE, 10);
        writer.must(&format!("transfer {}", moving("write", address, &name, far, PAGE, 65536, 0)));
        near.push(address);
    }
    let mut pending = Vec::new();
    for round in 0..150 {
        for (writer, &address) in writers.iter_mut().zip(&near) {
            let target = if round % 3 == 0 { kept } else { far };
            pending.push(
                writer.begin(&format!("transfer {}", moving("write", address, &name, target, PAGE, 4096, 0))),
            );
        }
    }
    // While they write. Busy is an honest answer, as long as it ends.
    let end = Instant::now() + promise::LIMIT;
    while let Err(failure) = b.ask(&format!("unregister {far}")) {
        assert_eq!(failure.code(), "busy", "{failure:?}");
        assert!(Instant::now() < end, "never free");
    }
    b.fill(far, PAGE, 77);
    let mut refused = 0;
    for (place, pending) in pending.into_iter().enumerate() {
        if let Err(failure) = writers[place % 2].finish(pending) {
            assert_eq!(failure.code(), "address-not-registered", "{failure:?}");
            refused += 1;
        }
    }
    assert!(b.holds(far, PAGE, 77), "a peer wrote after the range was withdrawn");
    assert!(refused > 0, "the writers had ended before the withdrawal");
    for (writer, &address) in writers.iter_mut().zip(&near) {
        let failure =
            writer.must_fail(&format!("transfer {}", moving("write", address, &name, far, 4096, 4096, 0)));
        assert_eq!(failure.code(), "address-not-registered", "{failure:?}");
        // The neighbour is as good as before.
        writer.must(&format!("transfer {}", moving("write", address, &name, kept, PAGE, 4096, 0)));
    }
    assert!(b.holds(kept, PAGE, 10));
    writers.into_iter().for_each(Peer::quit);
    b.quit();
}

/// A process with two engines: the first one registers, the second one moves what the first has registered. Then the
/// first one ends while a copy is under way, and its memory gets other bytes. The peer's memory, and what became of
/// the transfer.
fn ended_while_another_engine_moves(delay_ms: u64) -> (Peer, u64, Result<String, promise::Failure>) {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    a.must("engines 1");
    a.must(&format!("as 0 transfer {}", moving("write", near, &name, far, 4096, 4096, 0)));
    let earlier = a.count("HcclBatchPut");
    a.fault(&format!("set transfer=delay:{delay_ms}"));
    let batch = a.must(&format!("as 0 submit {}", moving("write", near, &name, far, PAGE, PAGE, 0)));
    a.wait_for_calls("HcclBatchPut", earlier);
    let failure = a.must_fail(&format!("unregister {near}"));
    assert_eq!(failure.code(), "busy", "{failure:?}");
    a.must("close");
    a.fill(near, PAGE, 9);
    let outcome = a.ask(&format!("as 0 wait {batch} 30000"));
    assert!(!b.holds(far, PAGE, 9), "the end of the engine left its memory in use");
    // The other engine is as good as before, with memory of its own.
    a.fault("clear");
    let own: u64 = a.must(&format!("alloc 0 {PAGE}")).parse().unwrap();
    a.fill(own, PAGE, 5);
    a.must(&format!("as 0 register {own} {PAGE} npu:0"));
    let (kept, far) = (far, b.buffer(1, PAGE, 3));
    a.must(&format!("as 0 transfer {}", moving("write", own, &name, far, PAGE, 65536, 0)));
    assert!(b.holds(far, PAGE, 5));
    a.quit();
    (b, kept, outcome)
}

#[test]
fn the_end_of_an_engine_waits_for_the_others_of_its_process() {
    let (mut b, far, outcome) = ended_while_another_engine_moves(1000);
    outcome.unwrap_or_else(|failure| panic!("there was time for it to end well: {failure:?}"));
    assert!(b.holds(far, PAGE, 1));
    b.quit();
}

#[test]
fn the_end_of_an_engine_stops_what_others_do_not_end_in_time() {
    let (b, _, outcome) = ended_while_another_engine_moves(20_000);
    let failure = outcome.expect_err("it was to take longer than an end may");
    assert_eq!(failure.code(), "cancelled", "{failure:?}");
    b.quit();
}

//! Staged transfers between processes: host memory over HCCS, peers that die and stand still in the middle, agents
//! that are slow or not there.
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

use mooncake_test_support::wait_until;
use promise::{LIMIT, PAGE, Peer, moving, software_npu};

const MIB: u64 = 1 << 20;
/// Two processes of one machine that take each other for hosts of their own.
const APART: (&str, &str) = ("MOONCAKE_TRANSFER_SAME_HOST", "0");
/// Slots small and few.
const SCARCE: [(&str, &str); 3] =
    [APART, ("MOONCAKE_TRANSFER_STAGED_SLOT_BYTES", "65536"), ("MOONCAKE_TRANSFER_STAGED_SLOTS", "4")];

fn host_buffer(peer: &mut Peer, length_bytes: u64, seed: u64) -> u64 {
    let address: u64 = peer.must(&format!("host {length_bytes}")).parse().unwrap();
    peer.fill(address, length_bytes, seed);
    peer.must(&format!("register {address} {length_bytes} cpu:0"));
    address
}

fn metric(peer: &mut Peer, name: &str) -> u64 {
    peer.must(&format!("metric mooncake_transfer_{name}")).parse().unwrap()
}

/// No slot is in use, and none is held back.
#[track_caller]
fn slots_are_free(peer: &mut Peer) {
    let free = wait_until(LIMIT, || {
        metric(peer, "staged_slots") == 0 && metric(peer, "staged_slots_held_back") == 0
    });
    assert!(free, "{} {}", metric(peer, "staged_slots"), metric(peer, "staged_slots_held_back"));
}

#[test]
fn a_device_and_host_memory_of_another_host() {
    let npu = software_npu(2);
    let (mut a, mut b) =
        (Peer::start_with(&npu, Some(0), &[APART]), Peer::start_with(&npu, Some(1), &[APART]));
    b.must("install ascend");
    // A pool's node: host memory alone, longer than any slot.
    let length = 20 * MIB;
    let pool = host_buffer(&mut b, length, 1);
    let (near, other) = (a.buffer(0, length, 2), a.buffer(0, length, 3));
    let name = b.name();
    for block in [length, 64 << 10, 4096] {
        let seed = block + 5;
        a.fill(near, length, seed);
        a.must(&format!("transfer {}", moving("write", near, &name, pool, length, block, 0)));
        assert!(b.holds(pool, length, seed), "{block}");
        a.must(&format!("transfer {}", moving("read", other, &name, pool, length, block, 0)));
        assert!(a.holds(other, length, seed), "{block}");
    }
    assert_eq!(metric(&mut a, "staged_bytes_total"), 6 * length);
    assert_eq!(metric(&mut a, "tcp_jobs_total"), 0);
    slots_are_free(&mut a);
    slots_are_free(&mut b);
    // The peer with host memory moves it to a device of the other, too.
    let name = a.name();
    b.fill(pool, length, 9);
    b.must(&format!("transfer {}", moving("write", pool, &name, near, length, MIB, 0)));
    assert!(a.holds(near, length, 9));
    b.must(&format!("transfer {}", moving("read", pool, &name, other, length, 4096, 0)));
    assert!(b.holds(pool, length, 4096 + 5));
    a.quit();
    b.quit();
}

/// A host whose driver registers 20 GB serves a pool of 30: only the ring is registered.
#[test]
fn a_pool_of_30_gb_over_hccs_where_the_driver_registers_20() {
    const POOL: u64 = 30 << 30;
    let npu = software_npu(2).variable("CANN_SIM_HOST_REGISTRATION_LIMIT", "20G");
    let (mut a, mut b) =
        (Peer::start_with(&npu, Some(0), &[APART]), Peer::start_with(&npu, Some(1), &[APART]));
    b.must("install ascend");
    let pool: u64 = b.must(&format!("pool {POOL}")).parse().unwrap();
    b.must(&format!("register {pool} {POOL} cpu:0"));
    let length = 6 * MIB;
    let (near, name) = (a.buffer(0, length, 1), b.name());
    // Its first bytes, across what the driver would have taken, and its last.
    let places = [0, (20 << 30) - length / 2, POOL - length];
    for (place, seed) in places.into_iter().zip(1..) {
        a.fill(near, length, seed);
        a.must(&format!("transfer {}", moving("write", near, &name, pool + place, length, 65536, 0)));
    }
    for (place, seed) in places.into_iter().zip(1..) {
        assert!(b.holds(pool + place, length, seed), "written at {place}");
        a.fill(near, length, 9);
        a.must(&format!("transfer {}", moving("read", near, &name, pool + place, length, 65536, 0)));
        assert!(a.holds(near, length, seed), "read at {place}");
    }
    assert_eq!(metric(&mut a, "staged_bytes_total"), 6 * length);
    assert_eq!(metric(&mut a, "tcp_jobs_total"), 0);
    b.must(&format!("unregister {pool}"));
    a.quit();
    b.quit();
}

/// The ring is shown to the peer by the older family of calls as well, and copies need none of the newer ones.
#[test]
fn every_release_of_cann_stages() {
    for release in ["8.1", "8.2", "8.3", "8.5", "9.0", "9.1", "9.2"] {
        let npu = software_npu(2).variable("CANN_SIM_RELEASE", release);
        let (mut a, mut b) =
            (Peer::start_with(&npu, Some(0), &SCARCE), Peer::start_with(&npu, Some(1), &SCARCE));
        b.must("install ascend");
        let pool = host_buffer(&mut b, PAGE, 1);
        let (near, name) = (a.buffer(0, PAGE, 2), b.name());
        a.must(&format!("transfer {}", moving("write", near, &name, pool, PAGE, 4096, 0)));
        assert!(b.holds(pool, PAGE, 2), "{release}");
        b.fill(pool, PAGE, 3);
        a.must(&format!("transfer {}", moving("read", near, &name, pool, PAGE, 65536, 0)));
        assert!(a.holds(near, PAGE, 3), "{release}");
        assert_eq!(metric(&mut a, "staged_bytes_total"), 2 * PAGE, "{release}");
        a.quit();
        b.quit();
    }
}

#[test]
fn memory_that_nobody_has_registered() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let registered = a.buffer(0, PAGE, 1);
    let loose: u64 = a.must(&format!("alloc 0 {PAGE}")).parse().unwrap();
    let (far, name) = (b.buffer(1, PAGE, 2), b.name());
    a.must(&format!("transfer {}", moving("read", loose, &name, far, PAGE, 8192, 0)));
    assert!(a.holds(loose, PAGE, 2));
    a.fill(loose, PAGE, 3);
    a.must(&format!("transfer {}", moving("write", loose, &name, far, PAGE, PAGE, 0)));
    assert!(b.holds(far, PAGE, 3));
    // What is registered goes direct as before.
    let staged = metric(&mut a, "staged_jobs_total");
    a.must(&format!("transfer {}", moving("read", registered, &name, far, PAGE, PAGE, 0)));
    assert!(a.holds(registered, PAGE, 3));
    assert_eq!(metric(&mut a, "staged_jobs_total"), staged);
    a.quit();
    b.quit();
}

#[test]
fn a_peer_killed_in_the_middle_costs_its_own_transfers_and_frees_its_slots() {
    let npu = software_npu(3).variable("ASCEND_CONNECT_TIMEOUT", "3000");
    let mut a = Peer::start_with(&npu, Some(0), &SCARCE);
    let mut victim = Peer::start_with(&npu, Some(1), &SCARCE);
    let mut b = Peer::start_with(&npu, Some(2), &SCARCE);
    victim.must("install ascend");
    b.must("install ascend");
    let length = 32 * MIB;
    let (near, at_victim) = (a.buffer(0, length, 1), host_buffer(&mut victim, length, 2));
    let (pool, at_b) = (host_buffer(&mut b, length, 3), victim.buffer(1, length, 4));
    let words = moving("write", near, &victim.name(), at_victim, length, 4096, 0);
    // To the victim, and from it at the same time.
    a.must(&format!("transfer {words}"));
    let begun = metric(&mut a, "staged_bytes_total");
    let doomed = a.begin(&format!("& transfer {words}"));
    let name = b.name();
    let _its_own =
        victim.begin(&format!("& transfer {}", moving("write", at_b, &name, pool, length, 4096, 0)));
    assert!(wait_until(LIMIT, || metric(&mut a, "staged_bytes_total") > begun + MIB));
    assert!(wait_until(LIMIT, || metric(&mut b, "staged_slots") > 0));
    victim.signal("KILL");
    let failure = a.finish(doomed).unwrap_err();
    assert_eq!(failure.text("peer"), victim.name(), "{failure:?}");
    slots_are_free(&mut a);
    slots_are_free(&mut b);
    // All of the slots are there for others.
    let name = b.name();
    b.fill(pool, length, 5);
    a.must(&format!("transfer {}", moving("write", near, &name, pool, length, 65536, 0)));
    assert!(b.holds(pool, length, 1));
    a.must(&format!("unregister {near}"));
    b.must(&format!("unregister {pool}"));
    a.quit();
    b.quit();
}

#[test]
fn memory_in_the_hands_of_an_agent_is_busy() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start_with(&npu, Some(0), &SCARCE), Peer::start_with(&npu, Some(1), &SCARCE));
    let (near, far, name) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2), b.name());
    let loose: u64 = a.must(&format!("alloc 0 {PAGE}")).parse().unwrap();
    a.fill(loose, PAGE, 3);
    // The channel and the rings first.
    a.must(&format!("transfer {}", moving("write", loose, &name, far, 65536, 65536, 0)));
    b.fault("set copy=delay:3000");
    let pending = a.begin(&format!("& transfer {}", moving("write", loose, &name, far, 65536, 65536, 0)));
    let before = b.count("aclrtMemcpyAsync");
    assert!(wait_until(LIMIT, || b.count("aclrtMemcpyAsync") > before || a.has_finished(pending)));
    assert_eq!(b.must_fail(&format!("unregister {far}")).code(), "busy");
    b.fault("clear");
    a.finish(pending).unwrap();
    assert!(wait_until(LIMIT, || b.ask(&format!("unregister {far}")).is_ok()));
    // And what was withdrawn is refused.
    let failure = a.must_fail(&format!("transfer {}", moving("write", loose, &name, far, 65536, 65536, 0)));
    assert_eq!(failure.code(), "address-not-registered", "{failure:?}");
    a.must(&format!("unregister {near}"));
    a.quit();
    b.quit();
}

/// A staged write whose scatter meets `fault` and whose time is over before it has passed.
fn late_scatter(fault: &str, grace_ms: &str) -> (Peer, Peer, promise::Failure, u64, u64, Instant) {
    let npu = software_npu(2).variable("MOONCAKE_TRANSFER_DRAIN_GRACE_MS", grace_ms);
    let (mut a, mut b) = (Peer::start_with(&npu, Some(0), &SCARCE), Peer::start_with(&npu, Some(1), &SCARCE));
    let (far, name) = (b.buffer(1, PAGE, 2), b.name());
    let loose: u64 = a.must(&format!("alloc 0 {PAGE}")).parse().unwrap();
    a.fill(loose, PAGE, 3);
    a.must(&format!("transfer {}", moving("write", loose, &name, far, 65536, 65536, 0)));
    b.fill(far, PAGE, 2);
    b.fault(fault);
    let start = Instant::now();
    let failure = a.must_fail(&format!("transfer {}", moving("write", loose, &name, far, 65536, 4096, 300)));
    (a, b, failure, loose, far, start)
}

#[test]
fn a_scatter_that_is_stopped_does_not_land_after_the_return() {
    let (a, mut b, failure, _, far, start) = late_scatter("set copy=delay:4000", "5000");
    assert_eq!(failure.code(), "timeout", "{failure:?}");
    assert!(start.elapsed() < Duration::from_millis(3900), "it returned only when the copy was over");
    b.fault("clear");
    std::thread::sleep(Duration::from_millis(4300).saturating_sub(start.elapsed()));
    assert!(b.holds(far, PAGE, 2), "a write landed after the call had returned");
    slots_are_free(&mut b);
    a.quit();
    b.quit();
}

#[test]
fn a_scatter_for_a_peer_that_is_gone_is_stopped() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start_with(&npu, Some(0), &SCARCE), Peer::start_with(&npu, Some(1), &SCARCE));
    let (far, name) = (b.buffer(1, PAGE, 2), b.name());
    let loose: u64 = a.must(&format!("alloc 0 {PAGE}")).parse().unwrap();
    a.fill(loose, PAGE, 3);
    a.must(&format!("transfer {}", moving("write", loose, &name, far, 65536, 65536, 0)));
    b.fill(far, PAGE, 2);
    b.fault("set copy=delay:4000");
    let (before, start) = (b.count("aclrtMemcpyAsync"), Instant::now());
    let _its_end_is_never_told =
        a.begin(&format!("& transfer {}", moving("write", loose, &name, far, 65536, 65536, 60_000)));
    b.wait_for_calls("aclrtMemcpyAsync", before);
    a.signal("KILL");
    // Long before the request's own time is over.
    slots_are_free(&mut b);
    b.fault("clear");
    std::thread::sleep(Duration::from_millis(4300).saturating_sub(start.elapsed()));
    assert!(b.holds(far, PAGE, 2), "a write of a peer that is gone landed");
    b.must(&format!("unregister {far}"));
    b.quit();
}

#[test]
fn a_scatter_that_cannot_be_stopped_keeps_the_handle() {
    let (mut a, mut b, failure, loose, far, _) = late_scatter("set copy=stuck:3000@1", "200");
    assert_eq!(failure.code(), "still-running", "{failure:?}");
    let batch = failure.0["batch"].as_u64().expect("the handle is kept");
    assert_eq!(a.must_fail(&format!("free {batch}")).code(), "busy");
    assert_eq!(b.must_fail(&format!("unregister {far}")).code(), "busy");
    assert!(wait_until(LIMIT, || {
        let _outcome = a.ask(&format!("wait {batch} 100"));
        a.ask(&format!("free {batch}")).is_ok()
    }));
    b.fault("clear");
    let name = b.name();
    a.must(&format!("transfer {}", moving("write", loose, &name, far, PAGE, 4096, 0)));
    assert!(b.holds(far, PAGE, 3));
    slots_are_free(&mut b);
    a.quit();
    b.quit();
}

#[test]
fn a_peer_that_stands_still_costs_its_own_transfers_only() {
    let npu = software_npu(3).variable("MOONCAKE_TRANSFER_CONTROL_SILENCE_MS", "12000");
    let mut a = Peer::start_with(&npu, Some(0), &SCARCE);
    let mut frozen = Peer::start_with(&npu, Some(1), &SCARCE);
    let mut b = Peer::start_with(&npu, Some(2), &SCARCE);
    let loose: u64 = a.must(&format!("alloc 0 {PAGE}")).parse().unwrap();
    a.fill(loose, PAGE, 1);
    let (there, far) = (frozen.buffer(1, PAGE, 2), b.buffer(2, PAGE, 3));
    let words = |peer: &Peer, far: u64, timeout_ms: u64| {
        moving("write", loose, &peer.name(), far, PAGE, 4096, timeout_ms)
    };
    for (peer, far) in [(&frozen, there), (&b, far)] {
        let words = words(peer, far, 0);
        a.must(&format!("transfer {words}"));
    }
    frozen.signal("STOP");
    let stuck: Vec<_> = (0..6)
        .map(|_| {
            let words = words(&frozen, there, 30_000);
            a.begin(&format!("& transfer {words}"))
        })
        .collect();
    for _ in 0..5 {
        let words = words(&b, far, 0);
        a.must(&format!("transfer {words}"));
    }
    assert!(stuck.iter().all(|pending| !a.has_finished(*pending)), "the peer answered after all");
    for pending in stuck {
        let failure = a.finish(pending).unwrap_err();
        assert_eq!(failure.text("peer"), frozen.name(), "{failure:?}");
    }
    slots_are_free(&mut a);
    frozen.signal("CONT");
    // It comes back as it was.
    assert!(wait_until(LIMIT, || {
        let words = words(&frozen, there, 0);
        a.ask(&format!("transfer {words}")).is_ok()
    }));
    assert!(frozen.holds(there, PAGE, 1));
    slots_are_free(&mut frozen);
    a.quit();
    b.quit();
    frozen.quit();
}

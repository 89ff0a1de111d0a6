//! Memory of an NPU to and from peers that only host memory reaches: an engine without NPU, and upstream's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod interop;
mod promise;

use std::time::Instant;

use interop::{NEWEST, Upstream, address, engine, missing};
use mooncake_test_support::{loopback, wait_until};
use promise::{LIMIT, Peer, moving, software_npu};

const MIB: u64 = 1 << 20;
const LENGTH: u64 = 8 * MIB;

/// The words that `promise_peer` fills memory with.
fn word(position: u64, seed: u64) -> u64 {
    let mixed = position.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 29)
}

/// The command that moves all of `length_bytes` in blocks.
fn transfer(
    direction: &str,
    local: u64,
    peer: &str,
    remote: u64,
    length_bytes: u64,
    block_bytes: u64,
    timeout_ms: u64,
) -> String {
    let words = moving(direction, local, peer, remote, length_bytes, block_bytes, timeout_ms);
    format!("transfer {words}")
}

/// Upstream's engine on the loopback address of these tests; for IPv6 it has to be told.
fn upstream() -> Option<Upstream> {
    let six = loopback::address().is_ipv6();
    Upstream::start(NEWEST, &loopback::host(), if six { &[("MC_USE_IPV6", "1")] } else { &[] })
}

fn holds(bytes: &[u8], seed: u64) -> bool {
    let words = bytes.chunks_exact(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap()));
    (1..).zip(words).all(|(position, seen)| seen == word(position, seed))
}

#[test]
fn an_engine_without_npu_by_both_routes() {
    for variables in [&[][..], &[("MOONCAKE_TRANSFER_SAME_HOST", "0")]] {
        let npu = software_npu(1);
        let mut peer = Peer::start_with(&npu, Some(0), variables);
        let target = engine(&loopback::host());
        let buffer = vec![0_u8; LENGTH as usize];
        target.register(address(&buffer), LENGTH, "cpu:0").unwrap();
        let (first, second) = (peer.buffer(0, LENGTH, 1), peer.buffer(0, LENGTH, 2));
        // Large blocks, small ones, and one alone.
        for (block, seed) in [(4 * MIB, 3), (4096, 4), (LENGTH, 5)] {
            peer.fill(first, LENGTH, seed);
            peer.must(&transfer("write", first, target.name(), address(&buffer), LENGTH, block, 0));
            assert!(holds(std::hint::black_box(&buffer), seed), "{variables:?} {block}");
            peer.must(&transfer("read", second, target.name(), address(&buffer), LENGTH, block, 0));
            assert!(peer.holds(second, LENGTH, seed), "{variables:?} {block}");
        }
        let refused = peer.must_fail(&transfer("write", first, target.name(), 4096, 64, 64, 0));
        assert_eq!(refused.code(), "address-not-registered");
        peer.quit();
        target.close();
    }
}

#[test]
fn upstreams_engine() {
    let Some(upstream) = upstream() else { return missing(NEWEST) };
    let npu = software_npu(1);
    let mut peer = Peer::start(&npu, Some(0));
    let (first, second) = (peer.buffer(0, LENGTH, 1), peer.buffer(0, LENGTH, 2));
    peer.must(&transfer("write", first, &upstream.name, upstream.base, LENGTH, MIB, 0));
    peer.must(&transfer("read", second, &upstream.name, upstream.base, LENGTH, 64 << 10, 0));
    assert!(peer.holds(second, LENGTH, 1));
    peer.quit();
}

#[test]
fn a_stopped_peer_ends_it_at_the_deadline_and_the_memory_is_free() {
    let Some(upstream) = upstream() else { return missing(NEWEST) };
    let npu = software_npu(1);
    let mut peer = Peer::start(&npu, Some(0));
    let memory = peer.buffer(0, LENGTH, 1);
    peer.must(&transfer("write", memory, &upstream.name, upstream.base, LENGTH, MIB, 0));
    let signal = |name: &str| {
        let status =
            std::process::Command::new("kill").args([name, &upstream.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    let started = Instant::now();
    let failure = peer.must_fail(&transfer("read", memory, &upstream.name, upstream.base, LENGTH, MIB, 1000));
    assert_eq!(failure.code(), "timeout", "{failure:?}");
    assert!(started.elapsed() < LIMIT / 2, "{:?}", started.elapsed());
    assert!(wait_until(LIMIT, || peer.ask(&format!("unregister {memory}")).is_ok()));
    signal("-CONT");
    peer.quit();
}

//! Promise 17: no port of ours is probed and then given up; 64 engines start at once without collision.
//!
//! The range of ports is hardly larger than what 64 engines need, so that they meet. Tried by taking the mechanism
//! out: with `listen_in_range` made to bind a port, drop it and bind it again later, as a probe does, engines fail to
//! start or end with a port that another has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use std::collections::BTreeSet;

use mooncake_test_support::SoftwareNpu;
use promise::Peer;

/// 64 engines have three listeners each.
fn narrow(first: u16) -> SoftwareNpu {
    let last = first + 219;
    SoftwareNpu::new()
        .variable("MC_MIN_RPC_PORT", &first.to_string())
        .variable("MC_MAX_RPC_PORT", &last.to_string())
}

#[test]
fn in_one_process() {
    let mut peer = Peer::start(&narrow(21_000), None);
    let names = peer.must("engines 64");
    let distinct: BTreeSet<&str> = names.split(' ').collect();
    assert_eq!(distinct.len(), 64, "{names}");
    // Each is who it says it is.
    peer.must("introduce");
    peer.quit();
}

#[test]
fn in_sixteen_processes() {
    let npu = narrow(21_300);
    let mut peers: Vec<Peer> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| Peer::start(&npu, None))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let pending: Vec<_> = peers.iter_mut().map(|peer| peer.begin("engines 3")).collect();
    let mut names = BTreeSet::new();
    for (peer, pending) in peers.iter().zip(pending) {
        let answer = peer.finish(pending).unwrap_or_else(|failure| panic!("{failure:?}"));
        names.insert(peer.name());
        names.extend(answer.split(' ').map(str::to_owned));
    }
    assert_eq!(names.len(), 64, "{names:?}");
    let first = &mut peers[0];
    for name in &names {
        first.must(&format!("probe {name}"));
        first.must(&format!("open {name}"));
    }
    peers.into_iter().for_each(Peer::quit);
}

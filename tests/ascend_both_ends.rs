//! Transfers of many small blocks of which the peer's device launches a part, and what its agent refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod ascend_pair;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ascend_pair::*;
use mooncake::batch::Stop;
use mooncake::config::Config;
use mooncake::control::{DirectMove, Message};
use mooncake::deadline::Deadline;
use mooncake::error::Code;
use mooncake::plan::Direction;
use mooncake_test_support::wait_until;

const BLOCK: u64 = 16 << 10;
const BLOCKS: u64 = 1000;
const LENGTH: u64 = 16 * MIB;

fn allowed() -> Config {
    Config { ascend_aggregate: true, ..Config::default() }
}

/// Blocks that do not join: their order differs.
fn scattered(near: u64, far: u64) -> Vec<(u64, u64, u64)> {
    (0..BLOCKS)
        .map(|index| (near + index * BLOCK, far + index * 617 % BLOCKS * BLOCK, BLOCK - index % 5))
        .collect()
}

/// Makes the channel, so that it is known what the link costs.
fn meet(a: &Node, b: &Node, near: u64, far: u64) {
    a.must_transfer(b, Direction::Write, &[(near, far, 64)]);
}

/// Two nodes with a buffer each, of one server, which HCCS joins.
fn near_nodes(config: &Config) -> (Node, Node, u64, u64) {
    met(node_with(0, config, false), node_with(1, config, false))
}

/// Of two servers, which RoCE joins.
fn nodes(config: &Config) -> (Node, Node, u64, u64) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("hccn.conf");
    std::fs::write(&path, "address_0=192.0.2.10\naddress_1=192.0.2.11\n").unwrap();
    let on = |server: &str| Config {
        hccn_conf: path.clone(),
        server_id: Some(server.to_owned()),
        ..config.clone()
    };
    met(node_with(0, &on("one"), false), node_with(1, &on("two"), false))
}

fn met(a: Node, b: Node) -> (Node, Node, u64, u64) {
    let (near, far) = (a.buffer(LENGTH), b.buffer(LENGTH));
    meet(&a, &b, near, far);
    (a, b, near, far)
}

/// Over HCCS nothing could stop what a peer puts that was lost and comes back.
#[test]
fn over_hccs_the_peer_gets_and_does_not_put() {
    let (a, b, near, far) = near_nodes(&allowed());
    let bytes = pattern(6, LENGTH);
    let blocks = scattered(near, far);
    store(0, near, &bytes);
    a.must_transfer(&b, Direction::Write, &blocks);
    let there = load(1, far, LENGTH);
    same(&blocks, near, far, &bytes, &there);
    let by_peers_bytes = a.ascend.staged().by_peers_bytes;
    assert!(by_peers_bytes > 0);
    store(0, near, &vec![0; LENGTH as usize]);
    a.must_transfer(&b, Direction::Read, &blocks);
    same(&blocks, near, far, &load(0, near, LENGTH), &there);
    assert_eq!(a.ascend.staged().by_peers_bytes, by_peers_bytes);
}

fn same(blocks: &[(u64, u64, u64)], near: u64, far: u64, here: &[u8], there: &[u8]) {
    for (index, &(local, remote, length)) in blocks.iter().enumerate() {
        let (from, to) = ((local - near) as usize, (remote - far) as usize);
        let length = length as usize;
        assert!(here[from..from + length] == there[to..to + length], "block {index}");
    }
}

#[test]
fn the_peer_puts_and_gets_a_part() {
    let (a, b, near, far) = nodes(&allowed());
    let bytes = pattern(1, LENGTH);
    let blocks = scattered(near, far);
    store(0, near, &bytes);
    a.must_transfer(&b, Direction::Write, &blocks);
    let there = load(1, far, LENGTH);
    same(&blocks, near, far, &bytes, &there);
    let written = a.ascend.staged();
    assert!(written.by_peers_bytes > 0 && written.by_peers_bytes < BLOCKS * BLOCK, "{written:?}");
    store(0, near, &vec![0; LENGTH as usize]);
    a.must_transfer(&b, Direction::Read, &blocks);
    same(&blocks, near, far, &load(0, near, LENGTH), &there);
    let read = a.ascend.staged();
    assert!(read.by_peers_bytes > written.by_peers_bytes, "{read:?}");
    // By descriptors and over the channel that there was.
    assert_eq!((read.moved_bytes, read.requests, read.slots_in_use), (0, 2, 0));
    assert_eq!((a.ascend.channels().len(), b.ascend.channels().len()), (1, 1));
    assert!(wait_until(LONG, || b.ranges.holds(far) == 0));
}

#[test]
fn it_happens_only_where_it_is_allowed() {
    for config in [Config { both_ends: false, ..allowed() }, Config::default()] {
        let (a, b, near, far) = nodes(&config);
        let bytes = pattern(2, LENGTH);
        let blocks = scattered(near, far);
        store(0, near, &bytes);
        a.must_transfer(&b, Direction::Write, &blocks);
        same(&blocks, near, far, &bytes, &load(1, far, LENGTH));
        assert_eq!(a.ascend.staged().by_peers_bytes, 0);
    }
}

#[test]
fn what_the_peer_refuses_is_launched_here() {
    let (a, b, near, far) = nodes(&allowed());
    // The peer's agent may reach nothing; its channel does as before.
    b.ranges.remove(far);
    for direction in [Direction::Write, Direction::Read] {
        let bytes = pattern(3, LENGTH);
        let blocks = scattered(near, far);
        store(0, near, &bytes);
        a.must_transfer(&b, direction, &blocks);
        same(&blocks, near, far, &load(0, near, LENGTH), &load(1, far, LENGTH));
    }
    assert_eq!((a.ascend.staged().by_peers_bytes, a.ascend.staged().requests), (0, 2));
}

#[test]
fn a_peer_of_an_older_release_launches_nothing() {
    let (a, b, near, far) = met(node_with(0, &allowed(), false), old_node(1));
    let bytes = pattern(4, LENGTH);
    let blocks = scattered(near, far);
    store(0, near, &bytes);
    a.must_transfer(&b, Direction::Write, &blocks);
    same(&blocks, near, far, &bytes, &load(1, far, LENGTH));
    assert_eq!(a.ascend.staged().by_peers_bytes, 0);
}

/// An order as the peer would get it, for what the agent must refuse.
fn order(channel: &str, blocks: Vec<(u64, u64, u64)>) -> DirectMove {
    DirectMove { device: 1, channel: channel.to_owned(), number: 7, put: false, blocks, timeout_ms: 30_000 }
}

#[test]
fn the_agent_refuses_wild_orders() {
    let (a, b, near, far) = nodes(&allowed());
    let hidden = allocate(1, 2 * MIB);
    let zeros = vec![0_u8; 2 * MIB as usize];
    store(1, hidden, &zeros);
    store(1, far, &zeros);
    store(0, near, &pattern(5, 2 * MIB));
    let channel = a.ascend.channels()[0].name.clone();
    let connection = a.connect(&b);
    let ask = |order: DirectMove| connection.request(Message::MoveDirect(order), soon());
    for (what, wrong, code) in [
        ("not registered", vec![(hidden, near, 64)], Code::AddressNotRegistered),
        ("over the end", vec![(far + LENGTH - 32, near, 64)], Code::AddressNotRegistered),
        ("wraps around", vec![(far, near, 64), (u64::MAX - 8, near, 64)], Code::InvalidArgument),
        ("peer's wraps around", vec![(far, u64::MAX - 8, 64)], Code::InvalidArgument),
        ("of no length", vec![(far, near, 0)], Code::InvalidArgument),
        ("nothing", vec![], Code::InvalidArgument),
        ("too many", vec![(far, near, 8); 257], Code::InvalidArgument),
        ("peer's not registered", vec![(far, near + LENGTH, 64)], Code::Busy),
    ] {
        let error = ask(order(&channel, wrong)).unwrap_err();
        assert_eq!(error.code(), code, "{what}: {error}");
    }
    let error = ask(order("another", vec![(far, near, 64)])).unwrap_err();
    assert_eq!(error.code(), Code::Busy, "{error}");
    let elsewhere = DirectMove { device: 5, ..order(&channel, vec![(far, near, 64)]) };
    assert_eq!(ask(elsewhere).unwrap_err().code(), Code::DeviceNotFound);
    // Nothing was touched; what is in order is done, and under the same number again.
    assert!(load(1, hidden, 2 * MIB) == zeros && load(1, far, 2 * MIB) == zeros);
    for _ in 0..2 {
        assert_eq!(ask(order(&channel, vec![(far, near, 64)])).unwrap(), Message::Done);
    }
    assert!(load(1, far, 64) == pattern(5, 64));
    assert_eq!(b.ranges.holds(far), 0);
    // A word about an order that is over is no mistake.
    connection.send(Message::StopDirect { number: 7 }).unwrap();
    assert_eq!(connection.request(Message::StopDirect { number: 7 }, soon()).unwrap(), Message::Done);
}

#[test]
fn a_cancelled_transfer_is_quiet_at_both_ends() {
    let (a, b, near, far) = nodes(&allowed());
    for round in 0..24_u64 {
        let direction = if round % 2 == 0 { Direction::Write } else { Direction::Read };
        let (device, target) = if round % 2 == 0 { (1, far) } else { (0, near) };
        let source = if round % 2 == 0 { (0, near) } else { (1, far) };
        store(source.0, source.1, &vec![round as u8; LENGTH as usize]);
        let (batch, submitted) = a.start_by(&b, direction, &scattered(near, far), soon(), Ends::default());
        submitted.unwrap();
        std::thread::sleep(Duration::from_micros(round * 100));
        batch.stop(Stop::Cancelled);
        let (outcome, _) = finished(&batch);
        // What was told as over is quiet: what stands there now stays, and nothing is held.
        let seen = load(device, target, LENGTH);
        assert_eq!(b.ranges.holds(far), 0, "{outcome:?}");
        store(source.0, source.1, &vec![!(round as u8); LENGTH as usize]);
        assert!(load(device, target, LENGTH) == seen, "round {round}: {outcome:?}");
    }
    a.must_transfer(&b, Direction::Write, &scattered(near, far));
    assert!(a.ascend.staged().by_peers_bytes > 0);
}

#[test]
fn a_deadline_ends_it() {
    let (a, b, near, far) = nodes(&allowed());
    let blocks: Vec<_> = (0..200_000).map(|index| (near + index % 2, far, LENGTH / 256)).collect();
    let deadline = Deadline::after(Duration::from_millis(200));
    let (batch, submitted) = a.start_by(&b, Direction::Read, &blocks, deadline, Ends::default());
    submitted.unwrap();
    let (outcome, error) = finished(&batch);
    assert!(outcome.failed > 0);
    assert_eq!(error.unwrap().code(), Code::Timeout);
    assert!(wait_until(LONG, || b.ranges.holds(far) == 0));
    a.must_transfer(&b, Direction::Write, &scattered(near, far));
}

#[test]
fn a_peer_that_ends_in_the_middle_fails_it_and_nothing_stays() {
    for direction in [Direction::Write, Direction::Read] {
        let (a, b, near, far) = nodes(&allowed());
        let blocks: Vec<_> = (0..200_000).map(|index| (near + index % 2, far, LENGTH / 256)).collect();
        let (batch, submitted) = a.start_by(&b, direction, &blocks, soon(), Ends::default());
        submitted.unwrap();
        assert!(wait_until(LONG, || a.ascend.staged().by_peers_bytes > 0));
        b.control.shutdown();
        b.ascend.shutdown(soon()).unwrap();
        let (outcome, error) = finished(&batch);
        assert!(!outcome.is_success() && error.is_some(), "{outcome:?}");
        a.ascend.shutdown(soon()).unwrap();
    }
}

/// Says so when it is dropped.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Slots of the peer's are for others while the same lanes have it launch what needs none.
#[test]
fn what_needs_no_slot_keeps_none() {
    let (a, b, near, far) = nodes(&allowed());
    let ended = &AtomicBool::new(false);
    let (blocks, staged) = (scattered(near, far), vec![(near, far, LENGTH); 20]);
    std::thread::scope(|scope| {
        // Also when something here fails: the scope waits for its threads.
        let sets = Sets(ended);
        let begun = a.start_by(&b, Direction::Write, &staged, soon(), STAGED).0;
        // Never a moment without something to launch.
        for _ in 0..4 {
            let (a, b, blocks) = (&a, &b, &blocks);
            scope.spawn(move || {
                while !ended.load(Ordering::Acquire) {
                    a.must_transfer(b, Direction::Write, blocks);
                }
            });
        }
        let (outcome, _) = finished(&begun);
        let by_peers_bytes = a.ascend.staged().by_peers_bytes;
        let free = wait_until(LONG, || b.ascend.staged().slots_in_use == 0);
        let launched = wait_until(LONG, || a.ascend.staged().by_peers_bytes > by_peers_bytes);
        drop(sets);
        assert!(outcome.is_success() && free && launched, "{:?}", b.ascend.staged());
    });
}

//! Transfers by way of slots: memory that the link does not take, small blocks, and what the agent refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod ascend_pair;

use ascend_pair::*;
use mooncake::batch::Stop;
use mooncake::config::Config;
use mooncake::control::{DirectMove, Message, STAGED_PROTOCOL, SlotGrant, SlotMove, SlotUse};
use mooncake::deadline::Deadline;
use mooncake::error::Code;
use mooncake::memory::{HugePages, MemoryKind, SharedMemory};
use mooncake::plan::Direction;
use mooncake_test_support::detour::Way;
use mooncake_test_support::wait_until;

const HOST_FAR: Ends = Ends { remote_host: true, ..STAGED };
const HOST_NEAR: Ends = Ends { local_host: true, ..STAGED };
const SLOT_BYTES: u64 = 4 * MIB;

/// Slots small and few, so that little memory fills them.
fn scarce() -> Config {
    Config { staged_slot_bytes: 64 << 10, staged_slots: 2, ..Config::default() }
}

fn pair(config: &Config) -> (Node, Node) {
    (node_with(0, config, false), node_with(1, config, false))
}

/// Two servers that RoCE joins, where a descriptor costs more than a copy on the device.
fn roce_pair(config: &Config) -> (Node, Node, tempfile::TempDir) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("hccn.conf");
    std::fs::write(&path, "address_0=192.0.2.10\naddress_1=192.0.2.11\n").unwrap();
    let on = |server: &str| Config {
        hccn_conf: path.clone(),
        server_id: Some(server.to_owned()),
        ..config.clone()
    };
    (node_with(0, &on("one"), false), node_with(1, &on("two"), false), directory)
}

#[test]
fn device_to_host_of_a_peer_and_back_over_hccs() {
    let (a, b) = pair(&Config::default());
    // Longer than a slot, and no multiple of anything.
    let length = 3 * SLOT_BYTES + 12_345;
    let far_bytes = vec![0_u8; length as usize];
    let far = b.host(&far_bytes);
    let (near, other) = (a.buffer(16 * MIB), a.buffer(16 * MIB));
    let bytes = pattern(1, length);
    store(0, near, &bytes);
    a.must_transfer_by(&b, Direction::Write, &[(near, far, length)], HOST_FAR);
    assert!(std::hint::black_box(&far_bytes) == &bytes);
    a.must_transfer_by(&b, Direction::Read, &[(other, far, length)], HOST_FAR);
    assert!(load(0, other, length) == bytes);
    assert_eq!(a.ascend.channels()[0].link, "HCCS");
    assert_eq!(a.ascend.staged().moved_bytes, 2 * length);
    // Nothing is kept once it is over.
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use == 0), "{:?}", b.ascend.staged());
    assert_eq!(a.ascend.staged().slots_in_use, 0);
    assert_eq!(b.ranges.holds(far), 0);
}

#[test]
fn host_memory_here_to_a_device_there_and_back() {
    let (a, b) = pair(&scarce());
    let bytes = pattern(2, MIB + 7);
    let far = b.buffer(2 * MIB);
    let back = vec![0_u8; bytes.len()];
    let length = bytes.len() as u64;
    a.must_transfer_by(&b, Direction::Write, &[(address_of(&bytes), far, length)], HOST_NEAR);
    assert!(load(1, far, length) == bytes);
    a.must_transfer_by(&b, Direction::Read, &[(address_of(&back), far, length)], HOST_NEAR);
    assert!(std::hint::black_box(&back) == &bytes);
}

#[test]
fn host_memory_at_both_ends() {
    let (a, b) = pair(&scarce());
    let (bytes, far_bytes) = (pattern(3, MIB), vec![0_u8; MIB as usize]);
    let far = b.host(&far_bytes);
    let ends = Ends { local_host: true, remote_host: true, ..STAGED };
    let blocks: Vec<_> =
        (0..MIB / 4096).map(|index| (address_of(&bytes) + index * 4096, far + index * 4096, 4096)).collect();
    a.must_transfer_by(&b, Direction::Write, &blocks, ends);
    assert!(std::hint::black_box(&far_bytes) == &bytes);
    let back = vec![0_u8; MIB as usize];
    let blocks: Vec<_> =
        (0..MIB / 4096).map(|index| (address_of(&back) + index * 4096, far + index * 4096, 4096)).collect();
    a.must_transfer_by(&b, Direction::Read, &blocks, ends);
    assert!(std::hint::black_box(&back) == &bytes);
}

#[test]
fn small_ranges_that_hccs_does_not_take_go_by_slots_at_either_end() {
    let (a, b) = pair(&Config::default());
    // Small allocations do not lie on large pages; the first one moves the second off the border.
    let small = |node: &Node| {
        allocate(node.device, 64 << 10);
        let address = allocate(node.device, 64 << 10);
        assert_ne!(address % (2 * MIB), 0);
        node.register(address, 64 << 10);
        address
    };
    let (near, far) = (small(&a), small(&b));
    let (large_near, large_far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let bytes = pattern(4, 64 << 10);
    store(0, near, &bytes);
    // Uneven blocks that do not join.
    let blocks = |near: u64, far: u64| -> Vec<(u64, u64, u64)> {
        (0..63).map(|index| (near + index * 1031, far + (62 - index) * 1031, 1029)).collect()
    };
    for (from, to, direct) in [(near, far, 0), (near, large_far, 1), (large_near, far, 2)] {
        let before = a.ascend.staged().requests;
        store(0, from, &bytes);
        a.must_transfer(&b, Direction::Write, &blocks(from, to));
        let seen = load(1, to, 64 << 10);
        for (_, remote, length) in blocks(from, to) {
            let index = 62 - (remote - to) / 1031;
            let (here, there) = ((index * 1031) as usize, (remote - to) as usize);
            assert!(seen[there..there + length as usize] == bytes[here..here + length as usize], "{direct}");
        }
        assert_eq!(a.ascend.staged().requests, before + 1, "{direct}");
    }
    // What the link takes goes direct as before, over the same channel.
    let (before, channel) = (a.ascend.staged().requests, a.ascend.channels()[0].name.clone());
    a.must_transfer(&b, Direction::Write, &[(large_near, large_far, MIB)]);
    assert_eq!(a.ascend.staged().requests, before);
    assert_eq!(a.ascend.channels()[0].name, channel);
}

#[test]
fn memory_that_will_be_staged_costs_one_channel_only() {
    let (a, b) = pair(&scarce());
    let small = |node: &Node| {
        allocate(node.device, 8192);
        let address = allocate(node.device, 8192);
        node.register(address, 8192);
        address
    };
    let (near, far) = (small(&a), small(&b));
    let (large_near, large_far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(large_near, large_far, MIB)]);
    let channel = a.ascend.channels()[0].name.clone();
    a.must_transfer(&b, Direction::Write, &[(near, far, 8192)]);
    assert_eq!(a.ascend.staged().requests, 1);
    assert_eq!(a.ascend.channels()[0].name, channel, "another channel was made");
}

#[test]
fn memory_nobody_registered_here_is_gathered() {
    let (a, b) = pair(&scarce());
    let near = allocate(0, MIB);
    let far = b.buffer(2 * MIB);
    let bytes = pattern(5, MIB);
    store(0, near, &bytes);
    a.must_transfer_by(&b, Direction::Write, &[(near, far, MIB)], STAGED);
    assert!(load(1, far, MIB) == bytes);
    store(0, near, &pattern(6, MIB));
    a.must_transfer_by(&b, Direction::Read, &[(near, far, MIB)], STAGED);
    assert!(load(0, near, MIB) == bytes);
}

#[test]
fn keys_of_a_model_in_one_batch() {
    let (a, b) = pair(&Config::default());
    // 78 keys of 56 buffers each, scattered at both ends.
    let count = 78 * 56;
    let (near, far) = (a.buffer(48 * MIB), b.buffer(48 * MIB));
    let bytes = pattern(7, count * 8192);
    store(0, near, &bytes);
    let blocks: Vec<_> = (0..count)
        .map(|index| (near + index * 8192, far + (index * 1009 % count) * 8192, 8192 - index % 3))
        .collect();
    a.must_transfer_by(&b, Direction::Write, &blocks, STAGED);
    let seen = load(1, far, count * 8192);
    for (index, (_, remote, length)) in blocks.iter().enumerate() {
        let (here, there) = (index * 8192, (remote - far) as usize);
        let length = *length as usize;
        assert!(seen[there..there + length] == bytes[here..here + length], "block {index}");
    }
}

#[test]
fn small_blocks_are_gathered_when_that_is_allowed_and_otherwise_not() {
    for allowed in [false, true] {
        let (a, b, _directory) =
            roce_pair(&Config { ascend_aggregate: allowed, both_ends: false, ..Config::default() });
        let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
        let bytes = pattern(8, 2 * MIB);
        store(0, near, &bytes);
        let blocks: Vec<_> =
            (0..256).map(|index| (near + index * 4096, far + (255 - index) * 4096, 4096)).collect();
        // The first makes the channel, so that it is known what the link costs.
        a.must_transfer(&b, Direction::Write, &[(near, far, 64)]);
        a.must_transfer(&b, Direction::Write, &blocks);
        assert_eq!(a.ascend.staged().requests, u64::from(allowed));
        assert_eq!(a.ascend.channels()[0].link, "RoCE");
        let seen = load(1, far, MIB);
        assert!((0..256).all(|index| seen[(255 - index) * 4096] == bytes[index * 4096]));
    }
}

#[test]
fn of_mixed_lengths_the_short_ones_are_gathered() {
    // Copies on the device are dear by the byte, so that long blocks are not worth a slot.
    let directory = tempfile::TempDir::new().unwrap();
    let table = directory.path().join("costs");
    std::fs::write(&table, "a2-roce device_copy_gb_per_s 2 for a test\n").unwrap();
    let config =
        Config { ascend_aggregate: true, both_ends: false, cost_table: Some(table), ..Config::default() };
    let (a, b, _directory) = roce_pair(&config);
    let (near, far) = (a.buffer(48 * MIB), b.buffer(48 * MIB));
    let bytes = pattern(9, 48 * MIB);
    store(0, near, &bytes);
    // Long and short in turn, apart from each other.
    let mut blocks = Vec::new();
    for index in 0..16 {
        blocks.push((near + index * 3 * MIB, far + index * 3 * MIB, 2 * MIB));
        for small in 0..16 {
            let at = index * 3 * MIB + 2 * MIB + small * 40_000;
            blocks.push((near + at, far + at, 16_000));
        }
    }
    a.must_transfer(&b, Direction::Write, &[(near, far, 64)]);
    a.must_transfer(&b, Direction::Write, &blocks);
    let staged = a.ascend.staged();
    assert_eq!((staged.requests, staged.moved_bytes), (1, 256 * 16_000), "only the short ones");
    let seen = load(1, far, 48 * MIB);
    for (local, _, length) in blocks {
        let (at, length) = ((local - near) as usize, length as usize);
        assert!(seen[at..at + length] == bytes[at..at + length], "block at {at}");
    }
}

#[test]
fn both_directions_of_both_sides_at_once_with_few_slots() {
    let (a, b) = pair(&scarce());
    let fill = |node: &Node, seed| {
        let address = node.buffer(8 * MIB);
        store(node.device, address, &pattern(seed, 4 * MIB));
        address
    };
    let (near, far) = (fill(&a, 10), fill(&b, 11));
    std::thread::scope(|scope| {
        scope.spawn(|| a.must_transfer_by(&b, Direction::Write, &[(near, far + 4 * MIB, 4 * MIB)], STAGED));
        scope.spawn(|| b.must_transfer_by(&a, Direction::Write, &[(far, near + 4 * MIB, 4 * MIB)], STAGED));
    });
    assert!(load(1, far + 4 * MIB, 4 * MIB) == pattern(10, 4 * MIB));
    assert!(load(0, near + 4 * MIB, 4 * MIB) == pattern(11, 4 * MIB));
}

/// A pool longer than an old driver registers is served: only the rings are registered.
#[test]
fn a_pool_of_30_gb_where_the_driver_registers_20() {
    let limit = [("CANN_SIM_HOST_REGISTRATION_LIMIT", "20G")];
    if !inside("a_pool_of_30_gb_where_the_driver_registers_20", &limit) {
        return;
    }
    let (a, b, _directory) = roce_pair(&Config::default());
    let near = a.buffer(4 * MIB);
    // Sparse: the kernel gives pages where something is written.
    let pool = SharedMemory::allocate(30 << 30, HugePages::No).unwrap();
    let range = pool.range();
    // Such a pool cannot be registered with the driver.
    assert!(b.ascend.register(range, MemoryKind::Host, 1).unwrap());
    let ends = Ends { remote_host: true, ..Ends::default() };
    let (outcome, error) = a.transfer_by(&b, Direction::Write, &[(near, range.start(), MIB)], ends);
    assert!(!outcome.is_success(), "the posed driver has no limit");
    let error = error.unwrap().to_string();
    assert!(error.contains("takes no more host memory"), "it failed for another reason: {error}");
    b.ascend.unregister(range, 1, soon()).unwrap();
    b.ranges.add(range, MemoryKind::Host);
    let bytes = pattern(12, 3 * MIB);
    store(0, near, &bytes);
    let places = [0, 15 << 30, (30 << 30) - MIB];
    let blocks: Vec<_> =
        (0..).zip(places).map(|(index, place)| (near + index * MIB, range.start() + place, MIB)).collect();
    a.must_transfer_by(&b, Direction::Write, &blocks, HOST_FAR);
    for (index, place) in (0..).zip(places) {
        let mut seen = vec![0; MIB as usize];
        pool.read(place, &mut seen).unwrap();
        let from = (index * MIB) as usize;
        assert!(seen == bytes[from..from + MIB as usize], "at {place}");
    }
    store(0, near, &vec![0; 3 * MIB as usize]);
    a.must_transfer_by(&b, Direction::Read, &blocks, HOST_FAR);
    assert!(load(0, near, 3 * MIB) == bytes);
}

#[test]
fn slots_of_different_lengths_at_both_ends() {
    let (a, b) = (node(0), node_with(1, &scarce(), false));
    let (near, far) = (a.buffer(8 * MIB), b.buffer(8 * MIB));
    let bytes = pattern(14, 5 * MIB + 77);
    store(0, near, &bytes);
    let blocks = [(near, far + 3, MIB + 1), (near + MIB + 1, far + MIB + 4, 4 * MIB + 76)];
    a.must_transfer_by(&b, Direction::Write, &blocks, STAGED);
    assert!(load(1, far + 3, 5 * MIB + 77) == bytes);
    store(0, near, &vec![0; 5 * MIB as usize + 77]);
    a.must_transfer_by(&b, Direction::Read, &blocks, STAGED);
    assert!(load(0, near, 5 * MIB + 77) == bytes);
    b.must_transfer_by(&a, Direction::Read, &[(far, near, 5 * MIB + 77)], STAGED);
    assert!(load(1, far, 5 * MIB + 77) == bytes);
}

#[test]
fn without_slots_it_is_refused_with_a_word_what_to_do() {
    let none = Config { staged_slots: 0, ..Config::default() };
    let (a, b) = (node_with(0, &none, false), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let (_, refused) = a.start_by(&b, Direction::Write, &[(near, far, 64)], soon(), STAGED);
    let error = refused.unwrap_err();
    assert_eq!(error.code(), Code::NotSupportedTransport);
    assert!(error.to_string().contains("MOONCAKE_TRANSFER_STAGED_SLOTS"), "{error}");
    // Neither does it lend any.
    let (_, error) = b.transfer_by(&a, Direction::Write, &[(far, near, 64)], STAGED);
    assert_eq!(error.unwrap().code(), Code::NotSupportedTransport);
}

#[test]
fn a_peer_without_an_agent_is_named() {
    let (a, b) = (node(0), old_node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let (_, error) = a.transfer_by(&b, Direction::Write, &[(near, far, 64)], STAGED);
    let error = error.unwrap();
    assert_eq!(error.code(), Code::NotSupportedTransport);
    assert!(error.to_string().contains("no relay agent"), "{error}");
    assert!(error.record().peer.is_some() && error.record().advice.is_some(), "{error}");
    // What needs no agent goes as before.
    a.must_transfer(&b, Direction::Write, &[(near, far, MIB)]);
}

/// A peer that asks for slots by hand.
struct Borrower {
    connection: std::sync::Arc<mooncake::control::Connection>,
    grant: SlotGrant,
}

impl Borrower {
    fn new(from: &Node, to: &Node) -> Self {
        let connection = from.connect(to);
        let open = Message::OpenSlot { protocol: STAGED_PROTOCOL, device: -1, wait_ms: 1000 };
        let Message::SlotGranted(grant) = connection.request(open, soon()).unwrap() else { panic!() };
        Self { connection, grant }
    }

    fn ask(&self, slot: u32, sequence: u64, blocks: Vec<(u64, u64)>) -> mooncake::error::Result<Message> {
        let order =
            SlotMove { device: self.grant.device, slot, sequence, gather: false, blocks, timeout_ms: 10_000 };
        self.connection.request(Message::MoveSlot(order), soon())
    }
}

#[test]
fn the_agent_refuses_wild_addresses() {
    let (a, b) = pair(&scarce());
    let far = b.buffer(2 * MIB);
    let stray = allocate(1, 4096);
    for blocks in [
        vec![(stray, 64)],
        vec![(far - 1, 2)],
        vec![(far + 2 * MIB - 1, 2)],
        vec![(far, 64), (8, 8)],
        vec![(u64::MAX, 2)],
        vec![(far, 0)],
        vec![],
        vec![(far, (64 << 10) + 1)],
        vec![(far, 1); 2049],
    ] {
        let borrower = Borrower::new(&a, &b);
        let SlotGrant { slot, sequence, .. } = borrower.grant;
        let error = borrower.ask(slot, sequence, blocks.clone()).unwrap_err();
        assert!(
            matches!(error.code(), Code::AddressNotRegistered | Code::InvalidArgument),
            "{blocks:?}: {error}"
        );
        // The slot is gone with the refusal, and nothing is held.
        assert_eq!(borrower.ask(slot, sequence, vec![(far, 1)]).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!((b.ranges.holds(far), b.ascend.staged().slots_in_use), (0, 0));
    }
    assert!(load(1, stray, 64) != vec![1; 64]);
}

#[test]
fn the_agent_refuses_foreign_slots_and_stale_numbers() {
    let (a, b) = pair(&scarce());
    let c = node_with(2, &scarce(), false);
    let far = b.buffer(2 * MIB);
    let (mine, theirs) = (Borrower::new(&a, &b), Borrower::new(&c, &b));
    assert_ne!(mine.grant.slot, theirs.grant.slot);
    let block = || vec![(far, 8)];
    for (slot, sequence) in [
        (theirs.grant.slot, theirs.grant.sequence),
        (mine.grant.slot, mine.grant.sequence + 1),
        (mine.grant.slot, mine.grant.sequence - 1),
        (99, 1),
    ] {
        assert_eq!(mine.ask(slot, sequence, block()).unwrap_err().code(), Code::InvalidArgument);
        let which = SlotUse { device: 1, slot, sequence };
        for message in [Message::ReleaseSlot(which), Message::StopSlot(which)] {
            let error = mine.connection.request(message, soon()).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
        }
    }
    let Message::SlotMoved { sequence, .. } =
        mine.ask(mine.grant.slot, mine.grant.sequence, block()).unwrap()
    else {
        panic!()
    };
    // A number is used once.
    let again = mine.ask(mine.grant.slot, mine.grant.sequence, block());
    assert_eq!(again.unwrap_err().code(), Code::InvalidArgument);
    let which = SlotUse { device: 1, slot: mine.grant.slot, sequence };
    mine.connection.request(Message::ReleaseSlot(which), soon()).unwrap();
    assert_eq!(mine.ask(mine.grant.slot, sequence, block()).unwrap_err().code(), Code::InvalidArgument);
    assert!(matches!(
        theirs.ask(theirs.grant.slot, theirs.grant.sequence, block()),
        Ok(Message::SlotMoved { .. })
    ));
    let wrong_device =
        SlotMove { device: 7, slot: 0, sequence: 1, gather: true, blocks: block(), timeout_ms: 1 };
    let error = mine.connection.request(Message::MoveSlot(wrong_device), soon()).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let other = Message::OpenSlot { protocol: STAGED_PROTOCOL + 1, device: -1, wait_ms: 0 };
    assert_eq!(mine.connection.request(other, soon()).unwrap_err().code(), Code::Unsupported);
}

/// What stops a request may overtake it on the way, since requests and messages are handled by different threads.
#[test]
fn a_request_that_was_stopped_before_it_came_is_not_begun() {
    let (a, b) = pair(&scarce());
    let far = b.buffer(2 * MIB);
    store(1, far, &pattern(15, 64));
    for _ in 0..3 {
        let borrower = Borrower::new(&a, &b);
        let SlotGrant { slot, sequence, .. } = borrower.grant;
        let which = SlotUse { device: 1, slot, sequence };
        borrower.connection.request(Message::StopSlot(which), soon()).unwrap();
        let error = borrower.ask(slot, sequence, vec![(far, 64)]).unwrap_err();
        assert_eq!(error.code(), Code::Cancelled, "{error}");
        assert!(load(1, far, 64) == pattern(15, 64));
        // As after every refusal the slot is the agent's again, and the next request for one is not stopped.
        assert_eq!(b.ascend.staged().slots_in_use, 0);
        let next = Borrower::new(&a, &b);
        next.ask(next.grant.slot, next.grant.sequence, vec![(far + MIB, 64)]).unwrap();
        let given_back = SlotUse { device: 1, slot: next.grant.slot, sequence: next.grant.sequence + 1 };
        next.connection.request(Message::ReleaseSlot(given_back), soon()).unwrap();
    }
}

/// Whatever a peer asks for, in whatever order: nothing but registered memory is touched, and nothing stays.
#[test]
fn a_peer_that_asks_at_random_reaches_registered_memory_only() {
    let (a, b) = pair(&Config { staged_slots: 6, ..scarce() });
    let far = b.buffer(2 * MIB);
    let secret = allocate(1, 2 * MIB);
    let bytes = pattern(13, 2 * MIB);
    store(1, secret, &bytes);
    let connection = a.connect(&b);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    };
    let mut grants: Vec<SlotGrant> = Vec::new();
    let (mut moved, mut refused) = (0, 0);
    for _ in 0..3000 {
        let known = (!grants.is_empty()).then(|| below(grants.len() as u64) as usize);
        let (slot, mut sequence) = match known {
            Some(index) if below(4) > 0 => (grants[index].slot, grants[index].sequence),
            _ => (below(8) as u32, below(40)),
        };
        if below(10) == 0 {
            sequence = sequence.wrapping_add(below(3)).wrapping_sub(1);
        }
        let which = SlotUse { device: 1, slot, sequence };
        let message = match below(8) {
            0 => Message::OpenSlot { protocol: STAGED_PROTOCOL, device: -1, wait_ms: 0 },
            1 => Message::ReleaseSlot(which),
            2 => Message::StopSlot(which),
            _ => {
                let blocks = (0..below(4))
                    .map(|_| match below(6) {
                        0 => (secret + below(2 * MIB), 1 + below(4096)),
                        1 => (below(u64::MAX), below(u64::MAX)),
                        _ => (far + below(2 * MIB), below(40_000)),
                    })
                    .collect();
                let gather = below(2) == 0;
                Message::MoveSlot(SlotMove {
                    device: 1,
                    slot,
                    sequence,
                    gather,
                    blocks,
                    timeout_ms: 1 + below(100),
                })
            }
        };
        let release = matches!(message, Message::ReleaseSlot(_));
        match connection.request(message, soon()) {
            Ok(Message::SlotGranted(grant)) => grants.push(grant),
            Ok(Message::SlotMoved { sequence: next, .. }) => {
                moved += 1;
                for grant in grants.iter_mut().filter(|grant| grant.slot == slot) {
                    grant.sequence = next;
                }
            }
            Ok(_) if release => grants.retain(|grant| grant.slot != slot),
            Ok(_) => {}
            Err(error) => {
                refused += 1;
                assert_ne!(error.code(), Code::Internal, "{error}");
            }
        }
    }
    assert!(moved > 20 && refused > 200, "{moved} moved, {refused} refused");
    assert!(load(1, secret, 2 * MIB) == bytes, "memory that nobody registered was written");
    assert_eq!(b.ranges.holds(far), 0);
    a.control.shutdown();
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use == 0), "{:?}", b.ascend.staged());
}

/// More often than the agent has threads.
#[test]
fn a_defect_costs_its_order_and_neither_slot_nor_thread() {
    let (a, b) = pair(&scarce());
    let far = b.buffer(2 * MIB);
    let connection = a.connect(&b);
    for _ in 0..10 {
        b.ranges.set_defect(true);
        let borrower = Borrower::new(&a, &b);
        let SlotGrant { slot, sequence, .. } = borrower.grant;
        assert_eq!(borrower.ask(slot, sequence, vec![(far, 64)]).unwrap_err().code(), Code::Internal);
        assert_eq!(b.ascend.staged().slots_in_use, 0);
        let order = DirectMove {
            device: 1,
            channel: String::new(),
            number: 1,
            put: true,
            blocks: vec![(far, far, 64)],
            timeout_ms: 1000,
        };
        let error = connection.request(Message::MoveDirect(order), soon()).unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        b.ranges.set_defect(false);
    }
    let near = a.buffer(2 * MIB);
    a.must_transfer_by(&b, Direction::Write, &[(near, far, MIB)], STAGED);
    b.ascend.shutdown(soon()).unwrap();
}

#[test]
fn one_peer_does_not_get_all_slots() {
    let (a, b) = pair(&Config { staged_slots: 4, ..scarce() });
    let c = node_with(2, &scarce(), false);
    let first = [Borrower::new(&a, &b), Borrower::new(&a, &b)];
    let open = Message::OpenSlot { protocol: STAGED_PROTOCOL, device: -1, wait_ms: 50 };
    assert_eq!(first[0].connection.request(open, soon()).unwrap_err().code(), Code::Busy);
    let _other = Borrower::new(&c, &b);
    assert_eq!(b.ascend.staged().slots_in_use, 3);
}

#[test]
fn the_slots_of_a_lost_peer_are_lent_again() {
    let (a, b) = pair(&scarce());
    let far = b.buffer(2 * MIB);
    let near = a.buffer(2 * MIB);
    a.must_transfer_by(&b, Direction::Write, &[(near, far, MIB)], STAGED);
    let _held = Borrower::new(&a, &b);
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use == 1));
    a.control.shutdown();
    let c = node_with(2, &scarce(), false);
    assert!(
        wait_until(LONG, || b.ascend.staged().slots_in_use == 0 && b.ascend.staged().slots_held_back == 0),
        "{:?}",
        b.ascend.staged()
    );
    let near = c.buffer(2 * MIB);
    c.must_transfer_by(&b, Direction::Write, &[(near, far, 2 * MIB)], STAGED);
}

/// Nobody finds a peer silent that is held up.
fn patient(config: Config) -> Config {
    Config {
        control_ping_interval: std::time::Duration::from_secs(600),
        control_silence_limit: std::time::Duration::from_secs(1800),
        ..config
    }
}

#[test]
fn a_slot_that_is_granted_while_nothing_has_room_is_not_lost() {
    let (a, b) = pair(&patient(scarce()));
    let detour = a.connect_by_detour(&b);
    let connection = a.connect(&b);
    detour.hold(Way::Back);
    let back = b.control.connection(&a.incarnation).unwrap();
    fill(&back);
    let open = Message::OpenSlot { protocol: STAGED_PROTOCOL, device: -1, wait_ms: 1000 };
    let pending = connection.ask(&open).unwrap();
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use == 1));
    detour.let_go(Way::Back);
    let answer = pending.wait(soon()).unwrap();
    let Some(Message::SlotGranted(SlotGrant { device, slot, sequence, .. })) = answer else {
        panic!("{answer:?}, and the slot is lent")
    };
    let which = SlotUse { device, slot, sequence };
    connection.request(Message::ReleaseSlot(which), soon()).unwrap();
    assert_eq!(b.ascend.staged().slots_in_use, 0);
}

#[test]
fn a_slot_that_cannot_be_given_back_just_now_is_given_back_later() {
    let one = patient(Config { staged_slots: 1, ..scarce() });
    let (a, b) = pair(&one);
    let c = node_with(2, &one, false);
    let (to_b, to_c) = (a.connect_by_detour(&b), a.connect_by_detour(&c));
    let (near, far, other) = (a.buffer(2 * MIB), b.buffer(2 * MIB), c.buffer(2 * MIB));
    // What is needed is there, so that the rest is about slots only.
    for (node, remote) in [(&b, far), (&c, other)] {
        a.must_transfer_by(node, Direction::Write, &[(near, remote, MIB)], STAGED);
    }
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use + c.ascend.staged().slots_in_use == 0));
    // One that gets no answer any more keeps the only slot of this side.
    let write = |node: &Node, remote| {
        let (batch, submitted) =
            a.start_by(node, Direction::Write, &vec![(near, remote, 2 * MIB); 200], soon(), STAGED);
        submitted.unwrap();
        batch
    };
    let held_up = write(&c, other);
    let keeps = || {
        to_c.hold(Way::Back);
        let keeps = stands_still(&a);
        if !keeps {
            to_c.let_go(Way::Back);
        }
        keeps
    };
    assert!(wait_until(LONG, keeps), "{:?}", a.ascend.staged());
    // The other has its slot at the peer, and waits.
    let waits = write(&b, far);
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use == 1));
    to_b.hold(Way::There);
    let connection = a.connect(&b);
    fill(&connection);
    waits.stop(Stop::Cancelled);
    assert!(!finished(&waits).0.is_success());
    // Time to have tried; not needed to pass.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(b.ascend.staged().slots_in_use, 1);
    to_b.let_go(Way::There);
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use == 0), "{:?}", b.ascend.staged());
    assert!(connection.is_alive());
    to_c.let_go(Way::Back);
    held_up.stop(Stop::Cancelled);
    finished(&held_up);
    a.must_transfer_by(&b, Direction::Write, &[(near, far, MIB)], STAGED);
    for node in [&a, &b, &c] {
        assert!(wait_until(LONG, || node.ascend.staged().slots_in_use == 0), "{:?}", node.ascend.staged());
    }
}

/// Whether a slot of the node is in use all the time, and nothing moves.
fn stands_still(node: &Node) -> bool {
    let before = node.ascend.staged();
    (0..200).all(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        let now = node.ascend.staged();
        now.slots_in_use > 0 && now.moved_bytes == before.moved_bytes
    })
}

#[test]
fn a_cancelled_transfer_leaves_nothing_behind() {
    let (a, b) = pair(&scarce());
    let (near, far) = (a.buffer(16 * MIB), b.buffer(16 * MIB));
    for round in 0..20_u64 {
        let bytes = pattern(round, 16 * MIB);
        if round == 0 {
            store(0, near, &bytes);
        }
        let blocks: Vec<_> = (0..16).map(|index| (near + index * MIB, far + index * MIB, MIB - 64)).collect();
        let (batch, submitted) = a.start_by(&b, Direction::Write, &blocks, soon(), STAGED);
        submitted.unwrap();
        std::thread::sleep(std::time::Duration::from_micros(round * 200));
        batch.stop(Stop::Cancelled);
        let (outcome, _) = finished(&batch);
        // What was told as over is quiet: what stands there now stays.
        let seen = load(1, far, 16 * MIB);
        assert_eq!(b.ranges.holds(far), 0, "{outcome:?}");
        store(0, near, &vec![round as u8; 16 * MIB as usize]);
        assert!(load(1, far, 16 * MIB) == seen, "round {round}: {outcome:?}");
    }
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use == 0), "{:?}", b.ascend.staged());
    assert_eq!(a.ascend.staged().slots_in_use, 0);
}

#[test]
fn a_deadline_ends_it() {
    let (a, b) = pair(&scarce());
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let blocks = vec![(near, far, 2 * MIB); 2000];
    let deadline = Deadline::after(std::time::Duration::from_millis(300));
    let (batch, submitted) = a.start_by(&b, Direction::Write, &blocks, deadline, STAGED);
    submitted.unwrap();
    let (outcome, error) = finished(&batch);
    assert!(outcome.failed > 0);
    assert_eq!(error.unwrap().code(), Code::Timeout);
    assert_eq!(b.ranges.holds(far), 0);
    a.must_transfer_by(&b, Direction::Write, &[(near, far, MIB)], STAGED);
}

#[test]
fn shutting_down_in_the_middle_gives_the_memory_back() {
    let (a, b) = pair(&scarce());
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let (batch, submitted) =
        a.start_by(&b, Direction::Write, &vec![(near, far, 2 * MIB); 2000], soon(), STAGED);
    submitted.unwrap();
    assert!(wait_until(LONG, || a.ascend.staged().moved_bytes > 0));
    b.ascend.shutdown(soon()).unwrap();
    let (outcome, error) = finished(&batch);
    assert!(!outcome.is_success() && error.is_some());
    a.ascend.shutdown(soon()).unwrap();
    assert_eq!(a.ascend.staged().slots_in_use, 0);
}

//! Transfers between the NPU transports of two engines: what arrives, what is refused, what ends when.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod ascend_pair;

use std::time::{Duration, Instant};

use ascend_pair::*;
use mooncake::batch::Stop;
use mooncake::config::Config;
use mooncake::control::{ChannelKey, ChannelOffer, Message, RankDevice, Region, RegionKind};
use mooncake::deadline::Deadline;
use mooncake::error::Code;
use mooncake::memory::{ByteRange, MemoryKind};
use mooncake::plan::Direction;
use mooncake_test_support::wait_until;

#[test]
fn writes_and_reads_arrive() {
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(4 * MIB), b.buffer(4 * MIB));
    let bytes = pattern(1, MIB);
    store(0, near, &bytes);
    a.must_transfer(
        &b,
        Direction::Write,
        &[(near, far + 512, MIB - 100), (near + MIB - 100, far + 512 + MIB - 100, 100)],
    );
    assert!(load(1, far + 512, MIB) == bytes);
    a.must_transfer(&b, Direction::Read, &[(near + 2 * MIB + 7, far + 512, MIB)]);
    assert!(load(0, near + 2 * MIB + 7, MIB) == bytes);
    assert_eq!(a.ascend.channels().len(), 1);
    assert_eq!(a.ascend.channels()[0].link, "HCCS");
    // The other side transfers over the same channel.
    b.must_transfer(&a, Direction::Write, &[(far + 512, near, MIB)]);
    assert_eq!(a.ascend.channels().len(), 1);
    assert_eq!(a.ascend.channels()[0].name, b.ascend.channels()[0].name);
}

#[test]
fn ten_thousand_blocks_in_one_batch() {
    let (a, b) = (node(0), node(2));
    let (near, far) = (a.buffer(40 * MIB), b.buffer(40 * MIB));
    let bytes = pattern(2, 40 * MIB);
    store(0, near, &bytes);
    // Scattered: the far side in reverse order.
    let blocks: Vec<_> =
        (0..10_000).map(|index| (near + index * 4096, far + (9_999 - index) * 4096, 4096)).collect();
    a.must_transfer(&b, Direction::Write, &blocks);
    let seen = load(2, far, 10_000 * 4096);
    for index in 0..10_000_usize {
        let back = 9_999 - index;
        assert!(
            seen[back * 4096..(back + 1) * 4096] == bytes[index * 4096..(index + 1) * 4096],
            "block {index}"
        );
    }
}

#[test]
fn a_block_longer_than_a_descriptor_is_split() {
    let (a, b) = (node(0), node(3));
    let length = 300 * MIB + 12_345;
    let (near, far) = (a.buffer(302 * MIB), b.buffer(302 * MIB));
    let bytes = pattern(3, length);
    store(0, near, &bytes);
    a.must_transfer(&b, Direction::Write, &[(near, far, length)]);
    assert!(load(3, far, length) == bytes);
    a.release(near, 302 * MIB);
    b.release(far, 302 * MIB);
}

#[test]
fn crossing_opens_end_with_one_channel() {
    for _ in 0..5 {
        let (a, b) = (node(4), node(5));
        let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
        let (one, two) = (pattern(4, 1000), pattern(5, 1000));
        store(4, near, &one);
        store(5, far, &two);
        std::thread::scope(|scope| {
            scope.spawn(|| a.must_transfer(&b, Direction::Write, &[(near, far + MIB, 1000)]));
            scope.spawn(|| b.must_transfer(&a, Direction::Write, &[(far, near + MIB, 1000)]));
        });
        assert!(load(5, far + MIB, 1000) == one);
        assert!(load(4, near + MIB, 1000) == two);
        let one = wait_until(LONG, || {
            let (left, right) = (a.ascend.channels(), b.ascend.channels());
            left.len() == 1 && right.len() == 1 && left[0].name == right[0].name
        });
        assert!(one, "{:#?} {:#?}", a.ascend.channels(), b.ascend.channels());
    }
}

#[test]
fn memory_registered_later_is_reached_by_a_new_generation() {
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, 4096)]);
    let first = a.ascend.channels()[0].name.clone();
    let (newer_far, newer_near) = (b.buffer(4 * MIB), a.buffer(4 * MIB));
    let bytes = pattern(6, 3 * MIB);
    store(0, newer_near, &bytes);
    a.must_transfer(&b, Direction::Write, &[(newer_near, newer_far, 3 * MIB)]);
    assert!(load(1, newer_far, 3 * MIB) == bytes);
    let channels = a.ascend.channels();
    assert_eq!(channels.len(), 1);
    assert_ne!(channels[0].name, first);
    // The new one serves the old memory, too.
    a.must_transfer(&b, Direction::Read, &[(near, far, 4096)]);
    assert_eq!(a.ascend.channels()[0].name, channels[0].name);
}

#[test]
fn memory_nobody_registered_is_refused_with_its_address() {
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let (outcome, error) =
        a.transfer(&b, Direction::Write, &[(near, far, 10), (near, far + 2 * MIB - 5, 10)]);
    assert_eq!(outcome.failed, 2);
    let error = error.unwrap();
    assert_eq!(error.code(), Code::AddressNotRegistered, "{error}");
    assert_eq!(error.record().range, Some((far + 2 * MIB, 5)), "{error}");
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
}

#[test]
fn unregistering_ends_channels_and_only_those() {
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let other = b.buffer(2 * MIB);
    a.must_transfer(&b, Direction::Write, &[(near, far, 4096), (near, other, 4096)]);
    let first = a.ascend.channels()[0].name.clone();
    b.unregister(other, 2 * MIB).unwrap();
    assert!(
        wait_until(LONG, || { a.ascend.channels().iter().all(|channel| channel.name != first) }),
        "the channel to be given up on the other side"
    );
    free(1, other);
    a.must_transfer(&b, Direction::Write, &[(near, far, 4096)]);
    let (_, error) = a.transfer(&b, Direction::Write, &[(near, other, 4096)]);
    assert_eq!(error.unwrap().code(), Code::AddressNotRegistered);
    // Unknown to the transport is no error; the engine's registry says it.
    b.unregister(other, 2 * MIB).unwrap();
}

#[test]
fn registrations_share_pages() {
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), allocate(1, 4 * MIB));
    // Two halves of one page, and a range across two pages.
    b.register(far, MIB);
    b.register(far + MIB, MIB + 512);
    let bytes = pattern(7, 2 * MIB);
    store(0, near, &bytes);
    a.must_transfer(&b, Direction::Write, &[(near, far + 512, 2 * MIB - 512)]);
    assert!(load(1, far + 512, 2 * MIB - 512) == bytes[..2 * MIB as usize - 512]);
    b.unregister(far, MIB).unwrap();
    a.must_transfer(&b, Direction::Write, &[(near, far + MIB, MIB + 512)]);
    b.unregister(far + MIB, MIB + 512).unwrap();
    let (_, error) = a.transfer(&b, Direction::Write, &[(near, far + MIB, 512)]);
    assert_eq!(error.unwrap().code(), Code::AddressNotRegistered);
}

#[test]
fn memory_no_link_takes_fails_at_registration_when_nothing_is_staged() {
    let a = node_with(0, &Config { staged_slots: 0, ..Config::default() }, false);
    let small = allocate(0, 8192);
    let range = ByteRange::new(small, 8192).unwrap();
    let error = a.ascend.register(range, MemoryKind::Device(0), 0).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("{small:#x}")) && text.contains("2097152"), "{text}");
    // Host memory is no error: it goes by other ways.
    let bytes = vec![0_u8; 4096];
    let range = ByteRange::new(address_of(&bytes), 4096).unwrap();
    assert!(!a.ascend.register(range, MemoryKind::Host, 0).unwrap());
    assert_eq!(a.ascend.classify(address_of(&bytes)).unwrap(), MemoryKind::Host);
    assert_eq!(a.ascend.classify(small).unwrap(), MemoryKind::Device(0));
    free(0, small);
}

#[test]
fn four_by_four() {
    let left: Vec<Node> = (0..4).map(node).collect();
    let right: Vec<Node> = (4..8).map(node).collect();
    let near: Vec<u64> = left.iter().map(|node| node.buffer(8 * MIB)).collect();
    let far: Vec<u64> = right.iter().map(|node| node.buffer(8 * MIB)).collect();
    for (node, address) in left.iter().zip(&near) {
        store(node.device, *address, &pattern(u64::try_from(node.device).unwrap(), 4 * MIB));
    }
    std::thread::scope(|scope| {
        for (from, local) in left.iter().zip(&near) {
            let (right, far) = (&right, &far);
            scope.spawn(move || {
                for (to, remote) in right.iter().zip(far) {
                    let offset = u64::try_from(from.device).unwrap() * MIB;
                    from.must_transfer(to, Direction::Write, &[(*local, remote + offset, MIB)]);
                    from.must_transfer(
                        to,
                        Direction::Read,
                        &[(local + 4 * MIB + offset, remote + offset, MIB)],
                    );
                }
            });
        }
    });
    for (to, remote) in right.iter().zip(&far) {
        for from in &left {
            let device = u64::try_from(from.device).unwrap();
            assert!(load(to.device, remote + device * MIB, MIB) == pattern(device, MIB));
        }
    }
}

#[test]
fn one_device_is_not_connected_to_itself() {
    let (a, b) = (node(6), node(6));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let (_, error) = a.transfer(&b, Direction::Write, &[(near, far, 10)]);
    let error = error.unwrap();
    assert_eq!(error.code(), Code::Unsupported, "{error}");
    assert!(error.to_string().contains("NPU 6"), "{error}");
}

#[test]
fn a_peer_that_does_not_answer_costs_no_more_than_the_deadline() {
    let (a, b) = (node(0), node_with(1, &Config::default(), true));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let begun = Instant::now();
    let (batch, submitted) =
        a.start(&b, Direction::Write, &[(near, far, 10)], Deadline::after(Duration::from_millis(300)));
    submitted.unwrap();
    let (outcome, error) = finished(&batch);
    let took = begun.elapsed();
    assert_eq!(outcome.failed, 1);
    assert_eq!(error.as_ref().unwrap().code(), Code::Timeout, "{error:?}");
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
    // Others are not delayed.
    let c = node(2);
    let there = c.buffer(2 * MIB);
    a.must_transfer(&c, Direction::Write, &[(near, there, 10)]);
}

#[test]
fn a_lost_peer_fails_what_waits_and_comes_back() {
    let a = node(0);
    let near = a.buffer(2 * MIB);
    for _ in 0..2 {
        let b = node(1);
        let far = b.buffer(2 * MIB);
        a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
        b.control.shutdown();
        drop(b);
        assert!(wait_until(LONG, || a.ascend.channels().is_empty()), "the channel to go with the peer");
    }
}

#[test]
fn shutdown_cancels_and_gives_memory_back() {
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
    let connection = a.connect(&b);
    a.ascend.shutdown(soon()).unwrap();
    assert!(a.ascend.channels().is_empty());
    let (batch, submitted) = a.start(&b, Direction::Write, &[(near, far, 10)], soon());
    assert_eq!(submitted.unwrap_err().code(), Code::StaleHandle);
    assert!(a.ascend.devices().is_empty());
    assert_eq!(finished(&batch).0.failed, 1);
    drop(connection);
    free(0, near);
}

#[test]
fn withdrawn_memory_is_not_touched_again() {
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
    let taken = ByteRange::new(far + MIB, 4096).unwrap();
    a.ascend.withdraw(&b.incarnation, &[taken], soon()).unwrap();
    // Next to it all is well, on the same channel.
    let name = a.ascend.channels()[0].name.clone();
    a.must_transfer(&b, Direction::Write, &[(near, far + MIB - 100, 100), (near, far + MIB + 4096, 100)]);
    assert_eq!(a.ascend.channels()[0].name, name);
}

#[test]
fn a_deadline_leaves_nothing_running_and_harms_nobody_else() {
    let (a, b) = (node(2), node(3));
    let (near, far) = (a.buffer(256 * MIB), b.buffer(256 * MIB));
    let (other_near, other_far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let bytes = pattern(8, MIB);
    store(2, other_near, &bytes);
    // Once over all of it, so that no page is touched for the first time in what follows.
    a.must_transfer(&b, Direction::Write, &[(near, far, 256 * MIB)]);
    let begun = Instant::now();
    let (long, submitted) =
        a.start(&b, Direction::Write, &endless(near, far), Deadline::after(Duration::from_secs(1)));
    submitted.unwrap();
    let (short, submitted) = a.start(&b, Direction::Write, &[(other_near, other_far, MIB)], soon());
    submitted.unwrap();
    let (outcome, error) = finished(&long);
    assert!(outcome.failed > 0 && outcome.failed < 200, "{outcome:?}");
    assert_eq!(error.as_ref().unwrap().code(), Code::Timeout, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    // The memory is the caller's again.
    let mine = pattern(9, 256 * MIB);
    store(3, far, &mine);
    let (outcome, error) = finished(&short);
    assert!(outcome.is_success(), "{error:?}");
    assert!(load(3, other_far, MIB) == bytes);
    assert!(load(3, far, 256 * MIB) == mine, "something still wrote");
    a.release(near, 256 * MIB);
    b.release(far, 256 * MIB);
}

#[test]
fn a_cancel_is_prompt() {
    let (a, b) = (node(4), node(5));
    let (near, far) = (a.buffer(256 * MIB), b.buffer(256 * MIB));
    let (batch, submitted) = a.start(&b, Direction::Read, &endless(near, far), soon());
    submitted.unwrap();
    assert!(wait_until(LONG, || batch.progress().completed > 0), "the transfer to begin");
    let begun = Instant::now();
    batch.stop(Stop::Cancelled);
    let (outcome, error) = finished(&batch);
    assert!(outcome.failed > 0, "{outcome:?}");
    assert_eq!(error.unwrap().code(), Code::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    a.must_transfer(&b, Direction::Read, &[(near, far, 4096)]);
    a.release(near, 256 * MIB);
    b.release(far, 256 * MIB);
}

/// An offer as the other side would make it.
fn offer(from: &Node, to: &Node, name: &str) -> ChannelOffer {
    let ends = if from.incarnation.id < to.incarnation.id { [from, to] } else { [to, from] };
    ChannelOffer {
        channel: name.to_owned(),
        key: ChannelKey {
            lower: ends[0].incarnation.hex(),
            lower_device: ends[0].device,
            higher: ends[1].incarnation.hex(),
            higher_device: ends[1].device,
        },
        generation: (1, 0),
        attempt: 2,
        rank: RankDevice {
            server_id: "elsewhere".into(),
            device_id: 0,
            device_ip: Some("29.1.0.1".into()),
            super_device_id: None,
            super_pod_id: None,
            device_port: None,
            version: "1.0".into(),
            families: Vec::new(),
        },
        regions: Vec::new(),
        target_device: to.device,
        timeout_ms: 1000,
    }
}

#[test]
fn offers_that_make_no_sense_are_refused() {
    let (a, b) = (node(6), node(7));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let own = a.connect(&b).peer().clone();
    let server = RankDevice { server_id: own.incarnation.boot_id.clone(), ..offer(&a, &b, "x").rank };
    let sound = ChannelOffer { rank: server, ..offer(&a, &b, "x") };
    let region = |address, length_bytes| Region { address, length_bytes, kind: RegionKind::Device };
    let wrong: Vec<(ChannelOffer, &str)> = vec![
        (ChannelOffer { channel: String::new(), ..sound.clone() }, "reject-handshake"),
        (ChannelOffer { channel: "a\0b".into(), ..sound.clone() }, "reject-handshake"),
        (ChannelOffer { channel: "n".repeat(128), ..sound.clone() }, "reject-handshake"),
        (ChannelOffer { target_device: 99, ..sound.clone() }, "device-not-found"),
        (ChannelOffer { target_device: i32::MIN, ..sound.clone() }, "device-not-found"),
        (ChannelOffer { regions: vec![region(u64::MAX, 9)], ..sound.clone() }, "reject-handshake"),
        (ChannelOffer { regions: vec![region(0, 9), region(4, 9)], ..sound.clone() }, "reject-handshake"),
        (
            ChannelOffer { rank: RankDevice { version: "7".into(), ..sound.rank.clone() }, ..sound.clone() },
            "reject-handshake",
        ),
        // The link to another server is RoCE, and this side has no address for it.
        (offer(&a, &b, "x"), "unsupported"),
        (
            ChannelOffer { key: ChannelKey { lower: "0".repeat(32), ..sound.key.clone() }, ..sound.clone() },
            "stale-incarnation",
        ),
    ];
    let connection = a.connect(&b);
    for (offer, code) in wrong {
        match connection.request(Message::OpenChannel(offer.clone()), soon()) {
            Ok(Message::Failed(failure)) => assert_eq!(failure.code, code, "{offer:?}"),
            Err(error) => assert_eq!(error.code().name(), code, "{offer:?}"),
            other => panic!("{other:?}"),
        }
    }
    // All is well after it.
    a.must_transfer(&b, Direction::Write, &[(near, far, 4096)]);
}

#[test]
fn a_peer_that_only_offers_uses_up_its_own_share() {
    let config = Config { ascend_connect_timeout: Duration::from_secs(15), ..Config::default() };
    let (a, b) = (node(6), node_with(7, &config, false));
    let far = b.buffer(2 * MIB);
    let connection = a.connect(&b);
    let server = connection.peer().incarnation.boot_id.clone();
    let mut number = 0;
    let refused = wait_until(LONG, || {
        number += 1;
        let channel = format!("only-offers-{number}");
        let mut offer = offer(&a, &b, &channel);
        offer.rank = RankDevice { server_id: server.clone(), device_id: 6, device_ip: None, ..offer.rank };
        match connection.request(Message::OpenChannel(offer), soon()) {
            Ok(Message::ChannelAccepted(_)) => {
                // It says that it comes to the vendor's prepare, where the other side then waits for it in vain.
                connection.send(Message::ChannelBound { channel }).unwrap();
                false
            }
            Ok(Message::Failed(_)) | Err(_) => true,
            other => panic!("{other:?}"),
        }
    });
    assert!(refused, "{number} offers were all taken");
    let c = node(5);
    let near = c.buffer(2 * MIB);
    c.must_transfer(&b, Direction::Write, &[(near, far, 4096)]);
}

/// What the vendor's library refuses shows that it was given: RoCE classes end at 255, levels at 7.
#[test]
fn traffic_class_and_service_level_reach_the_vendor() {
    let with = |traffic_class, service_level| Config {
        rdma_traffic_class: traffic_class,
        rdma_service_level: service_level,
        ..Config::default()
    };
    let outcome = |config: &Config| {
        let (a, b) = (node_with(0, config, false), node_with(1, config, false));
        let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
        a.transfer(&b, Direction::Write, &[(near, far, MIB)])
    };
    let (done, error) = outcome(&with(Some(100), Some(3)));
    assert!(done.is_success(), "{error:?}");
    for config in [with(Some(256), None), with(None, Some(8))] {
        let (done, error) = outcome(&config);
        assert!(!done.is_success());
        let error = error.unwrap().to_string();
        assert!(
            error.contains("HcclCommPrepare") || error.contains("the peer's end of the channel failed"),
            "{error}"
        );
    }
}
